"""Backups of a simulated cluster, and what is restored of them.

At one moment it is noted how far each node of one host has applied; now and then one is left as it was
earlier. When the run is over these places are made again over RocksDB, by the real fold of the committed logs
(``node.backup.stopped.carrying``). Keys that move between shards are in no log: where they do, the state lies
in RocksDB, and checkpoints of it are taken. The code of production builds a backup of them and restores it.
What is restored must be what was acknowledged at shard 0's place of the order: keys and their history,
leases, users, the tree of version 2, and nothing else. Where a shard is behind shard 0, no backup may come
of it.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.bolt import Database
from cluster.features.auth.state import AuthState
from cluster.features.rows import RowsOf, decode
from cluster.features.v2.shown import get_json
from cluster.features.v2.tree import Tree
from cluster.pb import kv_pb2
from cluster.raft import Configuration, Entry, EntryKind, SnapshotPosition
from node.backup import spool
from node.backup.build import Job, Unfit, gather
from node.backup.restore import Changed, NoBackup, restore
from node.backup.stopped.carrying import carry
from node.storage import StateStore
from node.storage.snapshot import SnapshotSource
from tests.sim.clients.order_leases import live_at
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

RULE = "what is restored is what was acknowledged"
EARLIEST_S, LATEST_S = 1.5, 3.5
_SIZES = {"block_cache_bytes": 1 << 20, "write_buffer_bytes": 1 << 20, "range_cache_bytes": 0}


class _Log:
    """What a shard has committed, as the log of a host that lacks nothing."""

    def __init__(self, committed: dict[int, tuple[int, int, bytes]]) -> None:
        self._committed = committed

    def snapshot_position(self) -> SnapshotPosition:
        return SnapshotPosition(0, 0, Configuration(frozenset()))

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return [
            Entry(index, term, EntryKind(kind), data)
            for index in range(first, last + 1)
            for term, kind, data in (self._committed[index],)
        ]


class Taken:
    """Checkpoints of one host's nodes, by shard."""

    def __init__(self, host: int, shards: list[int], folder: Path) -> None:
        self.host = host
        self.shards = shards  # of which the host had nodes
        self.folder = folder
        self.checkpoints: dict[int, SnapshotSource] = {}


class Backups:
    """Of one run."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/backups")
        self._places: list[list[int]] = []  # by backup, by shard: the order index applied
        self._taken: list[Taken] = []
        self.did = {"restored": 0, "unfit": 0}
        real = simulation.plan.real
        for _ in range(4 if real else 0 if simulation.plan.moves else 1):
            at_s = self._random.uniform(EARLIEST_S, LATEST_S)
            simulation.at(at_s, None, self._take if real else self._note)

    def _take(self) -> None:
        """Checkpoints of one host, one after the other: shard 0's first, as a front asks for them, or not."""
        simulation, r = self._simulation, self._random
        host = r.choice(simulation.hosts)
        shards = sorted(shard for at, shard in simulation.nodes if at == host)
        taken = Taken(host, shards, simulation.new_folder("backup"))
        self._taken.append(taken)
        after_s = 0.0
        for shard in r.sample(shards, len(shards)) if r.random() < 0.3 else shards:
            simulation.at(after_s, None, lambda shard=shard: self._hold(taken, shard))  # type: ignore[misc]
            after_s += r.choice((0.0, 0.01, 0.1))

    def _hold(self, taken: Taken, shard: int) -> None:
        process = self._simulation.nodes.get((taken.host, shard))
        if process is not None and process.alive:
            store: Any = process.node.store
            taken.checkpoints[shard] = SnapshotSource.create(store, taken.folder / f"{shard}")

    def _note(self) -> None:
        simulation, r = self._simulation, self._random
        host = r.choice(simulation.hosts)
        nodes = [simulation.nodes[host, shard] for shard in simulation.shards]
        if not all(process.alive for process in nodes):
            simulation.at(0.1, None, self._note)
            return
        places = [process.node.order_index for process in nodes]
        if r.random() < 0.3:
            late = r.randrange(len(places))
            places[late] = max(places[late] - r.randint(0, 60), 1)
        self._places.append(places)

    def check(self) -> None:
        """The run is over."""
        for places in self._places:
            with tempfile.TemporaryDirectory(prefix="muster-sim-") as folder:
                self._one(Path(folder), self._made_again(Path(folder), places))
        for taken in self._taken:
            if taken.checkpoints.keys() == set(taken.shards):
                self._one(taken.folder, dict(sorted(taken.checkpoints.items())))

    def _made_again(self, folder: Path, places: list[int]) -> dict[int, SnapshotSource]:
        """Checkpoints of a host whose nodes had applied so much of the order."""
        logs = self._simulation.checker.committed
        order: Any = _Log(logs[0])
        checkpoints = {}
        for shard, last in enumerate(places):
            own: Any = _Log(logs.get(shard, {}))
            store = StateStore.open(folder / f"{shard}", **_SIZES)
            carry(store, shard, own, order, last)
            checkpoints[shard] = SnapshotSource.create(store, folder / f"out{shard}")
            store.close()
        return checkpoints

    def _one(self, folder: Path, checkpoints: dict[int, SnapshotSource]) -> None:
        simulation = self._simulation
        positions = {shard: source.position for shard, source in checkpoints.items()}
        place = positions[0].order_index
        compacted = max(position.compact_revision for position in positions.values())
        behind = any(position.order_index < place for position in positions.values())
        gone = not simulation.checker.owners.born.keys() <= positions.keys()
        rows = folder / "rows"
        rows.mkdir()
        alive: Iterator[None] = itertools.repeat(None)
        job = Job([str(source.directory) for source in checkpoints.values()], str(rows), [], 1 << 20,
                  shards=list(checkpoints))
        try:
            plan = gather(job, alive)
        except Unfit as unfit:
            self.did["unfit"] += 1
            if not behind and not gone and compacted <= simulation.checker.replay.revision_at[place]:
                raise Violation(RULE, f"no backup of {positions}: {unfit}") from None
            return
        file = io.BytesIO()
        spool.write(plan, rows, file.write, alive)
        folders = [folder / f"new{shard}" for shard in simulation.shards]
        for one in folders:
            one.mkdir()
        depth = simulation.placement.table.base.depth
        try:
            restore(Database(file.getvalue()), folders, depth, [1], Changed(), lambda *_: None)
        except NoBackup as error:
            raise Violation(RULE, f"of {positions}: {error}") from error
        stores = [StateStore.open(one / "state", **_SIZES) for one in folders]
        try:
            self._compare(stores, place, compacted)
        finally:
            for store in stores:
                store.close()
        self.did["restored"] += 1

    def _compare(self, stores: list[StateStore], place: int, compacted: int) -> None:
        simulation = self._simulation
        replay = simulation.checker.replay
        revision = replay.revision_at[place]
        got: dict[bytes, Any] = {}
        for shard, store in enumerate(stores):
            for key, kv in store.scan(b"\0", b"\0"):
                if simulation.placement.shard_of(key) != shard:
                    raise Violation(RULE, f"{key!r} is in shard {shard}")
                got[key] = kv_pb2.KeyValue.FromString(kv)
        self._same("keys", place, got, replay.states[revision])
        at = max(revision, compacted)
        leases = {
            lease: next(life.ttl_s for life in reversed(replay.lives[lease]) if life.granted <= place)
            for lease in live_at(replay, place)
        }
        for store in stores:
            self._same("revision", place, store.revision, at)
            self._same("leases", place, {lease: ttl for lease, ttl, _ in store.leases()}, leases)
        for back in range(max(compacted, 1), revision):
            then = {key: kv for store in stores for key, kv in store.scan(b"\0", b"\0", back)}
            wanted = {key: kv.SerializeToString() for key, kv in replay.states[back].items()}
            self._same(f"revision {back}", place, then, wanted)
        users, tree = AuthState(), Tree()
        for index, body in replay.rows:
            feature, rows = decode(body, 0, len(body))
            if index <= place and feature == RowsOf.AUTH:
                users.take(rows)
            elif index <= place and feature == RowsOf.V2:
                tree.take(rows)
        for store in stores:
            kept = AuthState(store.feature_rows(RowsOf.AUTH))
            self._same("users", place, _users(kept), _users(users))
            if any(user.since < kept.revision for user in kept.users.values()):
                raise Violation(RULE, f"tokens from before the backup at {place} count: {kept.users}")
        kept_tree = Tree(stores[0].feature_rows(RowsOf.V2))
        self._same("version 2", place, _nodes(kept_tree), _nodes(tree))

    def _same(self, what: str, place: int, got: object, wanted: object) -> None:
        if got != wanted:
            raise Violation(RULE, f"{what} at {place} of the order: {got}, not {wanted}")


def _users(state: AuthState) -> object:
    roles = {r.name: {(p.key, p.range_end, p.kind) for p in r.permissions} for r in state.roles.values()}
    return state.enabled, state.revision, {u.name: sorted(u.roles) for u in state.users.values()}, roles


def _nodes(tree: Tree) -> object:
    return tree.index, get_json(tree.root, b"", True, True, 0)
