"""The applied state of one replica: a multi-version key-value store, leases and what else was agreed on.

Written without a write-ahead log: it is rebuilt from the Raft log, so each byte is logged once. What a crash
loses is what no finished flush covers (:attr:`StateStore.durable_position`, H9); the log keeps that much.

Call everything from one thread, but :meth:`StateStore.flush`, :meth:`StateStore.defragment` and
``SnapshotSource.create``, which may run in a helper thread beside it. Reads see whole applied runs, never
half of one.

Cost (us of CPU, 2-core reference machine, values of 256 B, 100,000 keys): apply 1.7 a put at 100 puts a
record, 7 for a record of one; ``current`` 0.06 for a hot key, 3.4 else; ``get`` and ``previous`` 2.2; a range
6 and 0.75 a key; a count 0.44 a key; history 2.4 an event and 0.25 a change passed over; compaction 3 a
change; a hash 0.8 a version. A million keys of 256 B leave the process at about 100 MB.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rocksdict import DbClosedError, Rdict, RdictIter, WriteBatch

from cluster.evaluate.view import Current
from cluster.histogram import DISK_S, Histogram
from node.storage import directory, keys
from node.storage.defragment import Defragmenting
from node.storage.errors import (
    SnapshotRefused,
    StorageError,
    SyncFailed,
    raise_open,
    raise_read,
)
from node.storage.keys import LEASE_KEY, LEASE_VALUE, MAX64, Position, escape, parse_current, range_rows
from node.storage.options import BRIEF, UNLOGGED, bounded, state_options
from node.storage.state.blocks import RowBlocks
from node.storage.state.changes.apply import (
    Applied,
    Applying,
    Evaluated,
    apply_alone,
    apply_changes,
    apply_records,
    drained,
    nothing_evaluated,
)
from node.storage.state.counts import KeyCounts
from node.storage.state.history import HistorySlice, all_changes, history_slices
from node.storage.state.made import made
from node.storage.state.reads import Cursor, Reader, check_revision, count_rows, find, position_of, scan_rows
from node.storage.state.slices.compaction import Compaction
from node.storage.state.slices.hashing import Covers, StateHash
from node.storage.state.version_cache import VersionCache

if TYPE_CHECKING:
    from cluster.effects.later_puts import LaterPuts
    from node.storage.snapshot import SnapshotSink
    from node.storage.state.changes.apply import Prepared

_MISS: Any = object()
_ALARM_TYPES = (1, 2)  # etcd's NOSPACE and CORRUPT
_RETIRE_S = 60.0  # so long a replaced database stays for those who still read it


def _after(prefix: bytes) -> bytes:
    """The first row key behind all that begin with ``prefix``."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def _nothing() -> None:
    """Nobody wants to know."""


class StateStore:
    """See the module. Open one with :meth:`open`."""

    def __init__(
        self, root: Path, name: str, block_cache_bytes: int, write_buffer_bytes: int, range_cache_bytes: int,
        clock_ns: Callable[[], int], opened: Callable[[], object],
    ) -> None:
        self.root = root
        self._name = name
        self._sizes = (block_cache_bytes, write_buffer_bytes)
        self._range_cache_bytes = range_cache_bytes
        self.clock_ns = clock_ns
        self._opened = opened
        self._flushing = threading.Lock()
        self._defragmenting = Defragmenting()
        self.cache = VersionCache()
        self.commits = Histogram(DISK_S)  # how long batches took to be written, in seconds
        self._cursor: RdictIter | None = None  # see _live
        self._retired: list[tuple[float, Path]] = []  # replaced databases and when to remove them
        self.database: Rdict = None  # type: ignore[assignment]
        self._attach(name, create=False)

    @classmethod
    def open(
        cls, path: str | Path, *, block_cache_bytes: int = 64 << 20, write_buffer_bytes: int = 32 << 20,
        range_cache_bytes: int = 32 << 20, clock_ns: Callable[[], int] = time.perf_counter_ns,
        opened: Callable[[], object] = _nothing,
    ) -> StateStore:
        """Open or create the store in directory ``path``. Raises StorageCorruption, DirectoryLocked.

        ``clock_ns``: tells how long a slice of work took. ``opened``: called whenever a database has been
        opened.
        """
        root = Path(path)
        root.mkdir(parents=True, exist_ok=True)
        name = directory.read_current(root)
        if name is None:
            name = made(root, state_options(block_cache_bytes, write_buffer_bytes, create=True))
        store = cls(root, name, block_cache_bytes, write_buffer_bytes, range_cache_bytes, clock_ns, opened)
        directory.remove_others(root, name)  # behind RocksDB's lock: nobody else is at work here
        return store

    def _attach(self, name: str, *, create: bool) -> None:
        path = str(self.root / name)
        try:
            self.database = Rdict(path, state_options(*self._sizes, create=create))
        except Exception as e:
            raise_open(e, path)
        self._opened()
        self.path = path
        self._name = name
        self.cache.clear()
        self._bootstrap: tuple[int, int, int] | None = None
        self.position = position_of(self.database, path)
        # There is no write-ahead log, so all that is there at open was flushed.
        self.durable_position = self.position
        above = self.meta(keys.ABOVE_ROW[1:].decode())
        self.above = int.from_bytes(above, "big") if above is not None else 0
        self._compaction = Compaction(self)
        self.counts = KeyCounts(self)
        self.blocks = RowBlocks(self, self._range_cache_bytes)

    def close(self) -> None:
        """Flush and close; closing twice is harmless."""
        with self._flushing:
            self._cursor = None
            with contextlib.suppress(DbClosedError):
                self.database.close()

    @property
    def revision(self) -> int:
        """The applied revision."""
        return self.position.revision

    @property
    def applying(self) -> bool:
        """Whether rows above the position may be there: an apply in slices is under way, or was when the
        process died."""
        return self.cache.suspended or self.above > self.position.revision

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; 0: never compacted."""
        return self.position.compact_revision

    # Changes

    def apply(
        self, records: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
        meta: Mapping[str, bytes] | None = None,
    ) -> Applied:
        """Apply a run of committed order records ``(index, term, data)``, the next ones in order.

        Empty data (an entry of another kind) only moves the position. ``meta`` rows are written in the same
        batch: say, the group's configuration when an entry changed it. Must be the same on every replica.
        """
        return drained(self.apply_slices(records, want_events=want_events, meta=meta))

    def apply_slices(
        self, records: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
        meta: Mapping[str, bytes] | None = None, evaluated: Evaluated = nothing_evaluated,
    ) -> Applying:
        """As :meth:`apply`, pausing where many keys are deleted: yields the events since the last pause.
        Nothing else may be applied before it is through; reads show the position before it until then.
        ``evaluated``: what the leader that made a record, at an index and term, knows of it without reading
        it (``puts``)."""
        return apply_records(self, records, want_events, meta, evaluated)

    def apply_own(self, prepared: Prepared, index: int, term: int, *, want_events: bool) -> Applied:
        """As :meth:`apply_slices` for the one record at ``index`` that ``prepared`` was made of, at its
        leader."""
        return apply_alone(self, prepared, index, term, want_events)

    def apply_changes(
        self, changes: Sequence[tuple[int, bytes, int, int]], position: tuple[int, int, int, int], *,
        want_events: bool = False, meta: Mapping[str, bytes] | None = None,
    ) -> Applied:
        """Apply what the order log gave a place: ``(revision before, items, start in items, sub)`` each.

        ``sub`` -1: a record of effects, each at its own revision; else changes at one revision, the first
        of which stands at that place in it. ``position``: order index, index in this shard's own log, term
        of the entry there, revision after it all.
        """
        return drained(self.apply_changes_slices(changes, position, want_events=want_events, meta=meta))

    def apply_changes_slices(
        self, changes: Sequence[tuple[int, bytes, int, int]], position: tuple[int, int, int, int], *,
        want_events: bool = False, meta: Mapping[str, bytes] | None = None,
        evaluated: Mapping[int, LaterPuts] | None = None,
    ) -> Applying:
        """As :meth:`apply_changes`, with pauses: see :meth:`apply_slices`. ``evaluated``: what the leader
        that made some of the changes knows of them without reading them, by their place
        (``cluster.effects.later_puts``)."""
        return apply_changes(self, changes, position, want_events, meta, evaluated or {})

    def write(self, batch: WriteBatch) -> None:
        """Write a batch. For this package."""
        self._cursor = None
        began = time.perf_counter()
        try:
            self.database.write(batch, UNLOGGED)
        except Exception as e:
            raise SyncFailed(f"{self.path}: write failed: {e}") from e
        self.commits.observe(time.perf_counter() - began)

    def flush(self) -> Position:
        """Make all that is applied durable; returns the position covered (H9). May run in a helper thread."""
        with self._flushing:
            position, database = self.position, self.database  # read before the flush begins
            try:
                database.flush(True)
            except Exception as e:
                raise SyncFailed(f"{self.path}: flush failed: {e}") from e
            if position.order_index > self.durable_position.order_index:
                self.durable_position = position
            while self._retired and self._retired[0][0] <= time.monotonic():
                shutil.rmtree(self._retired.pop(0)[1], ignore_errors=True)
            return position

    def exclusive(self) -> threading.Lock:
        """Held while the database must stay open: a helper thread's checkpoint against an install. For this
        package."""
        return self._flushing

    def compaction_step(self, budget_us: int) -> bool:
        """Remove what the compaction revision made superfluous, for about ``budget_us``. True: all done."""
        return self._compaction.step(budget_us)

    @property
    def compacting(self) -> bool:
        """Whether :meth:`compaction_step` has anything left to do: a compaction goes on where it stood after
        a restart."""
        return not self._compaction.done

    # Reads of single keys

    def current(self, key: bytes) -> Current | None:
        """The newest version of a key without its value; None if it is not there."""
        found = self.cache.hot.get(key, _MISS)
        if found is not _MISS:
            return found  # type: ignore[no-any-return]
        found = self.cache.cold.pop(key, _MISS)
        if found is _MISS:
            kv = self._live(key, self.position.revision)
            found = None if kv is None else parse_current(kv, len(key))
        self.cache.add(key, found)
        return found  # type: ignore[no-any-return]

    def forget_versions(self) -> None:
        """Nobody asks :meth:`current` from now on (this replica leads no longer): applies need not keep what
        it knew up to date."""
        self.cache.forget_versions()

    def peek(self, key: bytes) -> Current | None:
        """As :meth:`current`, past the cache. For this package."""
        row = find(self.database, self.path, key, self.position.revision)
        return None if row is None or row[0][-1] else parse_current(row[1], len(key))

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        """The KeyValue of a key at a revision (0: latest). Raises Compacted, FutureRevision."""
        if revision <= 0:
            kv = self.cache.values.get(key)
            if kv is None:
                kv = self._live(key, self.position.revision)
                if kv is not None:
                    self.cache.keep(key, kv)
            return kv
        return self._live(key, check_revision(revision, self.position))

    def previous(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue that a key had just before ``revision``; None: it had none, or it is compacted."""
        if revision - 1 < self.position.compact_revision:
            return None
        return self._live(key, revision - 1)

    def _live(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue of a key at a revision.

        One iterator serves all such reads between two writes: making one costs as much as the seek. It has
        no bound, so it may not skip more than a few deleted rows; then a bounded one looks again.
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

    # Reads of ranges; ``end`` as in etcd's API: empty = one key, a zero byte = to the end

    def reader(self, revision: int = 0) -> Reader:
        """Pin a revision for reading in slices. Raises Compacted, FutureRevision."""
        return Reader(self, revision)

    def reader_before(self, revision: int) -> Reader:
        """Pin an applied revision whose successor was applied in this turn of the loop: a compaction that was
        applied with it may have made it unreadable for others, and has removed nothing yet."""
        assert revision <= self.revision, "applied"
        return Reader(self, revision, kept=True)

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """``(key, KeyValue)`` of the live keys of a range, in key order. ``look``: with pauses
        (``reads.scan_rows``)."""
        revision = check_revision(revision, self.position)
        # made now, so that what is yielded is of this moment however late it is consumed
        cursor = Cursor(self.database, self.path, range_rows(start, end)[1])
        return scan_rows(cursor, start, end, revision, look)

    def count(self, start: bytes, end: bytes, revision: int = 0) -> int:
        """How many live keys a range has."""
        revision = check_revision(revision, self.position)
        return count_rows(
            Cursor(self.database, self.path, range_rows(start, end)[1]), start, end, revision)[0]

    def quick_count(self, start: bytes, end: bytes) -> int | None:
        """As :meth:`count`, now, without walking the range; None while not all keys are counted
        (``counts``)."""
        return self.counts.count(start, end) if end else None

    def count_at_most(self, start: bytes, end: bytes) -> int | None:
        """Not less than :meth:`quick_count`, for a hundredth of its cost."""
        return self.counts.at_most(start, end) if end else None

    def live_count(self, start: bytes, end: bytes) -> int:
        """How many live keys a range has now, as quickly as can be told."""
        found = self.quick_count(start, end)
        return self.count(start, end) if found is None else found

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Every change ``(revision, sub, type, key)`` from a revision on, in order; that is not below the
        compacted one."""
        try:
            yield from all_changes(self.database, self.path, from_revision, self.position)
        except Exception as e:
            raise_read(e, self.path, f"reading changes from revision {from_revision}")

    def history(
        self, start: bytes, end: bytes, from_revision: int, *, max_events: int = 1_000,
        max_bytes: int = 1 << 20, want_prev: bool = False, max_scan: int = 10_000,
    ) -> HistorySlice:
        """The events of a range from a revision on, as many as fit; whole revisions only, so one large
        revision may pass the limits. ``max_scan`` bounds the changes looked at. Raises Compacted."""
        slices = self.history_slices(start, end, from_revision, max_events=max_events, max_bytes=max_bytes,
                                     want_prev=want_prev, max_scan=max_scan)
        while True:
            try:
                next(slices)
            except StopIteration as done:
                found: HistorySlice = done.value
                return found

    def history_slices(
        self, start: bytes, end: bytes, from_revision: int, *, max_events: int, max_bytes: int,
        want_prev: bool, max_scan: int,
    ) -> Generator[None, None, HistorySlice]:
        """As :meth:`history`, with a pause after every ``max_scan`` changes of one and the same revision."""
        return history_slices(
            self, start, end, from_revision,
            max_events=max_events, max_bytes=max_bytes, want_prev=want_prev, max_scan=max_scan,
        )  # fmt: skip

    # Leases

    def lease(self, lease: int) -> tuple[int, int] | None:
        """``(ttl_s, remaining_ttl_s)``; remaining 0: no checkpoint. None: no such lease."""
        try:
            row = self.database.get(LEASE_KEY.pack(b"L", lease))
        except Exception as e:
            raise_read(e, self.path, f"reading lease {lease}")
        return None if row is None else LEASE_VALUE.unpack(row)

    def lease_exists(self, lease: int) -> bool:
        """Is the lease granted and not revoked?"""
        return self.lease(lease) is not None

    def leases(self) -> Iterator[tuple[int, int, int]]:
        """``(lease, ttl_s, remaining_ttl_s)`` of every lease."""
        for row, value in self.rows(b"L", b"M"):
            ttl, remaining = LEASE_VALUE.unpack(value)
            yield LEASE_KEY.unpack(row)[1], ttl, remaining

    def lease_keys(self, lease: int, limit: int = 0) -> list[bytes]:
        """The keys that hang on a lease, sorted; at most ``limit`` if it is not 0."""
        attached = []
        for row in self.attachment_rows(lease):
            key = row[9:]
            current = self.current(key)
            if current is not None and current.lease == lease:
                attached.append(key)
                if len(attached) == limit:
                    break
        return attached

    def hangs_many(self, lease: int, many: int) -> bool:
        """Whether more keys than that hang on a lease, or did once."""
        prefix = LEASE_KEY.pack(b"l", lease)
        return sum(1 for _ in islice(self.rows(prefix, _after(prefix)), many + 1)) > many

    def remember_lease_keys(self, lease: int, step: int) -> Iterator[None]:
        """Read the keys of a lease so many at a time, so that :meth:`lease_keys` finds them in memory: 0.5 us
        a key, not 15."""
        prefix = LEASE_KEY.pack(b"l", lease)
        for at, (row, _) in enumerate(self.rows(prefix, _after(prefix)), 1):
            self.current(row[9:])
            if at % step == 0:
                yield

    def attached(self, lease: int) -> Iterator[bytes]:
        """As :meth:`lease_keys`, of this moment, however late they are taken; b"" for a row that is true no
        longer."""
        prefix = LEASE_KEY.pack(b"l", lease)
        rows, reader = self.rows(prefix, _after(prefix)), self.reader()
        first = list(islice(rows, 1))  # that pins them
        return (row[9:] if (kv := reader.get(row[9:])) is not None
                and parse_current(kv, len(row) - 9).lease == lease else b"" for row, _ in chain(first, rows))

    def attachment_rows(self, lease: int) -> list[bytes]:
        """Row keys of all keys that ever hung on a lease, stale ones too. For this package."""
        prefix = LEASE_KEY.pack(b"l", lease)
        return [row for row, _ in self.rows(prefix, _after(prefix))]

    # The rest

    def meta(self, name: str) -> bytes | None:
        """What :meth:`apply` was given as ``meta`` under this name."""
        try:
            return self.database.get(b"m" + name.encode())
        except Exception as e:
            raise_read(e, self.path, f"reading {name}")

    def members(self) -> dict[int, bytes]:
        """Member ID to ``etcdserverpb.Member`` in wire form, as last published."""
        prefix = keys.MEMBER_PREFIX
        return {int.from_bytes(row[len(prefix) :], "big"): value
                for row, value in self.rows(prefix, _after(prefix))}

    def hosts(self) -> list[bytes]:
        """Rows of the table of members, by ID."""
        return [value for _, value in self.rows(keys.HOST_PREFIX, _after(keys.HOST_PREFIX))]

    def alarms(self) -> list[tuple[int, int]]:
        """``(member ID, etcd's type of alarm)`` of every alarm that is raised. A log may hold one of a type
        without a name, which muster once took from clients: its row is kept, alike on all replicas, and means
        nothing."""
        prefix = keys.ALARM_PREFIX
        return [(int.from_bytes(row[len(prefix) + 1 :], "big"), row[len(prefix)])
                for row, _ in self.rows(prefix, _after(prefix)) if row[len(prefix)] in _ALARM_TYPES]

    def feature_rows(self, feature: int) -> list[tuple[bytes, bytes]]:
        """Name and value of every row of a feature (``cluster.features.rows``)."""
        prefix = keys.feature_row(feature, b"")
        return [(row[len(prefix) :], value) for row, value in self.rows(prefix, _after(prefix))]

    def incarnations(self) -> dict[int, int]:
        """Member ID to the incarnation that it is for ever (H10)."""
        prefix = keys.INCARNATION_PREFIX
        return {int(row[len(prefix) :], 16): int.from_bytes(value, "big")
                for row, value in self.rows(prefix, _after(prefix))}

    def bootstrap(self) -> tuple[int, int, int] | None:
        """Layout version, shard count and placement depth; None before the first record. Kept: it is asked at
        every apply, and once agreed it never changes."""
        if self._bootstrap is None and (row := self.meta("bootstrap")) is not None:
            self._bootstrap = struct.unpack("<III", row)
        return self._bootstrap

    def rows(self, lower: bytes, upper: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Raw rows in ``[lower, upper)``. For this package."""
        try:
            options = bounded(upper)  # held: see there
            it = self.database.iter(options)
            it.seek(lower)
            while it.valid():
                yield it.key(), it.value()
                it.next()
            it.status()
        except Exception as e:
            raise_read(e, self.path, f"reading rows from {lower!r}")

    def hash_kv(self, revision: int = 0) -> StateHash:
        """A hash of all versions up to a revision, to be computed in slices: see ``hashing``."""
        return StateHash(self, check_revision(revision, self.position), Covers.KEYS)

    def hash_state(self) -> StateHash:
        """A hash of all that is applied; replicas at the same order index have the same (I19)."""
        return StateHash(self, self.position.revision, Covers.STATE)

    def hash_written(self) -> StateHash:
        """A hash of what requests have made of the store; the same after a restart."""
        return StateHash(self, self.position.revision, Covers.WRITTEN)

    def size_bytes(self) -> int:
        """Bytes taken on the disk and in write buffers."""
        return (self._property("rocksdb.total-sst-files-size")
                + self._property("rocksdb.cur-size-all-mem-tables"))

    def size_in_use_bytes(self) -> int:
        """An estimate of the bytes that are live."""
        live = self._property("rocksdb.estimate-live-data-size")
        return min(live + self._property("rocksdb.cur-size-all-mem-tables"), self.size_bytes())

    def _property(self, name: str) -> int:
        return self.database.property_int_value(name) or 0

    def statistics(self) -> dict[str, int]:
        """Figures for metrics."""
        return {
            "size_bytes": self.size_bytes(), "size_in_use_bytes": self.size_in_use_bytes(),
            "memtable_bytes": self._property("rocksdb.cur-size-all-mem-tables"),
            "block_cache_bytes": self._property("rocksdb.block-cache-usage"),
            "rows_estimate": self._property("rocksdb.estimate-num-keys"), "compacting": int(self.compacting),
            "cached_values": len(self.cache.values),
            "cached_versions": len(self.cache.hot) + len(self.cache.cold),
            "range_cache_bytes": self.blocks.statistics()["bytes"],
            "durable_index": self.durable_position.order_index, "applied_index": self.position.order_index,
        }

    def defragment(self) -> None:
        """Give space back to the file system. Long; may run in a helper thread. An install ends it."""
        self.flush()
        self._defragmenting.run(self.database, self.path)

    def install(self, sink: SnapshotSink) -> Position:
        """Replace the whole state by a finished snapshot, atomically; never backwards (I18).

        Readers of the old state go on at the old state for a minute; drop them.
        Raises SnapshotRefused, and the state is as it was.
        """
        if sink.position.order_index <= self.position.order_index:
            raise SnapshotRefused(
                f"snapshot at {sink.position.order_index} is not newer than {self.position.order_index}")
        with self._flushing:
            old, name = self._name, directory.next_name(self._name)
            target = self.root / name
            shutil.rmtree(target, ignore_errors=True)
            sink.directory.rename(target)
            directory.sync_directory(self.root)
            self.switch_to(name)  # the commit point
            self._cursor = None
            self._defragmenting.close(self.database)
            self._attach(name, create=False)
            if self.position != sink.position:
                raise StorageError(f"{self.path}: installed at {self.position}, announced {sink.position}")
            self._retired.append((time.monotonic() + _RETIRE_S, self.root / old))
            return self.position

    def switch_to(self, name: str) -> None:
        """From now on this database is the state, whatever becomes of the process."""
        directory.write_current(self.root, name)

    def wait_idle(self, limit_s: float = 30.0) -> None:
        """Wait until RocksDB has no background work; for tests and measurements."""
        deadline = time.monotonic() + limit_s
        while (self._property("rocksdb.num-running-compactions")
               or self._property("rocksdb.num-running-flushes")):
            if time.monotonic() > deadline:
                raise TimeoutError("background work does not end")
            time.sleep(0.01)
