"""The last events of the whole tree, for those who wait from an index on that is past."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice
from operator import attrgetter

from cluster.features.v2.events import Brief, concerns, index_of
from cluster.features.v2.refusals import Code, V2Error


class History:
    """Each index of the tree is one event's, so an event's place is that of its index.

    Whom an event concerns is listed only once somebody looks back: while nobody does, one more costs nothing
    but its place.
    """

    KEPT = 1000

    def __init__(self) -> None:
        self._rows: list[bytes | None] = [None] * self.KEPT  # by index modulo KEPT
        self._listed: deque[Brief] = deque()  # of those up to ``_through``, in order
        self._through = 0
        self._at: dict[bytes, deque[int]] = {}  # by key, the indexes of its events that wake somebody
        self._sweeps: deque[int] = deque()  # the indexes of those that sweep
        self.last = 0

    def add(self, row: bytes) -> None:
        """Take an event in; a later one of the same place stays. struct.error, ValueError: it is none."""
        index = index_of(row)
        if index <= self.last:  # a start reads events by their places
            old = self._rows[index % self.KEPT]
            if old is not None and index_of(old) >= index:
                return
            self._list_anew()
        else:
            self.last = index
        self._rows[index % self.KEPT] = row

    def _list_anew(self) -> None:
        self._listed.clear()
        self._at.clear()
        self._sweeps.clear()
        self._through = 0

    def _list(self) -> None:
        """Forget those listed that are kept no more, and list those that have come since."""
        first = self.first
        listed, at = self._listed, self._at
        while listed and listed[0].index < first:
            brief = listed.popleft()
            indexes = at[brief.key]
            indexes.popleft()
            if not indexes:
                del at[brief.key]
            if brief.sweeps:
                self._sweeps.popleft()
        for index in range(max(self._through + 1, first), self.last + 1):
            row = self._row(index)
            if row is None:
                continue
            brief = Brief.of(row)
            if not brief.refresh:
                listed.append(brief)
                at.setdefault(brief.key, deque()).append(index)
                if brief.sweeps:
                    self._sweeps.append(index)
        self._through = self.last

    def _row(self, index: int) -> bytes | None:
        row = self._rows[index % self.KEPT]
        return row if row is not None and index_of(row) == index else None

    @property
    def first(self) -> int:
        """The oldest index that is kept, as etcd says it."""
        return max(self.last - self.KEPT + 1, 1)

    def since(self, index: int) -> list[bytes]:
        """The events from an index on, as far as they are kept."""
        kept = (self._row(at) for at in range(max(index, self.first), self.last + 1))
        return [row for row in kept if row is not None]

    def scan(self, path: bytes, recursive: bool, since: int, now: int) -> bytes | None:
        """The first event from an index on that wakes who waits at a path: its row. V2Error: it may be
        forgotten. ``now``: the index of the tree."""
        if since < self.first:
            cause = f"the requested history has been cleared [{self.first}/{since}]"
            raise V2Error(Code.EVENT_INDEX_CLEARED, cause, now)
        if since > self.last:
            return None
        self._list()
        found = self._scan_all(path, since) if recursive else self._next(self._at.get(path), since)
        for index in self._sweeps:
            if index >= since and (not found or index < found):
                brief = Brief.of(self._kept(index))
                if path.startswith(brief.key + b"/"):
                    found = index
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
