"""The last events of the whole tree, for those who wait from an index on that is past."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from cluster.features.v2.events import Brief, concerns
from cluster.features.v2.refusals import Code, V2Error


class History:
    """Each index of the tree is one event's, so an event's place is that of its index."""

    KEPT = 1000

    def __init__(self) -> None:
        self._events: list[tuple[Brief, bytes] | None] = [None] * self.KEPT  # by index modulo KEPT
        self._at: dict[bytes, deque[int]] = {}  # by key, the indexes of its events that wake somebody
        self._sweeps: deque[int] = deque()  # the indexes of those that sweep
        self.last = 0

    def add(self, row: bytes) -> Brief:
        """Take an event in; a later one of the same place stays. struct.error, ValueError: it is none."""
        brief = Brief.of(row)
        slot = brief.index % self.KEPT
        old = self._events[slot]
        if old is not None:
            if old[0].index >= brief.index:
                return brief
            self._forget(old[0])
        self._events[slot] = brief, row
        if not brief.refresh:
            _insert(self._at.setdefault(brief.key, deque()), brief.index)
            if brief.sweeps:
                _insert(self._sweeps, brief.index)
        self.last = max(self.last, brief.index)
        return brief

    def _forget(self, brief: Brief) -> None:
        indexes = self._at.get(brief.key)
        if indexes and indexes[0] == brief.index:
            indexes.popleft()
            if not indexes:
                del self._at[brief.key]
        if self._sweeps and self._sweeps[0] == brief.index:
            self._sweeps.popleft()

    @property
    def first(self) -> int:
        """The oldest index that is kept, as etcd says it."""
        return max(self.last - self.KEPT + 1, 1)

    def since(self, index: int) -> list[bytes]:
        """The events from an index on, as far as they are kept."""
        kept = (self._events[at % self.KEPT] for at in range(max(index, self.first), self.last + 1))
        return [one[1] for one in kept if one is not None]

    def scan(self, path: bytes, recursive: bool, since: int, now: int) -> bytes | None:
        """The first event from an index on that wakes who waits at a path: its row. V2Error: it may be
        forgotten. ``now``: the index of the tree."""
        if since < self.first:
            cause = f"the requested history has been cleared [{self.first}/{since}]"
            raise V2Error(Code.EVENT_INDEX_CLEARED, cause, now)
        found = self._scan_all(path, since) if recursive else self._next(self._at.get(path), since)
        for index in self._sweeps:
            if index >= since and (not found or index < found):
                brief, _ = self._get(index)
                if path.startswith(brief.key + b"/"):
                    found = index
        return self._get(found)[1] if found else None

    def _scan_all(self, path: bytes, since: int) -> int:
        for index in range(since, self.last + 1):
            kept = self._events[index % self.KEPT]
            if kept is not None and kept[0].index == index and concerns(path, True, kept[0], False):
                return index
        return 0

    @staticmethod
    def _next(indexes: deque[int] | None, since: int) -> int:
        if not indexes or indexes[-1] < since:
            return 0
        return indexes[bisect_left(indexes, since)]

    def _get(self, index: int) -> tuple[Brief, bytes]:
        kept = self._events[index % self.KEPT]
        assert kept is not None, "what is listed is kept"
        return kept


def _insert(indexes: deque[int], index: int) -> None:
    """In order: a start reads events by their places."""
    if not indexes or indexes[-1] < index:
        indexes.append(index)
    else:
        indexes.insert(bisect_left(indexes, index), index)
