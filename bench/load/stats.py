"""Latencies: exact to a microsecond, mergeable over processes, 0.05 us a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999))


class Latencies:
    """A multiset of latencies in whole microseconds."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: Counter[int] = Counter()
        for latency_us, count in pairs:
            self.counts[latency_us] += count

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, samples_us: Iterable[int]) -> None:
        self.counts.update(samples_us)

    def add_counted(self, counts: Mapping[int, int]) -> None:
        """Count samples that many have in common."""
        self.counts.update(counts)

    def merge(self, other: Latencies) -> None:
        self.counts.update(other.counts)

    def pairs(self) -> list[tuple[int, int]]:
        """``(latency in us, how often)``, ascending."""
        return sorted(self.counts.items())

    def quantiles_us(self, wanted: Iterable[float]) -> list[int]:
        """The latency of each quantile, by nearest rank."""
        pairs, size = self.pairs(), len(self)
        found = []
        for quantile in wanted:
            rank = min(max(1, math.ceil(quantile * size - 1e-9)), size)
            seen = 0
            for latency_us, count in pairs:
                seen += count
                if seen >= rank:
                    found.append(latency_us)
                    break
            else:
                found.append(0)
        return found

    def summary_ms(self) -> dict[str, float]:
        """Mean, extremes and percentiles in milliseconds; all zero where nothing was counted."""
        size = len(self)
        mean_us = sum(value * count for value, count in self.counts.items()) / size if size else 0.0
        values = self.quantiles_us(q for _, q in QUANTILES)
        summary = {"mean": mean_us / 1000, "min": min(self.counts, default=0) / 1000}
        summary |= {name: value / 1000 for (name, _), value in zip(QUANTILES, values, strict=True)}
        summary["max"] = max(self.counts, default=0) / 1000
        return summary

    def buckets(self, per_decade: int = 10) -> list[tuple[int, int]]:
        """A histogram, at most ``per_decade`` bars for each power of ten: ``(upper bound in us, count)``."""
        bars: Counter[int] = Counter()
        for latency_us, count in self.counts.items():
            bars[math.ceil(math.log10(max(latency_us, 1)) * per_decade - 1e-9)] += count
        return [(round(10 ** (bar / per_decade)), bars[bar]) for bar in sorted(bars)]
