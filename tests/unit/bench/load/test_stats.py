"""Latencies: units and ranks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.stats import Latencies

_SAMPLES = st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200)


@given(_SAMPLES, st.floats(0.001, 1.0))
def test_a_quantile_is_the_nearest_rank_of_the_sorted_samples(samples: list[int], quantile: float) -> None:
    latencies = Latencies()
    latencies.add(samples)
    rank = min(max(1, math.ceil(quantile * len(samples) - 1e-9)), len(samples))
    assert latencies.quantiles_us([quantile]) == [sorted(samples)[rank - 1]]


@given(_SAMPLES, _SAMPLES)
def test_merging_processes_equals_counting_in_one(one: list[int], other: list[int]) -> None:
    together, first, second = Latencies(), Latencies(), Latencies()
    together.add(one + other)
    first.add(one)
    second.add(other)
    first.merge(Latencies(second.pairs()))
    assert first.pairs() == together.pairs()
    assert first.summary_ms() == together.summary_ms()


def test_a_summary_is_in_milliseconds() -> None:
    latencies = Latencies()
    latencies.add(range(1000, 101_000, 1000))  # 1 ms to 100 ms
    assert latencies.summary_ms() == {"mean": 50.5, "min": 1.0, "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0,
                                      "p99.9": 100.0, "max": 100.0}


def test_nothing_counted_is_all_zero() -> None:
    assert set(Latencies().summary_ms().values()) == {0.0}
    assert Latencies().buckets() == []


@given(_SAMPLES)
def test_each_sample_lies_at_or_below_the_bound_of_its_bar_and_above_the_one_before(samples: list[int]) -> None:
    latencies = Latencies()
    latencies.add(samples)
    bars = latencies.buckets()
    assert sum(count for _, count in bars) == len(samples)
    seen, below = 0, 0
    for upper_us, count in bars:
        seen += count
        below = sum(sample <= upper_us + 1 for sample in samples)  # bounds are rounded to whole microseconds
        assert seen <= below
    assert seen == below


@pytest.mark.parametrize("latency_us", [1, 10, 100, 1000, 10_000_000])
def test_a_power_of_ten_is_its_own_bound(latency_us: int) -> None:
    assert Latencies([(latency_us, 3)]).buckets() == [(latency_us, 3)]
