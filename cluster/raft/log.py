"""The log as Raft sees it: a tail in memory behind what storage holds, and its marks.

Rules:

- ``applied <= commit <= last_index``; ``position.index <= applied``; ``persisted <= handed <= last_index``.
- *Handed*: given out for storage. *Persisted*: synced, and still in this log: a truncation takes the mark
  back, also for writes under way.
- Entries that are not persisted stay in memory; the others as long as ``max_tail_bytes`` allows.
- A log is truncated only where an entry conflicts (section 5.3), and never at or below commit (I1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cluster.raft.types import Entry, LogContradiction, LogStorage, SnapshotPosition

_ENTRY_COST = 200  # bytes of Python objects beside an entry's data


class RaftLog:
    __slots__ = (
        "_flight", "_max_tail_bytes", "_storage", "applied", "commit", "handed", "last_index", "last_term",
        "persisted", "position", "tail", "tail_bytes", "tail_first")

    def __init__(self, storage: LogStorage, max_tail_bytes: int) -> None:
        self._storage = storage
        self._max_tail_bytes = max_tail_bytes
        self.position: SnapshotPosition = storage.snapshot_position()
        self.last_index = storage.last_index()
        if self.last_index < self.position.index:
            raise LogContradiction(
                f"log ends at {self.last_index}, before its own start {self.position.index}")
        self.last_term = self.position.term
        if self.last_index > self.position.index:
            self.last_term = storage.term(self.last_index)
        self.tail: list[Entry] = []
        self.tail_first = self.last_index + 1
        self.tail_bytes = 0
        self.handed = self.persisted = self.last_index
        self.commit = self.applied = self.position.index
        self._flight: deque[list[int]] = deque()  # [sequence, last index it will have persisted]

    def term(self, index: int) -> int:
        """Term of the entry at ``index``; -1 if it is compacted or does not exist."""
        if index >= self.tail_first:
            return self.tail[index - self.tail_first].term if index <= self.last_index else -1
        if index > self.position.index:
            return self._storage.term(index)
        return self.position.term if index == self.position.index else -1

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries ``[first, last]``, cut before ``max_bytes`` would be passed, at least one."""
        start = first - self.tail_first
        if start < 0:
            stored_last = min(last, self.tail_first - 1)
            found = self._storage.entries(first, stored_last, max_bytes)
            if not found or found[0].index != first:
                raise LogContradiction(f"storage has no entry {first}")
            return found
        tail = self.tail
        stop = last - self.tail_first + 1
        size = 0
        for i in range(start, stop):
            size += len(tail[i].data)
            if size > max_bytes and i > start:
                return tail[start:i]
        return tail[start:stop]

    def find_conflict(self, index: int, term: int) -> tuple[int, int]:
        """Index and term of the last entry up to ``index`` and ``term``, where two logs may agree."""
        index = min(index, self.last_index)
        while index > self.position.index:
            found = self.term(index)
            if found <= term:
                return index, found
            index -= 1
        return self.position.index, self.position.term

    def append(self, entry: Entry) -> None:
        self.tail.append(entry)
        self.tail_bytes += len(entry.data) + _ENTRY_COST
        self.last_index = entry.index
        self.last_term = entry.term

    def merge(self, entries: Sequence[Entry]) -> int:
        """Take over a leader's entries; the one before the first is known to match. Returns the index of the
        first new entry (0: none), from which on everything was replaced.

        Matching entries and what follows them stay: they may have been acknowledged, and the message may be
        an old one (section 5.3: truncate only on conflict).
        """
        skip = 0
        for entry in entries:
            if entry.index > self.last_index:
                break
            if self.term(entry.index) != entry.term:
                self._truncate(entry.index)
                break
            skip += 1
        else:
            return 0
        for entry in entries[skip:]:
            self.append(entry)
        return entries[skip].index

    def _truncate(self, index: int) -> None:
        if index <= self.commit:
            raise LogContradiction(
                f"I1: a leader contradicts the committed entry {index} (commit {self.commit})")
        keep = index - self.tail_first
        if keep > 0:
            for entry in self.tail[keep:]:
                self.tail_bytes -= len(entry.data) + _ENTRY_COST
            del self.tail[keep:]
        else:
            self.tail.clear()
            self.tail_bytes = 0
            self.tail_first = index
        last = index - 1
        self.last_index = last
        self.last_term = self.term(last)
        self._take_back(last)

    def _take_back(self, last: int) -> None:
        """What is or will be persisted beyond ``last`` is not this log any more."""
        self.handed = min(self.handed, last)
        self.persisted = min(self.persisted, last)
        for record in self._flight:
            record[1] = min(record[1], last)

    def install(self, position: SnapshotPosition) -> bool:
        """The state is at ``position``. H8: a log with that entry stays; else it starts again behind it:
        True."""
        index = position.index
        keep = index <= self.last_index and self.term(index) == position.term
        if not keep:
            self.tail.clear()
            self.tail_bytes = 0
            self.tail_first = index + 1
            self.last_index = index
            self.last_term = position.term
            self._take_back(index)
            self.handed = self.persisted = index
            self.position = position
        self.commit = max(self.commit, index)
        self.applied = max(self.applied, index)
        return not keep

    def compact(self, position: SnapshotPosition) -> None:
        self.position = position
        # after an install the stored log may start again beyond entries that were never handed out
        self.handed = max(self.handed, position.index)
        self.persisted = max(self.persisted, position.index)
        drop = position.index - self.tail_first + 1
        if drop > 0:
            self._evict(drop)

    def hand_out(self, sequence: int) -> list[Entry]:
        """Entries not yet given out for storage, to be persisted with ``sequence``."""
        if self.handed == self.last_index:
            return []
        entries = self.tail[self.handed + 1 - self.tail_first :]
        self.handed = self.last_index
        self._flight.append([sequence, self.last_index])
        return entries

    def sync_done(self, sequence: int) -> bool:
        """Everything handed out up to ``sequence`` is synced; whether ``persisted`` moved."""
        before = self.persisted
        flight = self._flight
        while flight and flight[0][0] <= sequence:
            last = flight.popleft()[1]
            if last > self.persisted:
                self.persisted = last
        return self.persisted > before

    @property
    def syncs(self) -> bool:
        """Something was handed out that is not synced yet."""
        return bool(self._flight)

    def trim(self) -> None:
        if self.tail_bytes <= self._max_tail_bytes:
            return
        size, drop = self.tail_bytes, 0
        limit = min(self.persisted, self.applied) - self.tail_first + 1
        while drop < limit and size > self._max_tail_bytes // 2:
            size -= len(self.tail[drop].data) + _ENTRY_COST
            drop += 1
        if drop:
            self._evict(drop)

    def _evict(self, count: int) -> None:
        count = min(count, len(self.tail))
        for entry in self.tail[:count]:
            self.tail_bytes -= len(entry.data) + _ENTRY_COST
        del self.tail[:count]
        self.tail_first += count
