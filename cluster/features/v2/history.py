"""The last events of the whole tree, for waits from a past index."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice
from operator import attrgetter

from cluster.features.v2.events import Brief, concerns, index_of
from cluster.features.v2.refusals import Code, V2Error

FIRST = 4  # the index of a tree's first event: nothing before it was forgotten
KEPT = 1000  # events
MOST_BYTES = 64 << 20  # of their rows: the oldest go first. A part of the state machine, as KEPT is


class Sizes:
    """How large the rows of the last events are."""

    def __init__(self) -> None:
        self._sizes = [0] * KEPT  # by index modulo KEPT
        self.bytes = self.last = 0

    def copy(self) -> Sizes:
        """A copy to change."""
        made = Sizes()
        made._sizes, made.bytes, made.last = [*self._sizes], self.bytes, self.last
        return made

    def add(self, index: int, size: int) -> None:
        """An event is logged; the one in its place goes."""
        slot = index % KEPT
        self.bytes += size - self._sizes[slot]
        self._sizes[slot] = size
        if index > self.last:
            self.last = index

    def forget(self, slot: int) -> None:
        self.bytes -= self._sizes[slot]
        self._sizes[slot] = 0

    def outdated(self) -> list[int]:
        """The indexes of the events that are to go for the bytes of all, the oldest first."""
        over = self.bytes - MOST_BYTES
        if over <= 0:
            return []
        found: list[int] = []
        for index in range(max(self.last - KEPT + 1, 0), self.last):
            if over <= 0:
                break
            if size := self._sizes[index % KEPT]:
                found.append(index)
                over -= size
        return found


class History:
    """The last events by index: each index of the tree is one event's. Which events concern a path is listed
    only at a scan: without scans an event costs its place only."""

    def __init__(self) -> None:
        self._rows: list[bytes | None] = [None] * KEPT  # by index modulo KEPT
        self._listed: deque[Brief] = deque()  # of those up to ``_through``, in order
        self._through = 0
        self._at: dict[bytes, deque[int]] = {}  # by key, the indexes of its events that end a wait
        self._sweeps: dict[bytes, deque[int]] = {}  # of these, the indexes of those that sweep
        self.last = 0
        self._least = 1  # those before have gone

    def add(self, row: bytes) -> None:
        """Take an event in; a later one of the same place stays. struct.error, ValueError: it is none."""
        index = index_of(row)
        if index <= self.last:  # a start reads events by their places
            old = self._rows[index % KEPT]
            if old is not None and index_of(old) >= index:
                return
            self._listed.clear()
            self._at.clear()
            self._sweeps.clear()
            self._through = 0
        else:
            self.last = index
        self._rows[index % KEPT] = row

    def forget(self, slot: int) -> None:
        """The event of this place has gone, and so have those before it."""
        row = self._rows[slot]
        if row is not None:
            self._least = max(self._least, index_of(row) + 1)
            self._rows[slot] = None

    def sizes(self) -> Sizes:
        found = Sizes()
        for row in self.since(0):
            found.add(index_of(row), len(row))
        return found

    def read(self) -> None:
        """All stored events are here: those before the first of an unbroken line had gone."""
        least = self.last + 1
        while least > self.first and self._row(least - 1) is not None:
            least -= 1
        if least > FIRST:
            self._least = max(self._least, least)

    def _list(self) -> None:
        """Drop the listed events that are kept no more, and list new ones."""
        first = self.first
        listed, at = self._listed, self._at
        while listed and listed[0].index < first:
            brief = listed.popleft()
            for indexes in (at, self._sweeps) if brief.sweeps else (at,):
                indexes[brief.key].popleft()
                if not indexes[brief.key]:
                    del indexes[brief.key]
        for index in range(max(self._through + 1, first), self.last + 1):
            row = self._row(index)
            if row is None:
                continue
            brief = Brief.of(row)
            if not brief.refresh:
                listed.append(brief)
                at.setdefault(brief.key, deque()).append(index)
                if brief.sweeps:
                    self._sweeps.setdefault(brief.key, deque()).append(index)
        self._through = self.last

    def _row(self, index: int) -> bytes | None:
        row = self._rows[index % KEPT]
        return row if row is not None and index_of(row) == index else None

    @property
    def first(self) -> int:
        """The oldest index that is kept, as etcd says it."""
        return max(self.last - KEPT + 1, self._least)

    def since(self, index: int) -> list[bytes]:
        """The kept events from an index on."""
        kept = (self._row(at) for at in range(max(index, self.first), self.last + 1))
        return [row for row in kept if row is not None]

    def scan(self, path: bytes, recursive: bool, since: int, now: int) -> bytes | None:
        """The row of the first event from ``since`` on that ends a wait at a path. V2Error: it may be
        forgotten. ``now``: the index of the tree."""
        if since < self.first:
            cause = f"the requested history has been cleared [{self.first}/{since}]"
            raise V2Error(Code.EVENT_INDEX_CLEARED, cause, now)
        if since > self.last:
            return None
        self._list()
        found = self._scan_all(path, since) if recursive else self._next(self._at.get(path), since)
        end = path.rfind(b"/") if self._sweeps else 0
        while end > 0:
            swept = self._next(self._sweeps.get(path[:end]), since)
            if swept and (not found or swept < found):
                found = swept
            end = path.rfind(b"/", 0, end)
        return self._kept(found) if found else None

    def _scan_all(self, path: bytes, since: int) -> int:
        for brief in islice(self._listed, bisect_left(self._listed, since, key=_index), None):
            if concerns(path, True, brief, False):
                return brief.index
        return 0

    @staticmethod
    def _next(indexes: deque[int] | None, since: int) -> int:
        if not indexes or indexes[-1] < since:
            return 0
        return indexes[bisect_left(indexes, since)]

    def _kept(self, index: int) -> bytes:
        row = self._row(index)
        assert row is not None, "what is listed is kept"
        return row


_index = attrgetter("index")
