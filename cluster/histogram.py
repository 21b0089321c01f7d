"""Counts of how long things took, in buckets, for Prometheus. A front adds up those of its host's nodes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypedDict


class Observed(TypedDict):
    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float


class Histogram:
    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds  # ascending
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, other: Observed) -> None:
        """Take in the values of another one. ValueError if it has other bounds."""
        if list(other["bounds"]) != list(self.bounds):
            raise ValueError("histograms with different bounds cannot be added")
        self.counts = [a + b for a, b in zip(self.counts, other["counts"], strict=True)]
        self.sum += other["sum"]

    def observed(self) -> Observed:
        return {"bounds": self.bounds, "counts": self.counts, "sum": self.sum}

    def buckets(self) -> list[tuple[str, float]]:
        """For Prometheus: upper bounds as text, and how many values were no greater."""
        total, found = 0, []
        for bound, count in zip((*map(_text, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


def _text(bound: float) -> str:
    """As Go's Prometheus library has it: 1048576 is 1.048576e+06."""
    if bound < 1e6:
        return f"{bound:.10g}"
    digits, _, exponent = f"{bound:.9e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{exponent}"


def doubling(first: float, count: int) -> tuple[float, ...]:
    return tuple(round(first * 2**i, 10) for i in range(count))


# etcd's (contract http-endpoints.md, section 6), in seconds
DISK_S = doubling(0.001, 14)
APPLY_S = doubling(0.0001, 20)
HASH_S = doubling(0.01, 15)
DEFRAG_S = doubling(0.1, 13)
ROUND_TRIP_S = doubling(0.0001, 16)
SNAPSHOT_S = doubling(0.1, 10)
CHECKPOINT_S = doubling(0.01, 17)
LEASE_TTL_S = doubling(1.0, 24)
# and in milliseconds
COMPACTION_MS = doubling(100.0, 14)
COMPACTION_SLICE_MS = doubling(1.0, 13)
# the Prometheus client's own: of grpc_server_handling_seconds
DEFAULT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
