"""Spans of keys as requests spell them: an empty end is the one key, a zero byte the end of the key space."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[bytes, bytes]


def holds(span: Span, key: bytes) -> bool:
    start, end = span
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


def inverted(span: Span) -> bool:
    """Whether a span holds nothing: its end is before its key."""
    key, end = span
    return bool(end) and end != b"\0" and end <= key


def bounds(span: Span) -> tuple[bytes, bytes | None]:
    """First key, and the first key behind the span; None: there is none."""
    start, end = span
    if not end:
        return start, start + b"\0"
    return start, None if end == b"\0" else end


def keys_in(keys: Sequence[bytes], span: Span) -> Sequence[bytes]:
    """The keys of a sorted list that lie in a span."""
    low, high = bounds(span)
    first = bisect_left(keys, low)
    return keys[first : len(keys) if high is None else max(bisect_left(keys, high), first)]


def meet(some: Iterable[Span], others: Iterable[Span]) -> bool:
    """Whether a key can lie in a span of each: n log n, for many spans."""
    ends: list[bytes | None] = [b"", b""]  # where the spans of each side that began so far end; None: nowhere
    begins = [(*bounds(span), side) for side, spans in enumerate((some, others)) for span in spans]
    for low, high, side in sorted(begins, key=lambda begin: begin[0]):
        if high is not None and high <= low:
            continue  # inverted: it holds nothing
        other, own = ends[1 - side], ends[side]
        if other is None or low < other:
            return True
        if own is not None:
            ends[side] = None if high is None else max(own, high)
    return False


class Intervals:
    """A set of keys made of disjoint intervals. Adding one and looking a key up take log n steps."""

    __slots__ = ("_begins", "_ends", "_rest")

    def __init__(self) -> None:
        self._begins: list[bytes] = []  # of disjoint intervals, in order
        self._ends: list[bytes] = []
        self._rest: bytes | None = None  # besides, every key from here on

    def __len__(self) -> int:
        return len(self._begins) + (self._rest is not None)

    def add(self, begin: bytes, end: bytes | None) -> None:
        """``end`` None: to the end of the keys. An interval whose end is not behind its begin holds
        nothing."""
        if end is None:
            self._rest = begin if self._rest is None else min(begin, self._rest)
            return
        if end <= begin:
            return
        begins, ends = self._begins, self._ends
        first = bisect_left(ends, begin)  # those that it touches: from here ...
        last = bisect_right(begins, end)  # ... to before here
        if first < last:
            begin, end = min(begin, begins[first]), max(end, ends[last - 1])
        begins[first:last] = (begin,)
        ends[first:last] = (end,)

    def add_span(self, span: Span) -> None:
        self.add(*bounds(span))

    def spans(self) -> list[Span]:
        """Its intervals, as requests spell them. None is a single key's, and no two meet."""
        spans = list(zip(self._begins, self._ends, strict=True))
        if self._rest is None:
            return spans
        rest = self._rest
        low = min([rest, *(begin for begin, end in spans if end >= rest)])
        return [*(span for span in spans if span[1] < rest), (low, b"\0")]

    def __contains__(self, key: bytes) -> bool:
        at = bisect_right(self._begins, key)
        return (at > 0 and key < self._ends[at - 1]) or (self._rest is not None and self._rest <= key)

    def meets(self, span: Span) -> bool:
        """Whether a key of a span can be in the set."""
        low, high = bounds(span)
        if high is not None and high <= low:
            return False  # inverted: it holds nothing
        at = bisect_right(self._ends, low)
        firsts = (self._begins[at] if at < len(self._begins) else None, self._rest)
        return any(first is not None and (high is None or first < high) for first in firsts)

    def meets_any(self, others: Intervals) -> bool:
        """Whether a key can be in both sets: as many looks as the smaller one has intervals."""
        few, many = sorted((self, others), key=len)
        return any(map(many.meets, few.spans()))

    def without(self, span: Span) -> list[Span]:
        """What is left of a span without the set, in key order; no piece is empty or a single key's."""
        low, high = bounds(span)
        if self._rest is not None and (high is None or self._rest < high):
            high = self._rest
        begins, ends = self._begins, self._ends
        pieces: list[Span] = []
        at = bisect_right(ends, low)
        while at < len(begins) and (high is None or begins[at] < high):
            if low < begins[at]:
                pieces.append((low, begins[at]))
            low = max(low, ends[at])
            at += 1
        if high is None or low < high:
            pieces.append((low, b"\0" if high is None else high))
        return pieces


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans of the same keys, of which no two ranges meet. Inverted ones stay."""
    ranges = Intervals()
    found: list[Span] = []
    singles: list[bytes] = []
    for span in dict.fromkeys(spans):
        low, high = bounds(span)
        if not span[1]:
            singles.append(low)
        elif high is not None and high <= low:
            found.append(span)
        else:
            ranges.add(low, high)
    found += [(key, b"") for key in singles if key not in ranges]
    return found + ranges.spans()
