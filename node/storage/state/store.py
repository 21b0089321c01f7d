"""The applied state of one replica: a multi-version key-value store, leases and what else was agreed on.

Written without a write-ahead log: it is rebuilt from the Raft log. A crash loses what no finished flush
covers (``StateStore.durable_position``, H9); the log keeps that much.

Only :meth:`StateStore.flush`, :meth:`StateStore.defragment` and ``SnapshotSource.create`` may run in a helper
thread. Reads see whole applied runs, never half of one.

Cost (us of CPU, 2-core reference machine, values of 256 B, 100,000 keys): apply 1.7 a put at 100 puts a
record, 7 for a record of one; ``current`` 0.06 for a hot key, 3.4 else; ``get`` and ``previous`` 2.2; a range
6 and 0.75 a key; a count 0.44 a key; history 2.4 an event and 0.25 a change passed over; compaction 3 a
change; a hash 0.8 a version. A million keys of 256 B leave the process at about 100 MB.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from rocksdict import DbClosedError, Rdict

from cluster.placement import Table
from cluster.placement.owned import Shown
from node.durable import sync_directory
from node.storage import directory
from node.storage.defragment import Defragmenting, check_room, left_bytes, room
from node.storage.errors import SnapshotRefused, StorageError, raise_write
from node.storage.keys import Position, parse_current
from node.storage.opening import open_database
from node.storage.options import REMOVALS, state_options
from node.storage.state.blocks import RowBlocks
from node.storage.state.changes.apply import (
    Applying,
    Evaluated,
    apply_alone,
    apply_changes,
    apply_records,
    drained,
    nothing_evaluated,
)
from node.storage.state.changes.run import Applied
from node.storage.state.counts import KeyCounts
from node.storage.state.history import HistorySlice, history_slices
from node.storage.state.lease_lists import LeaseLists
from node.storage.state.made import made
from node.storage.state.moving.staged import Switched
from node.storage.state.reader import Reader
from node.storage.state.reads import check_revision
from node.storage.state.slices.compaction import Compaction
from node.storage.state.slices.hashing import Covers, StateHash
from node.storage.state.versions import Versions

if TYPE_CHECKING:
    from cluster.effects.later_puts import LaterPuts
    from node.storage.snapshot import SnapshotSink
    from node.storage.state.changes.apply import Prepared

RETIRE_S = 60.0  # a replaced database stays so long
# and so much longer while it has readers, for whom the newest one stays alone: a hash may take 10 minutes
READERS_S = 900.0


class StateStore(Versions):
    """See the module. Open one with :meth:`open`."""

    def __init__(
        self, root: Path, name: str, block_cache_bytes: int, write_buffer_bytes: int, range_cache_bytes: int,
        clock_ns: Callable[[], int], opened: Callable[[], object], shard: int,
    ) -> None:
        self.root = root
        self._name = name
        self._sizes = (block_cache_bytes, write_buffer_bytes)
        self._range_cache_bytes = range_cache_bytes
        self._opened = opened
        self.flushing = threading.Lock()  # held while the database must stay open
        self._defragmenting = Defragmenting()
        self._left = 0, 0, 0  # of files of so many bytes compacting leaves so many; deletions in them
        self.retired: list[tuple[float, Path]] = []  # replaced databases and when to remove them
        super().__init__(*self._database(name), clock_ns, shard)
        self.lease_lists = LeaseLists(self)
        self._begin()

    @classmethod
    def open(
        cls, path: str | Path, *, block_cache_bytes: int = 64 << 20, write_buffer_bytes: int = 32 << 20,
        range_cache_bytes: int = 32 << 20, clock_ns: Callable[[], int] = time.perf_counter_ns,
        opened: Callable[[], object] = lambda: None, shard: int = 0,
    ) -> StateStore:
        """Open or create the store in directory ``path``. Raises StorageCorruption, DirectoryLocked.

        ``clock_ns`` measures slices of work. ``opened`` is called whenever a database has been opened.
        ``shard``: whose keys it shows (G6).
        """
        root = Path(path)
        root.mkdir(parents=True, exist_ok=True)
        name = directory.read_current(root)
        if name is None:
            name = made(root, state_options(block_cache_bytes, write_buffer_bytes, create=True))
        store = cls(
            root, name, block_cache_bytes, write_buffer_bytes, range_cache_bytes, clock_ns, opened, shard)
        directory.remove_others(root, name)  # behind RocksDB's lock: no other process is at work here
        return store

    def _database(self, name: str) -> tuple[Rdict, str]:
        path = self.root / name
        database = open_database(path, state_options(*self._sizes, create=False))
        self._opened()
        self._name = name
        return database, str(path)

    def _begin(self, before: RowBlocks | None = None) -> None:
        """The parts of a database that was just opened."""
        # There is no write-ahead log, so all that is there at open was flushed.
        self.durable_position = self.position
        self._compaction = Compaction(self)
        self.counts = KeyCounts(self)
        self.lease_lists.other_keys()
        self.blocks = RowBlocks(self, self._range_cache_bytes, before)

    def settle(self) -> None:
        """Flush for the last time, and end a defragmentation: that may take minutes, and a stop has seconds.
        What cannot be flushed is in the log. SyncFailed, StorageCorruption."""
        try:
            self.flush()
        finally:
            with self.flushing:
                self._cursor = None
                self._defragmenting.stop(self.database)

    def close(self) -> None:
        """Flush and close; closing twice is harmless. SyncFailed, StorageCorruption."""
        with self.flushing:
            self._cursor = None
            try:
                self.database.close()
            except DbClosedError:
                pass
            except Exception as e:
                raise_write(e, self.path, "closing")

    # Changes

    def apply(
        self, records: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
        meta: Mapping[str, bytes] | None = None,
    ) -> Applied:
        """Apply a run of committed order records ``(index, term, data)``, the next ones in order. Empty data
        (an entry of another kind) only moves the position. ``meta`` rows, the same on every replica, are
        written in the same batch."""
        return drained(self.apply_slices(records, want_events=want_events, meta=meta))

    def apply_slices(
        self, records: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
        meta: Mapping[str, bytes] | None = None, evaluated: Evaluated = nothing_evaluated,
    ) -> Applying:
        """As :meth:`apply`, pausing where many keys are deleted: yields the events since the last pause.
        Until it ends nothing else may be applied, and reads show the position before it. ``evaluated``: what
        a record's leader knows of it without reading it (``puts``)."""
        return apply_records(self, records, want_events, meta, evaluated)

    def apply_own(self, prepared: Prepared, index: int, term: int, *, want_events: bool) -> Applied:
        """As :meth:`apply_slices` for the record that ``prepared`` was made of, at its leader."""
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
        """As :meth:`apply_changes`, with the pauses of :meth:`apply_slices`. ``evaluated``: by a change's
        place, what its leader knows of it (``cluster.effects.later_puts``)."""
        return apply_changes(self, changes, position, want_events, meta, evaluated or {})

    def flush(self) -> Position:
        """Make all that is applied durable; returns the position covered (H9). May run in a helper thread."""
        with self.flushing:
            position, database = self.position, self.database  # read before the flush begins
            try:
                database.flush(True)
            except Exception as e:
                raise_write(e, self.path, "flush")
            if position.order_index > self.durable_position.order_index:
                self.durable_position = position
            self.retired = [one for one in self.retired if not self._removed(*one)]
            return position

    def _removed(self, due: float, path: Path) -> bool:
        """Remove a replaced database if it is time, and whether it was."""
        now = time.monotonic()
        if now < due or (now < due + READERS_S and self._has_readers(path)):
            return False
        return directory.remove(path)

    def _has_readers(self, path: Path) -> bool:
        """Whether it may stay for them: the next snapshot must have room, and leaves half of what is free."""
        return (path == self.retired[-1][1] and directory.is_open(path)
                and directory.free_bytes(self.root) > 2 * self.size_bytes())

    def compaction_step(self, budget_us: int) -> bool:
        """Remove what the compaction revision made superfluous, for about ``budget_us``. True: all done."""
        return self._compaction.step(budget_us, self.durable_position.revision)

    def has_changes(self, revision: int) -> bool:
        """Whether a copy that asks gets all changes from a revision on; they stay until it asks again."""
        return self._compaction.has_changes(revision)

    @property
    def compacting(self) -> bool:
        """Whether :meth:`compaction_step` has anything left to do, also after a restart."""
        return not self._compaction.done

    def place(self, table: Table, switched: bool, counted: Switched | None) -> None:
        super().place(table, switched, counted)
        if switched:
            self.blocks.clear()

    # Reads in slices

    def reader(self, revision: int = 0) -> Reader:
        """Pin a revision for reading in slices. Raises Compacted, FutureRevision."""
        return Reader(self, self.blocks, revision)

    def reader_before(self, revision: int, shown: Shown | None = None) -> Reader:
        """Pin an applied revision whose successor was applied in this turn of the loop: a compaction applied
        with it has removed nothing yet. ``shown``: as the request was evaluated."""
        assert revision <= self.revision, "applied"
        return Reader(self, self.blocks, revision, kept=True, shown=shown)

    def attached(self, lease: int) -> Iterator[bytes]:
        """As :meth:`lease_keys`, of this moment, however late the keys are taken; b"" for a stale row."""
        rows, reader = self.attachment_rows(lease), self.reader()
        first = list(islice(rows, 1))  # that pins them
        return (row[9:] if (kv := reader.get(row[9:])) is not None
                and parse_current(kv, len(row) - 9).lease == lease else b"" for row in chain(first, rows))

    def history_slices(
        self, start: bytes, end: bytes, from_revision: int, *, max_events: int, max_bytes: int,
        want_prev: bool, max_scan: int,
    ) -> Generator[None, None, HistorySlice]:
        """The events of a range from a revision on, as many as fit; whole revisions only. ``max_scan`` bounds
        the changes looked at, of which an event counts as 8; pauses after that many of one revision. Raises
        Compacted."""
        return history_slices(
            self, start, end, from_revision,
            max_events=max_events, max_bytes=max_bytes, want_prev=want_prev, max_scan=max_scan,
        )  # fmt: skip

    def hash_kv(self, revision: int = 0) -> StateHash:
        """A hash of all versions up to a revision."""
        return StateHash(self, check_revision(revision, self.position), Covers.KEYS)

    def hash_state(self) -> StateHash:
        """A hash of all that is applied; replicas at the same order index have the same (I19)."""
        return StateHash(self, self.position.revision, Covers.STATE)

    def hash_written(self) -> StateHash:
        """A hash of what requests have made of the store; the same after a restart."""
        return StateHash(self, self.position.revision, Covers.WRITTEN)

    # The disk

    def size_bytes(self) -> int:
        """Bytes taken on the disk and in write buffers."""
        return (self._property("rocksdb.total-sst-files-size")
                + self._property("rocksdb.cur-size-all-mem-tables"))

    def size_in_use_bytes(self) -> int:
        """An estimate of the bytes that are live: the larger one of two. RocksDB's own passes over each file
        that overlaps one below it, though its rows are others. Files that only a reader still has do not
        count."""
        files, left, _ = self._files()
        live = max(left, self._property("rocksdb.estimate-live-data-size"))
        return min(live, files) + self._property("rocksdb.cur-size-all-mem-tables")

    def _files(self) -> tuple[int, int, int]:
        """As ``_left``, of now."""
        files = self._property("rocksdb.live-sst-files-size")
        if files != self._left[0]:  # a look at all files takes 30 us for each
            self._left = files, *left_bytes(self.database, 1.0)
        return self._left

    @property
    def buffers_removals(self) -> bool:
        """Whether write buffers hold so many removed rows that a flush is worth it: reads pass over each."""
        return self._buffered_removals() >= REMOVALS

    def _buffered_removals(self) -> int:
        return sum(self._property(f"rocksdb.num-deletes-{which}") for which in (
            "active-mem-table", "imm-mem-tables"))

    def much_removed(self, scarce: bool) -> bool:
        """Whether :meth:`defragment` gives much back of what compactions have removed since it was last so:
        half of the files, so that it writes no more than that, and a write buffer; a quarter of the files
        where space is ``scarce``. What RocksDB has merged itself has left no deletions: it is forgotten."""
        files, _, deletions = self._files()
        least = max(files // 4, 1) if scarce else max(files // 2, self._sizes[1])
        compaction = self._compaction
        compaction.merged(deletions + self._buffered_removals())
        if compaction.removed_bytes < least:
            return False
        # also where the disk has no room: the next compactions would find none again and again
        compaction.removed_rows = compaction.removed_bytes = 0
        return True

    @property
    def worth_rewriting(self) -> bool:
        """Whether :meth:`defragment` may give much back: it looks at every file. Each compaction leaves one
        deletion, of rows that are small. The number of deletions says nothing of bytes: one may be of a large
        value or, where keys have moved away, of many rows."""
        return any(file["num_deletions"] > 1 for file in self.database.live_files())

    def _property(self, name: str) -> int:
        return self.database.property_int_value(name) or 0

    def defragment(self, spare_bytes: int = 0, hosts: int = 1) -> None:
        """Give space back to the file system. Long; may run in a helper thread. An install ends it. Raises
        NoRoom where so many ``hosts`` may need more than the disk has, less ``spare_bytes``
        (``check_room``)."""
        with self.flushing:
            check_room(room(self.database), self.path, spare_bytes, hosts)
        self.flush()
        with self.flushing:
            database, path = self.database, self.path
        self._defragmenting.run(database, path)

    def install(self, sink: SnapshotSink) -> Position:
        """Replace the whole state by a finished snapshot, atomically; never backwards (I18). Raises
        SnapshotRefused, with the state as it was. Readers of the old state may go on for a quarter of an
        hour, unless another one is installed or the disk lacks room; then they raise Replaced."""
        if sink.position.order_index <= self.position.order_index:
            raise SnapshotRefused(
                f"snapshot at {sink.position.order_index} is not newer than {self.position.order_index}")
        self._defragmenting.replaces(self.database)
        with self.flushing:
            old, name = self._name, directory.next_name(self._name)
            target = self.root / name
            shutil.rmtree(target, ignore_errors=True)
            sink.directory.rename(target)
            sync_directory(self.root)
            self.switch_to(name)  # the commit point
            self._cursor = None
            self._defragmenting.close(self.database)
            self.show(*self._database(name))
            self._begin(self.blocks)
            if self.position != sink.position:
                raise StorageError(f"{self.path}: installed at {self.position}, announced {sink.position}")
            self.retired.append((time.monotonic() + RETIRE_S, self.root / old))
            return self.position

    def switch_to(self, name: str) -> None:
        """From now on this database is the state, whatever becomes of the process."""
        directory.write_current(self.root, name)
