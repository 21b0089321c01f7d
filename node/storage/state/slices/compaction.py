"""Physical removal of what a compaction made superfluous, in slices.

After ``compact(R)`` a key keeps its newest version at or below R, unless that is a tombstone older than R
(contract 1.7: a tombstone exactly at R stays, so that a watch from R sees it). The walk over the changes in
[last done, R] (``r`` rows) removes, for each, the version just before it. Progress is a row in the batch of
the removals. It needs no position: what is removed is invisible at every revision that may be read.

The changes are taken some thousand at a time and sorted by key: of a key with several changes only the first
costs a seek (11 us a change instead of 17). Within a key they stay in order: a tombstone goes only after
everything below it, else an old value would come to light for a moment.

The ``r`` rows that a copy of a move asks for next stay for the next compaction: it would begin from nothing.
"""

from __future__ import annotations

import struct

from rocksdict import RdictIter, WriteBatch

from cluster.grain import GRAIN
from node.storage import keys
from node.storage.errors import raise_read
from node.storage.keys import DELETE, LEASE_KEY, MAX32, MAX64, SUFFIX, escape, parse_current
from node.storage.options import ALL_KEYS
from node.storage.state.reads import find, runs_from
from node.storage.state.versions import Versions

PROGRESS = struct.Struct(">QQQI")  # done, target, next run's revision and sub
_WANTED_NS = 30_000_000_000  # a copy asks several times a second

_Change = tuple[bytes, int, int, int]  # key, revision, sub, type


class Compaction:
    """The compaction of a store that may be under way."""

    def __init__(self, store: Versions) -> None:
        self._store = store
        row = store.row(keys.COMPACTION_ROW)
        # done: everything up to it is removed. target > done: a walk is under way and goes on at `next_run`.
        self._done: int
        self._target: int
        self._done, self._target, revision, sub = PROGRESS.unpack(row) if row else (0, 0, 0, 0)
        self._next_run = (revision, sub)
        self._gone = self._done  # of changes below it r rows are gone
        self._wanted, self._wanted_until = 0, 0  # by a copy, from this revision on
        self._changes: list[_Change] = []  # what is left of a chunk, last first
        self._after = self._next_run  # where the chunk after it begins
        self._taking = False  # the chunk is not whole yet, nor sorted
        self._end = False  # there is none after it
        # rows that have gone since a rewrite was last due, and their bytes in files; less what is `merged`
        self.removed_rows = self.removed_bytes = 0

    @property
    def done(self) -> bool:
        return self._done >= self._store.position.compact_revision

    def has_changes(self, revision: int) -> bool:
        """Whether all changes from there on are there. A copy wants them, which asks again soon."""
        self._wanted, self._wanted_until = revision, self._store.clock_ns() + _WANTED_NS
        return revision >= self._gone

    def merged(self, deletions: int) -> None:
        """RocksDB has left so many deletions. Whose rows it dropped nobody knows: of each size as many."""
        if deletions < self.removed_rows:
            self.removed_bytes = self.removed_bytes * deletions // self.removed_rows
            self.removed_rows = deletions

    def step(self, budget_us: int, flushed: int) -> bool:
        """One slice. True: nothing is left to do. ``flushed``: up to this revision all is in files."""
        store = self._store
        if self._target <= self._done:
            if self.done:
                return True
            # A tombstone exactly at the last target was kept: that revision is walked once more.
            self._target = store.position.compact_revision
            self._next_run = (self._done, 0)
            self._changes.clear()
            self._taking = self._end = False
        deadline = store.clock_ns() + budget_us * 1000
        batch = WriteBatch(raw_mode=True)
        try:
            finished = self._walk(batch, deadline, flushed)
            if finished:
                # The run that holds the first change to be kept stays whole.
                first = self._target
                if store.clock_ns() < self._wanted_until:
                    first = min(first, self._wanted)
                kept = runs_from(store.database, first)
                if kept.valid():
                    store.lease_lists.changes_go(self._target)
                    batch.delete_range(b"r", kept.key())
                self._gone = max(self._gone, first)
        except Exception as e:
            raise_read(e, store.path, f"compacting at revision {self._target}")
        if finished:
            self._done = self._target
            self._next_run = (self._done, 0)
        batch.put(keys.COMPACTION_ROW, PROGRESS.pack(self._done, self._target, *self._next_run))
        store.write(batch)
        return finished and self.done

    def _walk(self, batch: WriteBatch, deadline: int, flushed: int) -> bool:
        changes = self._changes
        if self._taking or not changes:
            if self._end and not self._taking:
                return True
            self._take_chunk(deadline)
            if self._taking or self._store.clock_ns() >= deadline:
                return False
        versions = self._store.database.iter(ALL_KEYS)
        handled = removed = 0
        at_target = (MAX64 - self._target).to_bytes(8, "big")
        at_flush = (MAX64 - flushed).to_bytes(8, "big")
        # of the change before: its row supersedes nothing but what came before it
        last_key, last_own = b"", b""
        while changes:
            key, revision, sub, kind = changes.pop()
            prefix = b"k" + escape(key)
            own = prefix + SUFFIX.pack(0, MAX64 - revision, MAX32 - sub, kind)
            before = self._before(versions, prefix, own, last_own if key == last_key else b"")
            if before:
                batch.delete(before)
                self.removed_rows += 1
                # a tombstone below the target went with its own change
                if before[-1] != DELETE or before[-13:-5] == at_target:
                    removed += 1
                if before[-1] != DELETE:
                    kv = versions.value()
                    # one that came after the flush goes with the write buffers that it is in
                    self.removed_bytes += (before[-13:-5] >= at_flush) * (len(before) + len(kv))
                    self._drop_attachment(batch, key, kv)
            if kind == DELETE and revision < self._target:
                # It may have gone in a walk that a restart repeats. A row before it tells that it has not.
                # One that the last compaction kept has none before it.
                removed += bool(before) or self._was_kept(versions, own, revision)
                batch.delete(own)
                self.removed_rows += 1
            last_key, last_own = key, own
            handled += 1
            if handled % GRAIN.compaction_check == 0 and self._store.clock_ns() >= deadline:
                break
        self._store.compacted_versions += removed
        if not changes:
            self._next_run = self._after
        return not changes and self._end

    def _take_chunk(self, deadline: int) -> None:
        """The next changes, by key, those of one key in their order; another call goes on after the
        deadline."""
        target, done, changes = self._target, self._done, self._changes
        runs = runs_from(self._store.database, *(self._after if self._taking else self._next_run))
        self._taking = True
        taken = 0
        while runs.valid():
            row = runs.key()
            self._after = int.from_bytes(row[1:9], "big"), int.from_bytes(row[9:13], "big")
            if self._after[0] > target:
                self._end = True
                break
            if len(changes) >= GRAIN.compaction_chunk:
                break
            if taken >= GRAIN.compaction_take_check and self._store.clock_ns() >= deadline:
                return
            entries = keys.run_entries(row, runs.value())
            taken += len(entries)
            changes += [
                (key, revision, sub, kind)
                for revision, sub, kind, key in entries
                if done <= revision <= target
            ]
            runs.next()
        else:
            runs.status()
            self._end = True
        self._taking = False
        changes.sort(reverse=True)

    def _before(self, versions: RdictIter, prefix: bytes, own: bytes, last: bytes) -> bytes:
        """The row of the version that a change superseded, or b"". ``last``: the row of the key's change
        before it, behind which the iterator stands."""
        if last and versions.valid():
            versions.prev()
            if versions.valid() and versions.key() == last:
                return last
        versions.seek(own + b"\0")
        if versions.valid():
            row: bytes = versions.key()
            if row[:-13] == prefix + b"\0\0":
                return row
        else:
            versions.status()
        return b""

    def _was_kept(self, versions: RdictIter, row: bytes, revision: int) -> bool:
        """Whether a tombstone is there that the last compaction kept."""
        if revision != self._done:
            return False
        versions.seek(row)
        if versions.valid():
            return bool(versions.key() == row)
        versions.status()
        return False

    def _drop_attachment(self, batch: WriteBatch, key: bytes, kv: bytes) -> None:
        """Remove the row of a key that left its lease."""
        lease = parse_current(kv, len(key)).lease
        if lease:
            found = find(self._store.database, self._store.path, key, self._store.position.revision)
            if found is None or found[0][-1] or parse_current(found[1], len(key)).lease != lease:
                batch.delete(LEASE_KEY.pack(b"l", lease) + key)
