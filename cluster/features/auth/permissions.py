"""Which keys a user may read and write: the union of its roles' ranges. Adjacent grants merge: a range is
allowed if the union covers it whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

#: An end after which no key comes.
_OPEN = None
_Interval = tuple[bytes, bytes | None]  # first key, first key behind it


def interval(key: bytes, range_end: bytes) -> _Interval:
    """First key and first key behind a range of etcd's convention: an empty end is the one key, a zero byte
    every key from there."""
    if not range_end:
        return key, key + b"\0"
    return key, _OPEN if range_end == b"\0" else range_end


class Ranges:
    """Disjoint intervals in key order; intervals that touch are one."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, granted: Iterable[_Interval]) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        for start, end in sorted(granted, key=lambda one: one[0]):
            if end is not None and end <= start:
                continue  # it holds no key
            last = self._ends[-1] if self._ends else b""
            if self._ends and (last is None or start <= last):
                if last is not None and (end is None or end > last):
                    self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    @property
    def everything(self) -> bool:
        """Whether every key is within: none is empty."""
        return self.behind(b"\0") is None

    def behind(self, key: bytes) -> bytes | None:
        """The first key that is not within, from this one on; None: there is none."""
        at = bisect_right(self._starts, key) - 1
        end = self._ends[at] if at >= 0 else key
        return end if end is None else max(end, key)

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of the range is within."""
        start, end = interval(key, range_end)
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return False
        held = self._ends[at]
        if end is None:
            return held is None
        # an inverted range holds no key. It is covered where its start is, if etcd's tree of intervals finds
        # that: surely for the first of them, and for one that begins at the range's end or before it
        return (at == 0 or self._starts[at] <= end) and (held is None or (start < held and end <= held))


NOTHING, EVERYTHING = Ranges(()), Ranges([(b"", _OPEN)])
