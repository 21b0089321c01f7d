"""The keys of a replica's state at the applied revision and before, and the writes that change them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from rocksdict import Rdict, RdictIter, WriteBatch

from cluster.effects.newer import NewerRecord
from cluster.evaluate.spans import Span
from cluster.evaluate.view import Current
from cluster.features.auth.permissions import Ranges
from cluster.histogram import DISK_S, Histogram
from cluster.placement import Owned, Table
from node.storage import keys
from node.storage.errors import raise_read, raise_write
from node.storage.keys import MAX64, escape, parse_current, range_rows
from node.storage.options import BRIEF, UNLOGGED, brief
from node.storage.state.decoded import Decoded
from node.storage.state.lease_lists import LeaseLists
from node.storage.state.moving.staged import Left, Staged, Switched
from node.storage.state.reads import (
    Cursor,
    Measured,
    all_changes,
    check_revision,
    count_rows,
    find,
    measure_rows,
    scan_rows,
)
from node.storage.state.rows import StateRows
from node.storage.state.version_cache import VersionCache

if TYPE_CHECKING:
    from node.storage.state.counts import KeyCounts

_MISS: Any = object()
_FEW_ROWS = 1024  # to walk so many takes 0.4 ms, of 8 KB each 3 ms
_FEW_RANGES = 128  # 15 us each, to see whether they have few keys


class Versions(StateRows):
    """What the parts of a :class:`~node.storage.StateStore` read and write."""

    counts: KeyCounts
    lease_lists: LeaseLists
    above: int  # rows up to this revision may lie above the position; 0: none

    def __init__(self, database: Rdict, path: str, clock_ns: Callable[[], int], shard: int = 0) -> None:
        self.shard = shard
        self.cache = VersionCache()
        self.commits = Histogram(DISK_S)  # seconds that batches took
        self.compacted_versions = 0  # that compactions have removed
        self.clock_ns = clock_ns
        super().__init__(database, path)

    def show(self, database: Rdict, path: str) -> None:
        super().show(database, path)
        self._cursor: RdictIter | None = None  # see _live
        self.decoded = Decoded()
        self.cache.clear()
        # the copy of a move that has not switched; it is no part of the state yet
        self.staged: Staged | None = Staged.of(self.row(keys.STAGING_ROW))
        # moves away from here, by number
        self.left: dict[int, Left] = {}
        with contextlib.suppress(NewerRecord):  # said where the table is asked for
            self.left = {number: Left.decode(number, row) for name, row in self.under(keys.LEFT_PREFIX)
                         for number in [int.from_bytes(name, "big")]}
        #: G6: what is shown of the rows; None: all.
        self.owned: Owned | None = None
        self.show_owned()
        above = self.row(keys.ABOVE_ROW)
        self.above = int.from_bytes(above, "big") if above is not None else 0

    def show_owned(self) -> None:
        """The table that was read from the disk, or the copy, is another one."""
        try:
            table = self.placement()
        except NewerRecord:  # said where the table is asked for
            return
        self._show(table)

    def _show(self, table: Table | None) -> None:
        """Masked is the copy that is here by now: in a long run's pauses another one may have gone."""
        self.owned = Owned.of(table, self.shard, None if self.staged is None else self.staged.span)

    def place(self, table: Table, switched: bool, counted: Switched | None) -> None:
        """A table was applied. ``switched``: keys have come or gone with it; None ``counted``: of several
        spans, or an unknown number."""
        self._show(table)
        if not switched:
            return
        self.cache.forget_all()
        self.lease_lists.other_keys()
        if counted is None:
            self.counts.restart()
        else:
            self.counts.switched(*counted)

    @property
    def applying(self) -> bool:
        """Whether rows above the position may be there: an apply in slices is under way, or was when the
        process died."""
        return self.cache.suspended or self.above > self.position.revision

    def write(self, batch: WriteBatch) -> None:
        """Write a batch, unlogged. Raises SyncFailed, StorageCorruption."""
        self._cursor = None
        began = time.perf_counter()
        try:
            self.database.write(batch, UNLOGGED)
        except Exception as e:
            raise_write(e, self.path, "write")
        self.commits.observe(time.perf_counter() - began)

    # Single keys

    def current(self, key: bytes) -> Current | None:
        """The newest version of a key without its value; None if it is not there."""
        found = self.cache.hot.get(key, _MISS)
        if found is not _MISS:
            return found  # type: ignore[no-any-return]
        found = self.cache.cold.pop(key, _MISS)
        if found is _MISS:
            kv = self._live(key, self.position.revision) if self.shows(key) else None
            found = None if kv is None else parse_current(kv, len(key))
        self.cache.add(key, found)
        return found  # type: ignore[no-any-return]

    def forget_versions(self) -> None:
        """This replica leads no longer, so applies need not keep the answers of :meth:`current`."""
        self.cache.forget_versions()
        self.lease_lists.forget()

    def peek(self, key: bytes) -> Current | None:
        """As :meth:`current`, past the cache."""
        row = find(self.database, self.path, key, self.position.revision)
        return None if row is None or row[0][-1] else parse_current(row[1], len(key))

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        """The KeyValue of a key at a revision (0: latest). Raises Compacted, FutureRevision."""
        if revision <= 0:
            kv = self.cache.values.get(key)
            if kv is None:
                kv = self._live(key, self.position.revision) if self.shows(key) else None
                if kv is not None:
                    self.cache.keep(key, kv)
            return kv
        check_revision(revision, self.position)
        return self._live(key, revision) if self.shows(key, revision) else None

    def shows(self, key: bytes, revision: int = 0) -> bool:
        """G6: whether versions of a key count at a revision (0: the latest)."""
        return self.owned is None or self.owned.shows(key, revision)

    def shown(self, start: bytes, end: bytes, revision: int = 0) -> list[tuple[bytes, bytes]]:
        """G6: the parts of a range that count at a revision (0: the latest)."""
        return [(start, end)] if self.owned is None else self.owned.shown(start, end, max(revision, 0))

    def previous(self, key: bytes, revision: int, kept: bool = False) -> bytes | None:
        """The KeyValue that a key had just before ``revision``; None: it had none, or it is compacted.
        ``kept``: a change of this turn. A compaction that was applied with it has removed nothing yet."""
        if not kept and revision - 1 < self.position.compact_revision:
            return None
        return self._live(key, revision - 1)

    def _live(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue of a key at a revision.

        One iterator serves all such reads between two writes: making one costs as much as the seek. Without a
        bound it may skip only a few deleted rows; then a bounded one looks again.
        """
        prefix = b"k" + escape(key) + b"\0\0"
        try:
            it = self._cursor
            if it is None:
                it = self._cursor = self.database.iter(BRIEF)
            it.seek(prefix + (MAX64 - revision).to_bytes(8, "big"))
            if it.valid():
                row = it.key()
                if not row.startswith(prefix) or row[-1]:
                    return None
                value: bytes = it.value()
                return value
            it.status()
        except Exception:
            # too many deleted rows, or damage: the bounded search tells which
            found = find(self.database, self.path, key, revision)
            return None if found is None or found[0][-1] else found[1]
        return None

    def may_have_rows(self, start: bytes, end: bytes) -> bool:
        """Whether a range has rows, be they deleted or not shown, or many removed ones that RocksDB has not
        dropped yet."""
        lower, upper = range_rows(start, end)
        try:
            options = brief(upper)  # held: see there
            it = self.database.iter(options)
            it.seek(lower)
            if not it.valid():
                it.status()
                return False
        except Exception:  # too many, or damage: a read of it tells
            return True
        return True

    # Ranges; ``end`` as in etcd's API: empty = one key, a zero byte = to the end

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """``(key, KeyValue)`` of the live keys of a range, in key order, as of this call. ``look``: see
        ``reads.scan_rows``."""
        at = check_revision(revision, self.position)
        if self.owned is None:
            cursor = Cursor(self.database, self.path, range_rows(start, end)[1])
            return scan_rows(cursor, start, end, at, look)
        # made now: they show this moment
        parts = [(Cursor(self.database, self.path, range_rows(*part)[1]), part)
                 for part in self.shown(start, end, revision)]
        return chain.from_iterable(scan_rows(cursor, *part, at, look) for cursor, part in parts)

    def count(self, start: bytes, end: bytes, revision: int = 0) -> int:
        """How many live keys a range has; walks it."""
        at = check_revision(revision, self.position)
        return sum(
            count_rows(Cursor(self.database, self.path, range_rows(*part)[1]), *part, at)[0]
            for part in self.shown(start, end, revision))

    def measure(self, start: bytes, end: bytes, most_keys: int, most_weight: int) -> Measured:
        """See ``reads.measure_rows``."""
        keys = weight = 0
        for part in self.shown(start, end):
            cursor = Cursor(self.database, self.path, range_rows(*part)[1])
            measured = measure_rows(
                cursor, *part, self.position.revision, most_keys - keys, most_weight - weight)
            keys, weight = keys + measured.keys, weight + measured.weight
            if measured.rest is not None:
                return Measured(keys, weight, measured.rest)
        return Measured(keys, weight, None)

    def quick_count(self, start: bytes, end: bytes) -> int | None:
        """As :meth:`count`, now, without walking the range; None while not all keys are counted
        (``counts``)."""
        return self.counts.count(start, end) if end else None

    def count_at_most(self, start: bytes, end: bytes) -> int | None:
        """Not less than :meth:`quick_count`, for a hundredth of its cost."""
        return self.counts.at_most(start, end) if end else None

    def uncounted(self, spans: Iterable[Span]) -> bool:
        """Whether :meth:`live_count` of these walks over very much: keys are still being counted."""
        unknown = [span for span in spans if not self.counts.knows(*span)]
        left = _FEW_ROWS
        for span in unknown[:_FEW_RANGES]:
            measured = self.measure(*span, left, left)
            left -= measured.weight
            if left <= 0 or measured.rest is not None:
                return True
        return len(unknown) > _FEW_RANGES

    def live_count(self, start: bytes, end: bytes) -> int:
        """As :meth:`quick_count`, or :meth:`count` where that is None."""
        found = self.quick_count(start, end)
        return self.count(start, end) if found is None else found

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Every change ``(revision, sub, type, key)`` from a revision on that is not compacted, in order."""
        path = self.path  # of the database that is read, also behind an install
        try:
            yield from all_changes(self.database, from_revision, self.position.revision)
        except Exception as e:
            raise_read(e, path, f"reading changes from revision {from_revision}")

    # Keys of leases

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        """The keys attached to a lease, sorted; at most ``limit`` if it is not 0, and none within ``but``.
        All of very many are to be in ``lease_lists``."""
        if not limit and but is None and (listed := self.lease_lists.keys(lease)) is not None:
            return listed
        if not self.lease_exists(lease):  # rows of an ended one may be left, very many
            return []
        attached = []
        for row in self.attachment_rows(lease, but):
            key = row[9:]
            current = self.current(key)
            if current is not None and current.lease == lease:
                attached.append(key)
                if len(attached) == limit:
                    break
        return attached

    def leased_keys(self, but: Ranges, step: int = 16) -> Iterator[bytes]:
        """The keys on any lease that are not within ``but``; b"" now and then, after ``step`` looks at most:
        there may be very many, or very many leases."""
        for lease, key in self.all_attachments(but, step):
            current = self.current(key) if but.behind(key) == key else None
            yield key if current is not None and current.lease == lease else b""

    def hangs(self, key: bytes, lease: int) -> bool:
        """Whether a key is attached to a lease. The cache gets no more keys by it."""
        cache = self.cache
        found = cache.hot.get(key, _MISS)
        if found is _MISS:
            found = cache.cold.get(key, _MISS)
        if found is _MISS:
            kv = self._live(key, self.position.revision) if self.shows(key) else None
            found = None if kv is None else parse_current(kv, len(key))
        return found is not None and found.lease == lease
