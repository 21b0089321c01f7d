"""Durations, thresholds, and how a run is told over a saved one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.load import outcome


def result(**changes: Any) -> dict[str, Any]:
    latency = dict.fromkeys(("mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max"), 2.0)
    return {"schema": "muster-bench/1", "command": "put", "settings": {"clients": 4}, "latency_ms": latency,
            "operations": 90, "errors": {"a": 6, "b": 4}, "throughput_per_s": 30.0, "duration_s": 3.0,
            "server": None, "started_at": "then", **changes}


@pytest.mark.parametrize(("text", "bare", "seconds"), [
    ("30s", 1.0, 30.0), ("30", 1.0, 30.0), ("0.5", 1.0, 0.5), ("1m30s", None, 90.0), ("250ms", None, 0.25),
    ("0", None, 0.0), ("20", 1e-3, 0.02),
])
def test_a_duration_is_gos_or_a_number_where_that_is_allowed(
    text: str, bare: float | None, seconds: float
) -> None:
    assert outcome.seconds(text, bare=bare) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "", "1x", "s", "-1s", "1 s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        outcome.seconds(text)


@pytest.mark.parametrize(("text", "met"), [
    ("p99>1.9ms", True), ("p99>2", False), ("p99>=2", True), ("mean<0.1s", True), ("max>1m", False),
    ("errors>0", True), ("errors>10", False), ("errors>=10%", True), ("errors>10%", False),
    ("throughput<31", True), ("duration>2s", True), ("operations<90", False), ("p99.9 >= 2ms", True),
])
def test_thresholds_compare_in_the_units_they_name(text: str, met: bool) -> None:
    (limit,) = outcome.thresholds(text)
    assert limit.met(result()) is met


@pytest.mark.parametrize(
    "text", ["p99", "p98>1", "p99=3", "errors>1ms", "throughput>1/s", "p99>3%", "cpu>1ms"]
)
def test_thresholds_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--fail-if|invalid duration"):
        outcome.thresholds(text)


def test_a_threshold_on_what_was_not_measured_is_refused() -> None:
    (limit,) = outcome.thresholds("cpu>5us")
    with pytest.raises(ValueError, match="no figure cpu"):
        limit.met(result())
    assert limit.met(result(server={"us_per_op": 6.0}))


def test_a_run_is_told_over_the_last_saved_one_of_the_same_work() -> None:
    before = [result(throughput_per_s=10.0), result(throughput_per_s=15.0), result(command="range")]
    assert (
        outcome.look_back(result(), Path("x"), before)
        == "over x (then): throughput 2.00, mean 1.00, p99 1.00"
    )
    assert (
        outcome.look_back(result(settings={"clients": 5}), Path("x"), before)
        == "x: has no put with 5 clients"
    )
