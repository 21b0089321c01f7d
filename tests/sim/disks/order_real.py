"""The real state store of a simulated node: ``node.storage.StateStore`` over RocksDB, in a directory in
memory.

A crash leaves what a killed process or a power cut leaves: a copy of the directory as RocksDB had flushed it,
at times in the middle of a flush (the manifest ends anywhere, the table is cut short). A node that starts
opens the copy. What the files say is looked at after every apply: the state's hash on all replicas (I19), and
a row for every key that hangs on a lease, which no hash covers. At the end every row is compared with the
replay of the order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cluster.pb import kv_pb2
from cluster.placement.table import Move
from node.storage import Applied, Applying, Position, SnapshotRefused, StateStore
from node.storage.snapshot import SnapshotSink, SnapshotSource
from tests.sim.world.order_world import DiskBroke, Violation
from tests.unit.storage.state.stores import history

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

LEASE_ROWS = "I15 a key that hangs on a lease has its row there"
_NEVER_COPIED = ("LOCK", "LOG")  # of RocksDB's own: a lock, and chatter
_MEMORY = Path("/dev/shm")
_SMALL = {"block_cache_bytes": 1 << 20, "write_buffer_bytes": 4 << 20, "range_cache_bytes": 1 << 20}


def make_root() -> Path:
    """A directory in memory, or where temporary files go."""
    return Path(tempfile.mkdtemp(prefix="muster-sim-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))


class Seen:
    """What a replica has applied, as checks ask for it (``order_content.Content``)."""

    def __init__(self, store: RealStore) -> None:
        self.position = store.position
        self.metas = {"fold": fold} if (fold := store.meta("fold")) is not None else {}
        self.bases: list[tuple[int, Move, dict[bytes, bytes]]] = []  # at the end all rows are compared
        self._store = store

    def digest(self) -> tuple[object, ...]:
        store = self._store
        return (
            self.position,
            store.hash_state().run(),
            self.metas.get("fold", b""),
            tuple(sorted(store.leases())),
        )


class RealDisk:
    """The directory of one node's state. It outlives the process, in a copy for each of its lives."""

    def __init__(self, root: Path, random: Random) -> None:
        self.watched: Callable[[Seen], None] = lambda seen: None
        self.perhaps_dies: Callable[[str], None] = lambda where: None
        self.flushed = SimpleNamespace(position=Position(0, 0, 0, 1, 0))
        self.failing = False
        self.flushes_itself = 0.0  # share of writes after which RocksDB flushes without being asked
        self.sinks: set[Any] = set()  # being received
        self._root = root
        self._random = random
        self._store: RealStore | None = None
        self._lives = 1
        self.directory = root / "life-001"
        self.directory.mkdir(parents=True)

    def open(self, clock_ns: Callable[[], int], shard: int) -> RealStore:
        opened: Any = RealStore.open(self.directory / "state", clock_ns=clock_ns, shard=shard, **_SMALL)
        store: RealStore = opened
        self._store = store
        store.disk = self
        self.flushed.position = store.position  # all that is there was flushed
        return store

    def end(self) -> None:
        """The simulation is over."""
        if self._store is not None:
            with contextlib.suppress(Exception):  # it may be broken
                self._store.close()

    def wrote(self, store: RealStore) -> None:
        """A batch is in the write buffer."""
        if self._random.random() < self.flushes_itself:
            position = store.position  # the batch may hold the next one: that is not known here
            store.database.flush(True)
            self.flushed.position = max(self.flushed.position, position)
        if store.applying:
            self.perhaps_dies("in an apply")

    def crash(self, random: Random) -> None:
        """The process is gone, what it has flushed is there, perhaps more."""
        store, self._store = self._store, None
        for sink in self.sinks:  # a process that ends closes its files
            sink.let_go()
        self.sinks.clear()
        old = self.directory
        self._lives += 1
        self.directory = self._root / f"life-{self._lives:03d}"
        if store is None:
            _copy(old, self.directory)
        else:
            how = random.choice(("as it is", "as it is", "flushed", "in a flush"))
            if how == "flushed":
                _flush(store)
            with contextlib.suppress(Exception):  # what the flush makes must last until it is copied
                store.database.set_options({"disable_auto_compactions": "true"})
            _copy(old, self.directory)
            if how == "in a flush":
                copied = self.directory / "state" / Path(store.path).name
                before = {f.name: f.stat().st_size for f in copied.iterdir()}
                _flush(store)
                _copy(old, self.directory)
                _tear(copied, before, random)
            with contextlib.suppress(Exception):  # it may be broken
                store.close()
        # RocksDB's threads may end a file meanwhile; what is left goes with the run's root
        shutil.rmtree(old, ignore_errors=True)


class RealStore(StateStore):
    """A state store whose disk may fail, and whose process may die in any of its writes."""

    disk: RealDisk

    def write(self, batch: Any) -> None:
        super().write(batch)
        self.disk.wrote(self)

    def flush(self) -> Position:
        if self.disk.failing:
            return self._flush_in_vain()
        position = super().flush()
        if position.order_index > self.disk.flushed.position.order_index:
            self.disk.flushed.position = position
        return position

    def _flush_in_vain(self) -> Position:
        """RocksDB cannot make its file."""
        path = Path(self.path)
        away = path.with_name(path.name + ".away")
        path.rename(away)
        try:
            return super().flush()
        finally:
            shutil.rmtree(path, ignore_errors=True)
            away.rename(path)

    def switch_to(self, name: str) -> None:
        self.disk.perhaps_dies("before a state is switched in")
        super().switch_to(name)
        self.disk.perhaps_dies("when a state is switched in")

    def install(self, sink: SnapshotSink) -> Position:
        position = super().install(sink)
        _, replaced = self.retired.pop()
        self.retired.append((time.monotonic(), replaced))  # flushes go on until it has gone
        self.disk.sinks.discard(sink)
        self.disk.flushed.position = position
        return position

    def apply_slices(self, *args: Any, **named: Any) -> Applying:
        applied = yield from super().apply_slices(*args, **named)
        self._applied(applied)
        return applied

    def apply_changes_slices(self, *args: Any, **named: Any) -> Applying:
        applied = yield from super().apply_changes_slices(*args, **named)
        self._applied(applied)
        return applied

    def apply_own(self, *args: Any, **named: Any) -> Applied:
        applied = super().apply_own(*args, **named)
        self._applied(applied)
        return applied

    def compaction_step(self, budget_us: int) -> bool:
        done = super().compaction_step(budget_us)
        if done and not self.applying:
            self.look_at_leases()
        return done

    def _applied(self, applied: Applied) -> None:
        if applied.miscounted:
            raise Violation("I22 a range holds what was counted", f"{self.path}: {applied.miscounted}")
        self.look_at_leases()
        self.disk.watched(Seen(self))

    def look_at_leases(self) -> None:
        """Each live key with a lease has its ``l`` row: only by it does the key end with the lease."""
        by_lease: dict[int, set[bytes]] = {}
        for key, kv in self.scan(b"\0", b"\0"):
            if lease := kv_pb2.KeyValue.FromString(kv).lease:
                by_lease.setdefault(lease, set()).add(key)
        for lease, attached in by_lease.items():
            rows = {row[9:] for row in self.attachment_rows(lease)}
            if not attached <= rows:
                raise Violation(
                    LEASE_ROWS,
                    f"{self.path} at {self.position}: lease {lease} lacks {sorted(attached - rows)}",
                )


class RealSink(SnapshotSink):
    """A snapshot being received by a node whose disk may be full."""

    def __init__(self, disk: RealDisk, takes_s: float) -> None:
        super().__init__(disk.directory / "state")
        self._disk = disk
        self.takes_s = takes_s  # what syncing it takes: see Process.run_in_executor
        disk.sinks.add(self)

    def write(self, data: bytes) -> None:
        if self._disk.failing:
            raise DiskBroke("no space left for a snapshot")
        super().write(data)

    def finish(self) -> Position:
        if not self.directory.exists():  # its process died, or it was removed
            raise SnapshotRefused("it is gone")
        if self._disk.failing:
            raise DiskBroke("a snapshot cannot be synced")
        return super().finish()

    def abandon(self) -> None:
        super().abandon()
        self._disk.sinks.discard(self)

    def let_go(self) -> None:
        """Its process ends."""
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1


class RealSources:
    """``SnapshotSource``'s beginnings, in the directory that this life of a node has."""

    def __init__(self, disk_of: Callable[[str], RealDisk]) -> None:
        self._disk_of = disk_of

    def create(self, store: RealStore, path: str) -> SnapshotSource:
        return SnapshotSource.create(store, store.disk.directory / "outgoing")

    def remove_left(self, path: str) -> None:
        SnapshotSource.remove_left(self._disk_of(path).directory / "outgoing")


# -- what a crash leaves


def _flush(store: RealStore) -> None:
    with contextlib.suppress(Exception):  # it may be broken by then
        store.database.flush(True)


def _copy(old: Path, new: Path) -> None:
    """Copy all that is not there yet. RocksDB compacts in threads of its own meanwhile: a table that a
    manifest names is there before the manifest names it, and until another one names it no more."""
    _tables(old, new)
    for folder, _, names in os.walk(old):
        for name in names:
            if not name.endswith(".sst") and not name.startswith(_NEVER_COPIED):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(Path(folder) / name, new / Path(folder).relative_to(old) / name)
    _tables(old, new)


def _tables(old: Path, new: Path) -> None:
    """They never change: they are linked."""
    for folder, _, names in os.walk(old):
        into = new / Path(folder).relative_to(old)
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name.endswith(".sst"):
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    os.link(Path(folder) / name, into / name)


def _tear(database: Path, before: dict[str, int], random: Random) -> None:
    """Cut the last flush short: its entry in the manifest ends anywhere, and without it so may its table."""
    for manifest in sorted(database.glob("MANIFEST-*")):
        size = manifest.stat().st_size
        first = before.get(manifest.name, size)
        cut = random.randint(first, size)
        os.truncate(manifest, cut)
        if cut == first < size:
            for table in sorted(database.glob("*.sst")):
                if table.name not in before:
                    data = table.read_bytes()
                    table.unlink()  # it is a link
                    table.write_bytes(data[: random.randint(0, len(data))])


# -- at the end


def check_stores(simulation: Simulation) -> None:
    """Every row of every replica is what the replay of the order says."""
    replay: Any = simulation.checker.replay
    state = replay.states[replay.revision]
    for (host, shard), process in sorted(simulation.nodes.items()):
        store: Any = process.node.store
        owner = simulation.checker.owners.of
        mine = {k: kv for k, kv in state.items() if owner(k, replay.revision + 1) == shard}
        found = {k: kv_pb2.KeyValue.FromString(kv) for k, kv in store.scan(b"\0", b"\0")}
        if found != mine:
            raise Violation("I22 rows are what was ordered", f"node {host}.{shard} has {found}, not {mine}")
        for lease in {kv.lease for kv in mine.values() if kv.lease}:
            hang = sorted(k for k, kv in mine.items() if kv.lease == lease)
            if store.lease_keys(lease) != hang:
                raise Violation(
                    LEASE_ROWS, f"node {host}.{shard}: {lease} has {store.lease_keys(lease)}, not {hang}"
                )
        first = store.compact_revision + 1
        events = history(
            store, b"\0", b"\0", first, max_events=1 << 30, max_bytes=1 << 30, max_scan=1 << 30
        ).events
        got = [(revision, key, bool(deleted)) for revision, deleted, key, _, _, _ in events]
        ordered = [(revision, c.key, c.kv is None) for revision in range(first, replay.revision + 1)
                   for c in replay.changes.get(revision, ()) if owner(c.key, revision) == shard]
        if got != ordered:
            raise Violation(
                "I16 history is what was ordered", f"node {host}.{shard} from {first}: {got}, not {ordered}"
            )
