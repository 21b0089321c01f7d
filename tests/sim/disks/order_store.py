"""A multi-version store in memory that may come back from any moment since its last flush. It has the faces
of ``node.storage``'s classes. What it holds, and how records are applied to it, is in ``order_content``.
"""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from cluster.effects import records
from cluster.effects.later_puts import LaterPuts
from cluster.effects.records import items
from cluster.evaluate.reading.ranges import Fields, is_creation
from cluster.evaluate.spans import Span
from cluster.evaluate.view import Current
from cluster.features import rows
from cluster.features.auth.permissions import Ranges
from cluster.features.growth import Growth
from cluster.features.rows import RowsOf
from cluster.order.moving.copier import Ask, Batch
from cluster.placement import Table
from cluster.placement.owned import Shown
from cluster.placement.table import Move
from cluster.wire.messages import HASH_OF_NOTHING
from cluster.wire.protobuf import tombstone
from node.storage import Applied, Applying, HistorySlice, Position, Prepared, PreparedRows
from node.storage.errors import Compacted, FutureRevision, SnapshotRefused, SyncFailed
from tests.sim.disks.order_content import Changes, Content, apply, placement_of, takes
from tests.sim.disks.order_rows import Splicer, feature_rows, pauses
from tests.sim.moves.order_owned import Left, answer, bare, counts, drop, owns, stage


class LeaseLists(set[int]):
    """Everything is in memory here: which leases' keys would be listed."""

    full = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def read(self, lease: int, step: int) -> Iterator[None]:
        """As many steps as in the real one."""
        yield from [None] * (len(self._store.lease_keys(lease)) // step)
        self.add(lease)

    drop = set.discard

    def second(self) -> None:
        """It keeps nothing."""


class Store:
    """``node.storage.StateStore`` in memory. ``disk`` outlives the process."""

    path = "state"  # names it where it is damaged, which it never is

    def __init__(self, disk: StateDisk) -> None:
        self._disk = disk
        self._now = disk.reopen()
        # the key counts of ranges: here they are walked
        self.counts = SimpleNamespace(
            build_step=lambda: True, grown=False, hollow=False, ready=True, keys=lambda: -1)
        self.lease_lists = LeaseLists(self)

    @property
    def content(self) -> Content:
        return self._now

    def forget_versions(self) -> None:
        """It has none."""

    @property
    def position(self) -> Position:
        return self._now.position

    @property
    def durable_position(self) -> Position:
        return self._disk.flushed.position

    @property
    def revision(self) -> int:
        return self._now.position.revision

    @property
    def compact_revision(self) -> int:
        return self._now.position.compact_revision

    # -- changes

    def apply(self, run: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
              meta: Mapping[str, bytes] | None = None) -> Applied:
        changes: Changes = []
        revision = self.revision
        for _, _, data in run:
            changes.append((revision, data, 0, -1))
            revision += sum(takes(data, kind, at, to) for kind, at, to in items(data))
        index, term, _ = run[-1]
        assert run[0][0] == self.position.shard_index + 1, "I18: records in order"
        return self.apply_changes(changes, (index, index, term, revision), want_events=want_events, meta=meta)

    def apply_changes(self, changes: Sequence[tuple[int, bytes, int, int]],
                      position: tuple[int, int, int, int], *, want_events: bool = False,
                      meta: Mapping[str, bytes] | None = None) -> Applied:
        # the caller's bytes are kept: they are immutable
        batch = (list(changes), position, dict(meta or {}))
        applied = apply(self._now, *batch)
        self._disk.applied.append(batch)
        self._disk.watched(self._now)
        if not want_events:
            applied.events.clear()
        return applied

    def apply_slices(self, run: Sequence[tuple[int, int, bytes]], *, want_events: bool = False,
                     meta: Mapping[str, bytes] | None = None, evaluated: object = None) -> Applying:
        yield from pauses(data for _, _, data in run)
        return self.apply(run, want_events=want_events, meta=meta)

    def apply_own(self, prepared: Prepared, index: int, term: int, *, want_events: bool) -> Applied:
        if isinstance(prepared, PreparedRows):
            return self.apply([(index, term, records.rows(rows.encode(prepared.feature, prepared.rows)))])
        puts = prepared.puts
        new = [key in puts.new and puts.keys.index(key) == place for place, key in enumerate(puts.keys)]
        return self.apply([(index, term, records.puts(puts.revision, puts.keys, puts.kvs, new))],
                          want_events=want_events)

    def apply_changes_slices(self, changes: Sequence[tuple[int, bytes, int, int]],
                             position: tuple[int, int, int, int], *, want_events: bool = False,
                             meta: Mapping[str, bytes] | None = None,
                             evaluated: Mapping[int, LaterPuts] | None = None) -> Applying:
        # what a leader knows of its own entry is what the entry says
        for place, puts in (evaluated or {}).items():
            _, data, pos, sub = changes[place]
            assert sub == -1
            assert data[pos:] == puts.encode()
        yield from pauses(data[pos:] for _, data, pos, _ in changes)
        return self.apply_changes(changes, position, want_events=want_events, meta=meta)

    def stage(self, move: int, batch: Batch) -> None:
        """A batch of a copy."""
        stage(self._now, move, batch)
        self._disk.applied.append((move, batch))

    def answer(self, move: Move, ask: Ask) -> tuple[int, Any]:
        """What this replica, a source, says to a copy."""
        return answer(self._now, move, ask)

    @property
    def left(self) -> dict[int, Left]:
        return self._now.left

    def drop(self, move: int) -> None:
        drop(self._now, move)
        self._disk.applied.append(move)

    def bare(self, move: int) -> None:
        bare(self._now, move)
        self._disk.applied.append(-move)

    def flush(self) -> Position:
        if self._disk.failing:
            raise SyncFailed("the disk fails")
        self._disk.flushed = self._now.copy()
        self._disk.applied.clear()
        return self._disk.flushed.position

    def install(self, sink: Sink) -> Position:
        if sink.position.order_index <= self.position.order_index:
            raise SnapshotRefused("not newer")
        self._now = sink.content.copy()
        self._disk.flushed = sink.content.copy()
        self._disk.applied.clear()
        self._disk.sinks.discard(sink)
        return self.position

    def close(self) -> None:
        """The process ends."""

    compacting = False
    buffers_removals = False
    retired = ()

    def compaction_step(self, budget_us: int) -> bool:
        return True

    # -- reads

    def _at(self, revision: int) -> int:
        if revision <= 0:
            return self.revision
        if revision > self.revision:
            raise FutureRevision(self.revision)
        if revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        return revision

    def _live(self, key: bytes, revision: int) -> bytes | None:
        for at, _, kv in reversed(self._now.versions.get(key, ())):
            if at <= revision:
                return kv
        return None

    def _shown(self, key: bytes, revision: int, asked: int) -> bytes | None:
        """What this shard shows of a key; ``asked``: 0: now."""
        return self._live(key, revision) if owns(self._now, key, asked if asked > 0 else None) else None

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        return self._shown(key, self._at(revision), revision)

    def current(self, key: bytes) -> Current | None:
        kv = self._shown(key, self.revision, 0)
        if kv is None:
            return None
        f = Fields(kv)
        return Current(f.create, f.mod, f.version, f.lease)

    def previous(self, key: bytes, revision: int, kept: bool = False) -> bytes | None:
        known = kept or revision - 1 >= self.compact_revision
        return self._live(key, revision - 1) if known else None

    def _span(self, start: bytes, end: bytes) -> list[bytes]:
        keys = self._now.keys
        first = bisect_left(keys, start)
        if not end:
            return keys[first : first + 1] if keys[first : first + 1] == [start] else []
        return keys[first:] if end == b"\0" else keys[first : bisect_left(keys, end)]

    def scan(self, start: bytes, end: bytes, revision: int = 0,
             look: int = 0) -> Iterator[tuple[bytes, bytes]]:
        at = self._at(revision)
        return iter([(key, kv) for key in self._span(start, end)
                     if (kv := self._shown(key, at, revision)) is not None])

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]:
        found = self._now.changes
        return iter([(revision, sub, int(kv is None), key)
                     for revision, sub, key, kv in found[bisect_left(found, (from_revision,)):]])

    def rows_at(self, revision: int, asked: int) -> dict[bytes, bytes]:
        """All live keys then, as far as they have not been compacted; ``asked`` 0: by the newest table."""
        return {key: kv for key in self._span(b"\0", b"\0")
                if (kv := self._shown(key, revision, asked)) is not None}

    def shown(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """G6: the keys of a range that are shown now, live or not."""
        return [(key, b"") for key in self._span(start, end) if owns(self._now, key, None)]

    def uncounted(self, spans: Iterable[Span]) -> bool:
        return False

    def live_count(self, start: bytes, end: bytes) -> int:
        return sum(1 for _ in self.scan(start, end))

    def quick_count(self, start: bytes, end: bytes) -> int | None:
        """Not known without walking."""
        return None

    def count_at_most(self, start: bytes, end: bytes) -> int | None:
        """Not known without walking."""
        return None

    def reader(self, revision: int = 0) -> Reader:
        return Reader(self, self._at(revision), revision)

    @property
    def owned(self) -> Any:
        """Whatever :meth:`reader_before` is given again."""
        return self._now.table

    def reader_before(self, revision: int, shown: Shown | None = None) -> Reader:
        reader = Reader(self, revision, revision + 1)  # a switch at the revision stands before the write
        if shown is not None:
            reader.show(self, shown.owned)
        return reader

    def history(self, start: bytes, end: bytes, from_revision: int, *, max_events: int, max_bytes: int,
                want_prev: bool = False, max_scan: int = 10_000) -> HistorySlice:
        position = self.position
        if from_revision < position.compact_revision:
            raise Compacted(position.compact_revision)
        slice_ = HistorySlice([], max(position.revision + 1, from_revision), position.revision,
                              position.compact_revision)
        changes = self._now.changes
        last = from_revision
        found = itertools.islice(changes, bisect_left(changes, (from_revision,)), None)
        for scanned, (revision, sub, key, kv) in enumerate(found):
            if revision != last:
                if scanned >= max_scan or len(slice_.events) >= max_events:
                    slice_.next_revision = revision
                    break
                last = revision
            if key == start if not end else start <= key and (end == b"\0" or key < end):
                prev = (self.previous(key, revision) or b"") if want_prev and not (
                    kv is not None and is_creation(kv)) else b""
                slice_.events.append(
                    (revision, int(kv is None), key, kv or tombstone(key, revision), prev, sub))
        return slice_

    def history_slices(self, start: bytes, end: bytes, from_revision: int, *, max_events: int, max_bytes: int,
                       want_prev: bool, max_scan: int) -> Generator[None, None, HistorySlice]:
        return self.history(start, end, from_revision, max_events=max_events, max_bytes=max_bytes,
                            want_prev=want_prev, max_scan=max_scan)
        yield

    def hash_kv(self, revision: int = 0) -> KeysHash:
        return KeysHash(self._now, self._at(revision))

    def lease(self, lease: int) -> tuple[int, int] | None:
        return self._now.leases.get(lease)

    def leases(self) -> Iterator[tuple[int, int, int]]:
        return iter([(lease, *ttl) for lease, ttl in self._now.leases.items()])

    def hangs_many(self, lease: int, many: int) -> bool:
        return len(self.lease_keys(lease)) > many

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        return [k for k in self._now.keys if (c := self.current(k)) is not None and c.lease == lease]

    def leased_keys(self, but: Ranges) -> Iterator[bytes]:
        return iter([k for lease in self._now.leases for k in self.lease_keys(lease) if but.behind(k) == k])

    def attached(self, lease: int) -> Iterator[bytes]:
        return iter(self.lease_keys(lease))

    def meta(self, name: str) -> bytes | None:
        return self._now.metas.get(name)

    def members(self) -> dict[int, bytes]:
        return self._now.members

    def alarms(self) -> list[tuple[int, int]]:
        return sorted(self._now.alarms)

    def feature_rows(self, feature: int) -> list[tuple[bytes, bytes]]:
        return feature_rows(self._now.metas, feature)

    def placement(self) -> Table | None:
        return placement_of(self._now) if self._now.layout is not None else None

    def growth(self) -> Growth:
        row = self._now.metas.get("growth")
        return Growth(records.GROWTH_LEVEL.unpack(row)[0] if row else 0, self.feature_rows(RowsOf.VERSIONS))

    def hosts(self) -> list[bytes]:
        return [row for name, row in sorted(self._now.metas.items()) if name.startswith("host/")]

    def incarnations(self) -> dict[int, int]:
        return self._now.incarnations

    def bootstrap(self) -> tuple[int, int, int] | None:
        return self._now.layout

    def much_removed(self, scarce: bool) -> bool:
        return False

    def size_in_use_bytes(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return 0


class KeysHash:
    """``node.storage.state.slices.hashing.StateHash`` of the versions of keys."""

    def __init__(self, content: Content, revision: int) -> None:
        self.revision, self.compact_revision = revision, content.position.compact_revision
        # in the order of keys, however far a compaction has come: the same versions are the same rows
        covered = []
        low = min(revision, self.compact_revision)
        for key, versions in content.versions.items():
            shown = [version for version in versions if counts(content, key, version[0])]
            kept = [version for version in shown if version[0] <= low]
            covered += [(key, *version) for version in shown if low < version[0] <= revision]
            covered += [(key, *version) for version in kept[-1:] if version[2] is not None]
        rows = repr(sorted(covered, key=lambda version: version[:3]))
        self.value = zlib.crc32(rows.encode()) if covered else HASH_OF_NOTHING

    def step(self, budget_us: int) -> bool:
        return True


class Reader:
    """A pinned revision."""

    def __init__(self, store: Store, revision: int, asked: int) -> None:
        self.position = store.position
        self.revision = revision
        self.owned = store.owned
        self._rows = store.rows_at(revision, asked)
        self._asked = asked if asked > 0 else None
        # whatever is compacted meanwhile, or moves
        self._pinned = pinned = Content(store._now.shard)
        pinned.table = store._now.table
        pinned.versions = {key: list(versions) for key, versions in sorted(store._now.versions.items())}

    def show(self, store: Store, table: Any) -> None:
        """As by this table."""
        self._asked, self._pinned.table, self.owned = None, table, table
        shown = (key for key in self._pinned.versions if owns(self._pinned, key, None))
        self._rows = {key: kv for key in shown if (kv := store._live(key, self.revision)) is not None}

    def _older(self, revision: int) -> dict[bytes, bytes]:
        found = {key: [kv for at, _, kv in some if at <= revision]
                 for key, some in self._pinned.versions.items() if owns(self._pinned, key, revision)}
        return {key: kv for key, kvs in found.items() if kvs and (kv := kvs[-1]) is not None}

    def scan(self, start: bytes, end: bytes, look: int = 0,
             revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, kv) for k, kv in (self._older(revision) if revision else self._rows).items()
                     if (k == start if not end else start <= k and (end == b"\0" or k < end))])

    def parts(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, b"") for key in self._pinned.versions
                if (key == start if not end else start <= key and (end == b"\0" or key < end))
                and owns(self._pinned, key, self._asked)]

    def splicer(self, start: bytes, end: bytes, look: int) -> Splicer:
        return Splicer(self.scan(start, end))

    rows = splicer  # here nothing that was read is kept

    def count(self, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        return sum(1 for _ in self.scan(start, end)), None


class StateDisk:
    """What is on the disk: a flushed state, and what was applied to it since."""

    def __init__(self, shard: int = 0) -> None:
        self.flushed = Content(shard)
        # records, batches of a copy, moves whose rows are dropped (below 0: some of them)
        self.applied: list[tuple[Changes, tuple[int, int, int, int], dict[str, bytes]]
                           | tuple[int, Batch] | int] = []
        self.watched: Callable[[Content], None] = lambda content: None
        self.failing = False
        self.sinks: set[Any] = set()  # snapshots being received, by whoever lives now

    def crash(self, random: Random) -> None:
        """RocksDB may have flushed at any batch; the rest is gone."""
        survivors = random.choice((0, len(self.applied), random.randint(0, len(self.applied))))
        self.sinks.clear()
        for batch in self.applied[:survivors]:
            if isinstance(batch, int):
                (drop if batch > 0 else bare)(self.flushed, abs(batch))
            elif len(batch) == 2:
                stage(self.flushed, *batch)
            else:
                apply(self.flushed, *batch)
        self.applied.clear()

    def copied(self) -> StateDisk:
        """Another disk with what is flushed on this one."""
        copy = StateDisk(self.flushed.shard)
        copy.flushed, copy.watched = self.flushed.copy(), self.watched
        return copy

    def reopen(self) -> Content:
        assert not self.applied
        return self.flushed.copy()


_sources = itertools.count(1)
_snapshots: dict[bytes, Content] = {}


class Source:
    """``node.storage.snapshot.SnapshotSource``: the stream is a ticket, in two chunks."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.position = content.position
        self._ticket = b"%08d" % next(_sources)
        self.size_bytes = len(self._ticket)
        _snapshots[self._ticket] = content
        self._sent = 0

    @classmethod
    def create(cls, store: Store, path: str) -> Source:
        return cls(store._now.copy())

    @staticmethod
    def remove_left(path: str) -> None:
        """A crash takes the memory with it."""

    def next_chunk(self, size: int) -> bytes:
        chunk = self._ticket[self._sent : self._sent + 4]
        self._sent += 4
        return chunk

    def check(self) -> None:
        """Nothing of it is damaged."""

    def close(self) -> None:
        """Sent or given up."""


class Sink:
    """``node.storage.snapshot.SnapshotSink``."""

    synced_s = 0.0

    def __init__(self, disk: StateDisk, takes_s: float) -> None:
        self._disk = disk
        self.takes_s = takes_s  # what syncing it takes: see Process.run_in_executor
        self._data = b""
        disk.sinks.add(self)
        self.position = Position(0, 0, 0, 0, 0)
        self.content = Content()

    def write(self, data: bytes) -> None:
        self._data += data

    def finish(self) -> Position:
        if self._data not in _snapshots:
            raise SnapshotRefused("it is not whole")
        self.content = _snapshots[self._data]
        self.position = self.content.position
        return self.position

    def abandon(self) -> None:
        """Given up."""
        self._disk.sinks.discard(self)
