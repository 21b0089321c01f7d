"""Whether a request meets any of many others. Hot path: single keys are looked up in 1 us, however many are
held (compared with each other, 0.9 us for two pairs). A range takes log n steps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cluster.evaluate.footprint import Footprint
from cluster.evaluate.spans import Span, bounds

_FEW = 16  # one part of the keys in so many is put in its place; more are sorted with the rest


class _Sorted:
    """Keys, in order once they are asked for. One may be there several times."""

    __slots__ = ("_fresh", "_keys")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys = sorted(keys)
        self._fresh: list[bytes] = []

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh)

    def add(self, keys: Sequence[bytes]) -> None:
        self._fresh += keys

    def remove(self, keys: Sequence[bytes]) -> None:
        found = self.keys()
        if len(keys) * _FEW < len(found):
            for key in keys:
                del found[bisect_left(found, key)]
        else:
            left = Counter(found)
            left.subtract(keys)
            self._keys = list(left.elements())  # in order, as they were counted

    def keys(self) -> list[bytes]:
        found, fresh = self._keys, self._fresh
        if fresh:
            if len(fresh) * _FEW < len(found):
                for key in fresh:
                    insort(found, key)
            else:
                found += fresh
                found.sort()
            fresh.clear()
        return found


class _Spans:
    """What is read, or written. Of a range only its two bounds are kept."""

    __slots__ = ("_begins", "_ends", "_singles", "counts")

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}  # how many of the others touch a key
        self._singles: _Sorted | None = None  # of them, once a range was asked about
        self._begins, self._ends = _Sorted(), _Sorted()  # a range to the end of the keys has no end

    def add(self, spans: Sequence[Span], single: bool) -> None:
        counts = self.counts
        keys = spans if single else [span for span in spans if not span[1]]
        for key, _ in keys:
            counts[key] = counts.get(key, 0) + 1
        if single and self._singles is None:
            return
        for held, found in self._in_order(keys, spans, single):
            held.add(found)

    def remove(self, spans: Sequence[Span], single: bool) -> None:
        counts = self.counts
        keys = spans if single else [span for span in spans if not span[1]]
        for key, _ in keys:
            if counts[key] > 1:
                counts[key] -= 1
            else:
                del counts[key]
        if single and self._singles is None:
            return
        for held, found in self._in_order(keys, spans, single):
            held.remove(found)

    def _in_order(
        self, keys: Sequence[Span], spans: Sequence[Span], single: bool
    ) -> Iterator[tuple[_Sorted, list[bytes]]]:
        """What is held in order, each with what these spans bring to it; ``keys``: those of single keys."""
        if self._singles is not None:
            yield self._singles, [key for key, _ in keys]
        if not single:
            begins, ends = _bounds_of_ranges(spans)
            yield self._begins, begins
            yield self._ends, ends

    def meets(self, span: Span) -> bool:
        low, high = bounds(span)
        if not span[1]:
            if low in self.counts:
                return True
        elif high is not None and high <= low:
            return False  # inverted: it holds nothing
        elif self.counts:
            if self._singles is None:
                self._singles = _Sorted(Counter(self.counts).elements())
            keys = self._singles.keys()
            at = bisect_left(keys, low)
            if at < len(keys) and (high is None or keys[at] < high):
                return True
        if not self._begins:
            return False
        begins = self._begins.keys()
        begun = len(begins) if high is None else bisect_left(begins, high)
        return begun > bisect_right(self._ends.keys(), low)  # one that has begun has not ended


def _bounds_of_ranges(spans: Sequence[Span]) -> tuple[list[bytes], list[bytes]]:
    found = [(low, high) for low, high in (bounds(span) for span in spans if span[1])
             if high is None or low < high]
    return [low for low, _ in found], [high for _, high in found if high is not None]


class Overlaps:
    def __init__(self) -> None:
        self._all: dict[int, Footprint] = {}  # by identity: an owner adds its footprint once
        self._with_ranges = 0
        self._reads, self._writes = _Spans(), _Spans()
        self._leases: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, footprint: Footprint) -> None:
        assert id(footprint) not in self._all, "held once"
        self._all[id(footprint)] = footprint
        single = footprint.single
        self._with_ranges += not single
        if footprint.reads:
            self._reads.add(footprint.reads, single)
        if footprint.writes:
            self._writes.add(footprint.writes, single)
        for lease in footprint.leases:
            self._leases[lease] = self._leases.get(lease, 0) + 1

    def remove(self, footprint: Footprint) -> None:
        del self._all[id(footprint)]
        if not self._all:  # nor does it keep in order what no range asks for any more
            self._with_ranges, self._leases = 0, {}
            self._reads, self._writes = _Spans(), _Spans()
            return
        single = footprint.single
        self._with_ranges -= not single
        if footprint.reads:
            self._reads.remove(footprint.reads, single)
        if footprint.writes:
            self._writes.remove(footprint.writes, single)
        for lease in footprint.leases:
            if left := self._leases[lease] - 1:
                self._leases[lease] = left
            else:
                del self._leases[lease]

    def meets(self, footprint: Footprint) -> bool:
        """Whether the order of it and any that is held matters (``Footprint.conflicts``)."""
        if not self._all:
            return False
        reads, writes = self._reads, self._writes
        if self._with_ranges or not footprint.single:
            if any(writes.meets(span) or reads.meets(span) for span in footprint.writes) or any(
                    writes.meets(span) for span in footprint.reads):
                return True
        else:
            read, written = reads.counts, writes.counts
            for key, _ in footprint.writes:
                if key in written or key in read:
                    return True
            for key, _ in footprint.reads:
                if key in written:
                    return True
        return bool(footprint.leases) and not self._leases.keys().isdisjoint(footprint.leases)
