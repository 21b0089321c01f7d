"""One host goes on alone (``--force-new-cluster``) in the midst of everything: keys move, shards form.

A cluster runs into its faults, and all its hosts die at once. One of them has what a crash leaves. The code
of production changes its logs (``tools.muster.host.identity.forcing``). Then that host runs again, and others
join it. What is committed from now on is folded together with all that its logs had kept.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from cluster.members.table import Table
from cluster.order.moving.copier import STAGING
from cluster.order.passing import Piece
from cluster.placement.table import State
from cluster.raft import Configuration, EntryKind
from node.backup.stopped.carrying import fold_of
from node.replica.moving.moved import MovedKeys
from node.storage import genesis
from node.storage.state.changes.above import drop_above
from tests.sim.checks.order_rules import written
from tests.sim.clients.order_clients import Clients, Operation
from tests.sim.disks.order_content import Content
from tests.sim.disks.order_disk import LogDisk
from tests.sim.disks.order_real import RealDisk
from tests.sim.disks.order_store import Store
from tests.sim.everything.order_everything import Everything, _healthy_soon
from tests.sim.moves.order_owned import remove
from tests.sim.world.order_host import fine_grained
from tests.sim.world.order_plan import Plan
from tests.sim.world.order_world import Violation
from tools.muster.host.identity import forcing

KEPT = "H18 what is kept is what was"
_CRASHES_S, _WAITS_S, _GOES_ON_S = (4.0, 7.0), 2.0, 5.0


class _Log:
    """A log that no node has open."""

    def __init__(self, disk: LogDisk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def first_index(self) -> int:
        return self._disk.position.index + 1


@contextlib.contextmanager
def _opened(simulation: Everything, host: int, shard: int) -> Iterator[Any]:
    """The state that a crash has left."""
    disk = simulation.states[host, shard]
    if not isinstance(disk, RealDisk):
        yield Store(disk)
        return
    yield disk.open(lambda: 0, shard)
    disk.end()
    disk._store = None


def crash(seed: int, plan: Plan) -> tuple[Everything, int]:
    """A run whose hosts all die, as a rule while keys move or a shard forms; and the host that is left."""
    random = Random(f"{seed}/forced")
    simulation = Everything(seed, replace(plan, seconds=random.uniform(*_CRASHES_S)))
    with _healthy_soon():
        simulation.run_faults()
        with fine_grained(simulation):
            waits_s = random.choice((0.0, _WAITS_S))
            simulation.run_until(simulation.now + waits_s, lambda: _changes(simulation))
            after_s = random.choice((0.0, 0.05, 0.3))
            simulation.run_until(simulation.now + after_s)
    for _, process in sorted(simulation.nodes.items()):
        simulation.kill(process)
    began = [host for host in simulation.hosts if simulation.logs[host, 0].last_index()]
    return simulation, random.choice(began)


def _changes(simulation: Everything) -> bool:
    owners = simulation.checker.owners
    return owners.move is not None or State.FORMING in owners.born.values()


def force(simulation: Everything, host: int) -> Mapping[int, Sequence[int]] | None:
    """As ``forcing.force``. Raises CannotBeKept. By shard, the first and last entry that it made up; None:
    nothing had to change, for the host is the only member already."""
    begun = simulation.supervisors._begun
    replicas, peers, table = {}, simulation.common(host).peers, Table(())
    for shard in simulation.shards_of(host):
        if shard not in simulation.shards and (host, shard) not in begun:
            continue
        log: Any = _Log(simulation.logs[host, shard])
        with _opened(simulation, host, shard) as store:
            log.verify(store.position.shard_index)
            replicas[shard] = forcing._Replica(
                log, store.position, fold_of(store), store.placement(), has_more=True)
            if not shard:
                table = Table(peers, store.hosts())
    pieces = simulation.logs[host, 0].kept.pieces

    def pieces_of(shard: int) -> list[Piece]:
        return [piece for (of, _, _), piece in sorted(pieces.items()) if of == shard]

    identity: Any = SimpleNamespace(member_id=host, peers=peers, shard_count=len(simulation.shards))
    told: dict[str, Any] = {}
    silent: Any = SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **facts: told.update(facts))
    with tempfile.TemporaryDirectory(prefix="muster-sim-") as folder:
        (Path(folder) / "member").mkdir()
        forcing._force(
            folder, replicas, table, identity, silent, pieces_of, partial(_drop_rest, simulation, host))
    noted = simulation.supervisors.noted[host]
    for shard in noted:
        if shard not in replicas:
            noted[shard] = (host,)
    lost: Mapping[int, Sequence[int]] | None = told.get("lost_entries")
    return lost


def _drop_rest(
    simulation: Everything, host: int, more: list[int], kept: int, there: Collection[int]
) -> None:
    _drop_more(simulation, host, more)
    supervisors = simulation.supervisors
    noted = supervisors.noted[host]
    for shard in [shard for shard in noted if (host, shard) not in supervisors._begun]:
        begins = supervisors.genesis.get((host, shard))
        if begins is not None and _place(begins) > kept:
            del supervisors.genesis[host, shard]
        if shard not in there:
            supervisors.genesis.pop((host, shard), None)
            del noted[shard]


def _place(begins: Content | Path) -> int:
    position = genesis.read(begins)[0] if isinstance(begins, Path) else begins.position
    return position.order_index


def _drop_more(simulation: Everything, host: int, shards: list[int]) -> None:
    for shard in shards:
        disk = simulation.states[host, shard]
        if not isinstance(disk, RealDisk):
            content = disk.flushed
            if content.metas.pop(STAGING, None) is not None and content.table is not None:
                assert content.table.move is not None
                remove(content, content.table.move)
            continue
        with _opened(simulation, host, shard) as store:
            for _ in MovedKeys(store).drop_copy():
                pass
            drop_above(store)
            store.flush()


class _Born:
    """The first voters of shards."""

    def __init__(self) -> None:
        self.voters: dict[int, Configuration] = {}

    def born(self, shard: int, voters: Collection[int]) -> None:
        self.voters[shard] = Configuration(frozenset(voters))

    def dropped(self, shard: int) -> None:
        pass


class Alone(Everything):
    """What the host that is left goes on with."""

    def __init__(self, before: Everything, host: int, *, forced: Mapping[int, Sequence[int]] | None) -> None:
        """``forced``: of :func:`force`."""
        plan = replace(before.plan, seconds=before.now + _GOES_ON_S, member_chance=0.3)
        self._before = before  # its states' directories lie in that run's folder
        super().__init__(before.seed, plan)
        self.now = before.now  # the walls go on
        heap: Any = self._heap
        self._heap = [(due + self.now, *event) for due, *event in heap]
        self.hosts = (host,)
        self.joined, self.moved = before.joined, before.moved
        self.urls = before.urls
        self.destroyed = {*before.destroyed, *before.hosts} - {host}
        self.incarnations = {host: before.incarnations[host]}
        self.logs = {where: log for where, log in before.logs.items() if where[0] == host}
        self.states = {where: disk for where, disk in before.states.items() if where[0] == host}
        self.wall_jumps = before.wall_jumps
        own, theirs = self.supervisors, before.supervisors
        own.noted[host] = theirs.noted[host]
        own.genesis = {where: begins for where, begins in theirs.genesis.items() if where[0] == host}
        own._begun = {where for where in theirs._begun if where[0] == host}
        for where in self.logs:
            self._take_over(where)
        self._fold(host, forced or {})
        # a forced start drops what is logged and not in order; any other start puts it in order later
        self._left = self._not_done() if forced is None else []
        self.checker._once.go_on(self.checker.replay.revision, self._left)

    def _new_clients(self) -> Clients:
        clients = super()._new_clients()
        clients.go_on(self._before.clients, self._left)
        return clients

    def _not_done(self) -> list[Operation]:
        """Requests of before that may yet be done: nobody was answered, and none of their values is there."""
        changes = self.checker.replay.changes.values()
        done = {change.kv.value for changed in changes for change in changed if change.kv is not None}
        return [o for o in self._before.clients.operations if o.open and not done & written(o)]

    def _take_over(self, where: tuple[int, int]) -> None:
        log, disk = self.logs[where], self.states[where]
        log.perhaps_dies, log.had_applied = self.perhaps_dies, 0
        disk.watched = lambda content: self.checker.applied(where, content)
        if isinstance(disk, RealDisk):
            disk.perhaps_dies = self.perhaps_dies

    def _fold(self, host: int, made_up: Mapping[int, Sequence[int]]) -> None:
        """What the logs hold is committed: the only voter has it."""
        checker, before = self.checker, self._before.checker
        for shard in {*before.committed, *self.shards_of(host)}:
            log, known = self.logs.get((host, shard)), before.committed.get(shard, {})
            if log is None:  # a shard without a node here
                checker.committed[shard] = dict(known)
                continue
            first = log.position.index
            mine = {index: entry for index, entry in known.items() if index <= first}
            mine |= {e.index: (e.term, int(e.kind), e.data) for e in log.log}
            checker.committed[shard] = mine
            checker.configurations.replaced(shard, [
                (first, log.position.configuration),
                *((e.index, Configuration.decode(e.data)) for e in log.log if e.kind == EntryKind.CONFIG)])
        folder, groups, born = checker._folder, checker.configurations, _Born()
        folder._groups = born
        folder.made_up = {
            (shard, index) for shard, (first, last) in made_up.items() for index in range(first, last + 1)}
        folder.advance()
        folder._groups = groups
        replay = checker.replay
        checker.committed_at = dict.fromkeys(range(1, replay.order_index + 1), self.now)
        replay.revoked_with.update(dict.fromkeys(range(2, replay.revision + 1), 0))  # nobody's here
        only = Configuration(frozenset({host}))
        there = {shard for shard, state in checker.owners.born.items() if state != State.DROPPED}
        for shard in checker.committed.keys() - {*self.shards, *checker.owners.born}:
            if (host, shard) not in self.logs:  # its birth is not kept: the next of this number is another
                checker.committed[shard] = {}
        # the host may learn of a shard only now: its node has the voters of that birth, and never leads
        noted = self.supervisors.noted[host]
        groups.history = {shard: [only] for shard in self.shards} | {
            shard: [only if shard in noted else born.voters[shard]] for shard in there}
        was = before.replay.revision_at
        for index, revision in enumerate(replay.revision_at[: len(was)]):
            if index and checker.committed[0][index] != before.committed[0][index]:
                break  # of a leader whose term was over
            if revision != was[index]:
                raise Violation(KEPT, f"revision {revision} at {index}, not {was[index]}")
