"""The price of the order: a line through measured steps, and one real step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import cuts


def row(reports_per_s: float, cpu: float, *, kept_up: bool = True) -> dict[str, Any]:
    return {"reports_per_s": reports_per_s, "sequencer_cpu": cpu, "kept_up": kept_up}


def test_a_sequencer_saturates_where_the_line_through_the_steps_reaches_a_whole_cpu() -> None:
    steps = [row(200, 0.12), row(400, 0.14), row(800, 0.18), row(9000, 0.99, kept_up=False)]
    assert cuts.saturation(steps, 200) == pytest.approx(46)  # 9,000 reports a second, of 45 shards and shard 0
    assert cuts.saturation(steps[-2:], 200) is None  # one point is no line


def test_one_shard_has_no_cuts() -> None:
    with pytest.raises(ValueError, match="no cuts"):
        cuts.measure([1], rate_per_s=1, duration_s=0.1)


def test_synthetic_shards_get_real_cuts(tmp_path: Path) -> None:
    result = cuts.measure([3], rate_per_s=20, duration_s=1.0, data_dir=tmp_path, said=lambda line: None)
    (step,) = result["rows"]
    assert 0 < step["cuts_per_s"] <= 1.1 * step["reports_per_s"]
    assert step["fed_per_s"] >= step["cuts_per_s"]  # two shards on three hosts
    assert 0 < step["sequencer_cpu"] < 2
    assert 0 < step["to_order_p50_ms"] <= step["to_order_p99_ms"]
    assert list(tmp_path.iterdir()) == []
    assert cuts.markdown(result).count("\n") == 5
