"""Physical removal of what a compaction made superfluous, in slices.

After ``compact(R)`` a key keeps its newest version at or below R, unless that is a tombstone older than R
(contract 1.7: a tombstone exactly at R stays, so that a watch from R sees it). Every superseded version has
a successor at or below R, and every change is in an ``r`` row. So it is enough to walk the changes in
[last done, R] and remove, for each, the version just before it; the work follows the changes, not the keys.

Progress is a row of its own, written in the batch of the removals. It needs no position: what is removed is
invisible at every revision that may be read since R was applied.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from rocksdict import RdictIter, WriteBatch

from node.storage import keys
from node.storage.errors import raise_read
from node.storage.keys import DELETE, LEASE_KEY, MAX32, MAX64, RUN, SUFFIX, escape, parse_current
from node.storage.options import ALL_KEYS, ALL_RUNS
from node.storage.reads import find

if TYPE_CHECKING:
    from node.storage.state import StateStore

_PROGRESS = struct.Struct(">QQQI")  # done, target, next run's revision and sub
_TIME_CHECK = 16  # changes between two looks at the clock: about 100 us


class Compaction:
    """The one compaction of a store that may be under way."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        row = store.meta(keys.COMPACTION_ROW[1:].decode())
        # done: everything up to it is removed. target > done: a walk is under way and goes on at `next_run`.
        self._done: int
        self._target: int
        self._done, self._target, revision, sub = _PROGRESS.unpack(row) if row else (0, 0, 0, 0)
        self._next_run = (revision, sub)
        self._changes: list[tuple[int, int, int, bytes]] = []  # what is left of that run, last first

    @property
    def done(self) -> bool:
        """Is nothing left to remove?"""
        return self._done >= self._store.position.compact_revision

    def step(self, budget_us: int) -> bool:
        """One slice. True: nothing is left to do."""
        store = self._store
        if self._target <= self._done:
            if self.done:
                return True
            # A tombstone exactly at the last target was kept: that revision is walked once more.
            self._target = store.position.compact_revision
            self._next_run = (self._done, 0)
        deadline = time.perf_counter_ns() + budget_us * 1000
        batch = WriteBatch(raw_mode=True)
        try:
            finished = self._walk(batch, deadline)
            if finished:
                # The run that holds the target's first change stays whole.
                kept = self._runs_from(self._target)
                if kept.valid():
                    batch.delete_range(b"r", kept.key())
        except Exception as e:
            raise_read(e, store.path, f"compacting at revision {self._target}")
        if finished:
            self._done = self._target
            self._next_run = (self._done, 0)
            self._changes.clear()
        batch.put(keys.COMPACTION_ROW, _PROGRESS.pack(self._done, self._target, *self._next_run))
        store.write(batch)
        return finished and self.done

    def _runs_from(self, revision: int, sub: int = 0) -> RdictIter:
        """An iterator at the run that holds a change, or at the first run there is."""
        runs = self._store.database.iter(ALL_RUNS)
        runs.seek_for_prev(RUN.pack(b"r", revision, sub))
        if not runs.valid() or runs.key()[:1] != b"r":
            runs.status()
            runs = self._store.database.iter(ALL_RUNS)
            runs.seek(b"r")
        if not runs.valid():
            runs.status()
        return runs

    def _walk(self, batch: WriteBatch, deadline: int) -> bool:
        target, done = self._target, self._done
        versions = self._store.database.iter(ALL_KEYS)
        runs = self._runs_from(*self._next_run)
        if self._changes:
            runs.next()  # that one was read by the slice before
        handled = 0
        while True:
            while self._changes:
                revision, sub, kind, key = self._changes.pop()
                if revision > target:
                    return True
                if revision >= done:
                    self._remove_before(batch, versions, key, revision, sub, kind)
                    handled += 1
                    if handled % _TIME_CHECK == 0 and self._changes and time.perf_counter_ns() >= deadline:
                        return False
            if not runs.valid():
                runs.status()
                return True
            row = runs.key()
            self._next_run = (int.from_bytes(row[1:9], "big"), int.from_bytes(row[9:13], "big"))
            if self._next_run[0] > target:
                return True
            self._changes = keys.run_entries(row, runs.value())
            self._changes.reverse()
            runs.next()
            if time.perf_counter_ns() >= deadline:
                return False

    def _remove_before(self, batch: WriteBatch, versions: RdictIter, key: bytes, revision: int, sub: int, kind: int) -> None:
        """Remove the version that this change superseded, and the change itself if it is an old tombstone."""
        prefix = b"k" + escape(key)
        own = prefix + SUFFIX.pack(0, MAX64 - revision, MAX32 - sub, kind)
        versions.seek(own + b"\0")
        if versions.valid():
            row = versions.key()
            if row[:-13] == prefix + b"\0\0":
                batch.delete(row)
                if row[-1] != DELETE:
                    self._drop_attachment(batch, key, versions.value())
        else:
            versions.status()
        if kind == DELETE and revision < self._target:
            batch.delete(own)

    def _drop_attachment(self, batch: WriteBatch, key: bytes, kv: bytes) -> None:
        """Remove the row that says that a key hung on a lease, if it does no longer: else a long-lived lease
        would collect a row for every key that ever hung on it."""
        lease = parse_current(kv, len(key)).lease
        if lease:
            found = find(self._store.database, self._store.path, key, self._store.position.revision)
            if found is None or found[0][-1] or parse_current(found[1], len(key)).lease != lease:
                batch.delete(LEASE_KEY.pack(b"l", lease) + key)
