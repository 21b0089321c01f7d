"""Spans of keys as requests spell them: an empty end is the one key, a zero byte the end of the key space."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[bytes, bytes]


def holds(span: Span, key: bytes) -> bool:
    """Whether a key lies in a span."""
    start, end = span
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


def without(span: Span, holes: Iterable[Span]) -> list[Span]:
    """What is left of a span, in key order, once the holes are taken out; no piece is empty or a single key's."""
    pieces: list[tuple[bytes, bytes | None]] = [_bounds(span)]
    for hole in holes:
        low, high = _bounds(hole)
        if high is not None and high <= low:
            continue  # inverted: it holds nothing
        left: list[tuple[bytes, bytes | None]] = []
        for start, end in pieces:
            if end is None or low < end:
                left.append((start, min(max(start, low), end or low)))
            else:
                left.append((start, end))
                continue
            if high is not None and (end is None or high < end):
                left.append((max(start, high), end))
        pieces = [(start, end) for start, end in left if end is None or start < end]
    return [(start, b"\0" if end is None else end) for start, end in pieces if end is None or start < end]


def _bounds(span: Span) -> tuple[bytes, bytes | None]:
    """First key, and the first one behind; None: there is none."""
    start, end = span
    if not end:
        return start, start + b"\0"
    return start, None if end == b"\0" else end
