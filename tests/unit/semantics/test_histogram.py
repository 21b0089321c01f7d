"""Histograms count a value in the first bucket whose bound is no smaller, as Prometheus does."""

from __future__ import annotations

import json

import pytest

from cluster.histogram import APPLY_S, DISK_S, Histogram, doubling


def test_a_value_counts_up_to_its_bound() -> None:
    found = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.2, 1.0, 7.0):
        found.observe(value)
    assert found.buckets() == [("0.1", 2.0), ("1", 4.0), ("+Inf", 5.0)]
    assert found.count == 5
    assert found.sum == pytest.approx(8.35)


def test_figures_of_several_processes_add_up() -> None:
    one, other = Histogram((1.0,)), Histogram((1.0,))
    one.observe(0.5)
    other.observe(2.0)
    one.add(json.loads(json.dumps(other.observed())))
    assert (one.counts, one.sum) == ([1, 1], 2.5)
    with pytest.raises(ValueError, match="different bounds"):
        one.add(Histogram((2.0,)).observed())


def test_bounds_are_written_as_etcd_writes_them() -> None:
    assert [le for le, _ in Histogram(DISK_S).buckets()] == [
        "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024",
        "2.048", "4.096", "8.192", "+Inf",
    ]
    assert Histogram(APPLY_S).buckets()[-2][0] == "52.4288"
    assert doubling(1.0, 3) == (1.0, 2.0, 4.0)
