"""muster-bench beside etcd's benchmark tool: its report is read, and both are run on both systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.compare.loads import agree
from bench.systems.systems import System

REPORT = """
Summary:
  Total:\t2.0101 secs.
  Slowest:\t0.0551 secs.
  Fastest:\t0.0003 secs.
  Average:\t0.0041 secs.
  Stddev:\t0.0022 secs.
  Requests/sec:\t24378.9012

Response time histogram:
  0.0003 [1]\t|

Latency distribution:
  10% in 0.0020 secs.
  99% in 0.0121 secs.
  99.9% in 0.0300 secs.
"""


def test_the_report_of_etcds_tool_is_read() -> None:
    found = agree.parse(REPORT)
    assert (found.throughput_per_s, found.mean_ms, found.p99_ms) == pytest.approx((24378.9012, 4.1, 12.1))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "did not say"),
        (REPORT + "\nError distribution:\n  [3]\tetcdserver: request timed out\n", "counted errors"),
    ],
)
def test_a_report_without_figures_or_with_errors_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        agree.parse(said)


def test_both_tools_take_their_turns_and_the_ratios_are_told(etcd: System, tmp_path: Path) -> None:
    tool = tmp_path / "benchmark"
    tool.write_text("#!/bin/sh\ncat <<'END'\n" + REPORT + "END\n")
    tool.chmod(0o755)
    names = [f"{name}={','.join(etcd.endpoints)}" for name in ("one", "other")]
    result = agree.measure(
        tool, names, [1], rounds=1, duration_s=0.2, data_dir=tmp_path, said=lambda line: None
    )
    assert [row["work"] for row in result["rows"]] == ["put", "range-l", "range-s"]
    for row in result["rows"]:
        theirs, ours = row["tools"]["etcd's benchmark"], row["tools"]["muster-bench"]
        assert theirs["throughput_per_s"] == {"one": 24378.9012, "other": 24378.9012, "ratio": 1.0}
        assert ours["throughput_per_s"]["one"] > 0
    assert agree.markdown(result).count("\n") == 8
