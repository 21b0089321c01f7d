"""Shards that are born and retired in a simulated cluster: what each host's supervisor does about them, and
an operator who asks for them.

The nodes do the rest themselves (``node.replica.shards.birthing``). A supervisor makes a directory and its
note at once, and starts the node; it ends the node of a dropped shard and removes its directory. It may be
killed in between, with its host: node 0 says everything again at its next start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.errors import EtcdError
from cluster.features import births, downgrade
from cluster.features.rows import OF_SHARD_0
from cluster.order.moving.copier import STAGING
from cluster.pb import shards_pb2
from cluster.placement.table import State, Table
from cluster.wire.messages import Method
from node.storage import Position, genesis
from tests.sim.disks.order_content import Content

if TYPE_CHECKING:
    from tests.sim.world.order_host import NodeProcess
    from tests.sim.world.order_sim import Simulation

FOLDER = "shard-"  # before a shard's number, in the path of its directory


def place(path: str) -> tuple[int, int]:
    """Whose directory it is: the host's number, and the shard's."""
    _, host, folder, *_ = path.split("/")
    return int(host), int(folder.removeprefix(FOLDER))


def genesis_of(store: Any, shard: int, begins: Position, fold: bytes) -> Content:
    """``node.storage.genesis`` of a state in memory, as it is now."""
    now: Content = store.content
    new = Content(shard)
    new.table, new.position, new.layout = now.table, begins, now.layout
    new.leases, new.incarnations, new.alarms = dict(now.leases), dict(now.incarnations), set(now.alarms)
    left = tuple(f"feature/{feature}/" for feature in OF_SHARD_0)
    new.metas = {name: row for name, row in now.metas.items()
                 if name not in (downgrade.META, STAGING) and not name.startswith(left)}
    new.metas["fold"] = fold
    return new


def told_at_once(born: Any, table: Table) -> bool:
    """A mutant of ``Born._look_at_drops``: drops that are applied, on disk or not."""
    gone = {shard for shard, known in table.shards.items() if known.state == State.DROPPED}
    news, born._gone = gone != born._gone, gone
    return news


def change_shards(simulation: Simulation, kind: int, body: bytes) -> None:
    """Ask the leaders of shard 0 for a change of shards. What it refuses is asked for again by the caller."""

    def ask(process: NodeProcess) -> None:
        leader = process.node.writes.leader
        if leader is not None and process.node.raft.takes_proposals:
            with suppress(EtcdError):
                leader.execute(Method.SHARD_CHANGE, bytes((kind,)) + body)
            process.node.wake()

    for process in simulation._leaders(0):
        process.happens(None, partial(ask, process))


class Supervisors:
    """Of all hosts. ``noted``: each host's directories of born shards, and their first voters."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/supervisors")
        self.noted: defaultdict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)  # hosts come later, too
        self.genesis: dict[tuple[int, int], Content | Path] = {}  # files beside node 0's state
        self.retired: defaultdict[int, set[int]] = defaultdict(set)  # first shards that left no directory
        self.lost = 0  # genesis files
        self._lives: defaultdict[int, int] = defaultdict(int)
        self._read_at: defaultdict[int, float] = defaultdict(float)  # the last word of a node 0
        self._begun: set[tuple[int, int]] = set()  # directories in which a node has run

    # -- what nodes ask of their machine

    def say(self, process: NodeProcess, event: str, facts: dict[str, Any]) -> None:
        """What a process says of itself, in its pipe to the supervisor."""
        if event == "shards":
            host, now = process.host, self._simulation.now
            life = self._lives[host]
            # in the pipe's order
            self._read_at[host] = at = max(now + self._random.uniform(0.001, 0.05), self._read_at[host])
            self._simulation.at(at - now, None,
                                lambda: self._follow(host, facts) if self._lives[host] == life else None)

    def begin_state(self, path: str) -> None:
        where = place(path)
        disk: Any = self._simulation.states[where]
        found = self.genesis.get(where)
        if isinstance(found, Path):
            genesis.begin(disk.directory / "state", found)
        elif found is not None and not disk.flushed.position.order_index:
            disk.flushed = found.copy()

    def write(
        self, store: Any, path: str, begins: Position, fold: tuple[bytes, bytes]
    ) -> Callable[[], None]:
        """Of ``<directory of node 0>/genesis-<shard>``."""
        host, shard = place(path)[0], int(path.rpartition("-")[2])
        if self._simulation.plan.real:
            file = Path(store.path).parents[2] / f"genesis-{host}-{shard}"
            rows = (row for row in genesis.Source(store).rows() if row[0] != fold[0])

            def synced() -> None:
                genesis.write(file, begins, chain(rows, [fold]))
                self.genesis[host, shard] = file

            return synced
        content = genesis_of(store, shard, begins, fold[1])

        def written() -> None:
            self.genesis[host, shard] = content

        return written

    def has_begun(self, folder: str) -> bool:
        return place(folder) in self._begun

    # -- the host

    def died(self, host: int) -> None:
        """What its supervisor was at is lost."""
        self._lives[host] += 1

    def emptied(self, host: int) -> dict[int, tuple[int, ...]]:
        """Its data directory is another, empty one; the notes of the one that was."""
        notes, self.noted[host] = self.noted[host], {}
        self.retired[host].clear()
        for shard in notes:
            self.genesis.pop((host, shard), None)
            self._begun.discard((host, shard))
        return notes

    def found(self, host: int, notes: dict[int, tuple[int, ...]], has: Collection[int]) -> None:
        """It has its data directory again, with directories of these shards."""
        self.noted[host] = notes
        self.retired[host] = set(self._simulation.shards) - set(has)
        self._begun.update((host, shard) for shard in notes)

    def started(self, host: int, shard: int) -> None:
        """A node runs."""
        self._begun.add((host, shard))

    def _follow(self, host: int, facts: dict[str, Any]) -> None:
        simulation, noted = self._simulation, self.noted[host]
        if host in simulation.ended:
            return
        for name, voters in facts["born"].items():
            if (shard := int(name)) not in noted:
                if self._random.random() < simulation.plan.loses_genesis:
                    self.lost += self.genesis.pop((host, shard), None) is not None
                simulation.new_disk(host, shard)
                noted[shard] = tuple(voters)
                simulation.start_node(host, shard)
        for shard in facts["dropped"]:
            first = shard in simulation.shards and shard not in self.retired[host]
            if first:
                self.retired[host].add(shard)
            if noted.pop(shard, None) is not None or first:
                simulation.remove_node(host, shard)
                self._begun.discard((host, shard))
                self.genesis.pop((host, shard), None)


class Births:
    """The operator: shards are added and retired, at whoever leads shard 0 by then."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/births")
        self._later()

    def _later(self) -> None:
        every_s = self._simulation.plan.birth_every_s
        self._simulation.at(self._random.uniform(0, 2 * every_s), None, self._look)

    def _look(self) -> None:
        self._later()
        if not self._simulation.calm:
            for process in self._simulation._leaders(0):
                process.happens(None, lambda process=process: self._wish(process))  # type: ignore[misc]

    def _wish(self, process: NodeProcess) -> None:
        leader = process.node.writes.leader
        if leader is None or not process.node.raft.takes_proposals or leader.told.table is None:
            return
        table = leader.told.table
        born = [shard for shard in births.running(table) if shard >= table.base.shards]
        left = [shard for shard in births.running(table) if self._simulation.plan.leaves_first
                and 0 < shard < table.base.shards and not table.owns_anything(shard)]
        if len(born) < self._simulation.plan.most_born and self._random.random() < 0.6:
            body = bytes((births.ADD,)) + shards_pb2.AddShardRequest().SerializeToString()
        elif born or left:
            asked = shards_pb2.RetireShardRequest(shard=self._random.choice(left or born))
            body = bytes((births.RETIRE,)) + asked.SerializeToString()
        else:
            return
        with suppress(EtcdError):
            leader.execute(Method.SHARD_CHANGE, body)
        process.node.wake()

    def why_not(self) -> str:
        """What is still under way; empty: every host has the nodes that the table says."""
        simulation = self._simulation
        for host in simulation.hosts:
            table: Table | None = simulation.nodes[host, 0].node.store.placement()
            known = {} if table is None else table.shards
            # keys that have left are shown until a compaction, which no client asks for any more
            shown = set() if table is None else {piece.owner for piece in table.past}
            unsettled = {shard: state.name for shard, (state, *_) in known.items()
                         if state == State.FORMING or (state == State.RETIRING and shard not in shown)}
            if unsettled:
                return f"at host {host} shards are under way: {unsettled}"
            has = sorted(shard for at, shard in simulation.nodes if at == host)
            wants = sorted(shard for shard, (state, *_) in known.items()
                           if state in (State.SERVING, State.RETIRING))
            if has != wants:
                return f"host {host} has nodes of {has}, the table says {wants}"
        return ""
