"""Nodes that move keys: what drives the machines of ``cluster.order.moving`` in the simulator, until nodes
do so themselves. Copies and what hosts say of them go by messages of their own, which may be lost."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, cast

from cluster.effects.records import Item, items
from cluster.errors import EtcdError
from cluster.features.auth.principal import named
from cluster.features.growth import MOVES
from cluster.features.moves import CANCEL, MOVE, Wish, cancel_body
from cluster.order.leading.own_keys import OwnKeys
from cluster.order.moving.copier import STAGING, Ask, Batch, Copier
from cluster.order.moving.mover import Copied, Hosts, Mover
from cluster.placement import Table
from cluster.placement.changes import read_moved
from cluster.placement.table import Move
from cluster.raft import Role
from cluster.wire.messages import Method
from node.replica.role import Kinds
from node.replica.shards.feed_end import ORDER_INDEX, STATE_WANTED
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole
from tests.sim.moves.order_owned import Unknown, may_drop

if TYPE_CHECKING:
    from tests.sim.world.order_host import NodeProcess
    from tests.sim.world.order_sim import Simulation

LOOK_S = 0.015
ELSEWHERE_S = 1.2  # three election timeouts: then another host's source is asked
PEERS_STATE_S = 3.0  # then no source has what is wanted: a peer's state
_WRITES = frozenset((Method.PUT, Method.DELETE_RANGE, Method.TXN))


class Copying:
    """A replica's part in moves: as a target it copies, as a source it drops what has left."""

    def __init__(self, process: NodeProcess, role: Any) -> None:
        self._process = process
        self._simulation = cast("Simulation", process.world)
        self._role = role
        self._random = Random(f"{process.world.seed}/copy {process.name}")
        self._store = role.store
        self.copier: Copier | None = None
        self._level_at = 0.0  # its sources stood so then, and all of that is copied
        self._waits_since = 0.0  # for its base
        process.call_later(LOOK_S * self._random.random(), self._look)

    def again(self) -> None:
        """Another state was installed."""
        self.copier = None

    def copied(self, number: int) -> int:
        """The revision up to which the copy of a move is whole."""
        copier = self.copier
        return copier.through if copier is not None and copier.move.number == number else 0

    def lacks(self, record: bytes) -> bool:
        """Whether a record is a switch to here whose base is not here (G5)."""
        move = self._move
        for kind, at, _ in items(record):
            if kind != Item.MOVED:
                continue
            moved = read_moved(record, at)
            if move is None or move.number != moved.number:
                return True  # the move's own record is applied first
            if moved.switched and move.target == self._process.shard:
                return self.copied(move.number) < moved.source_revision
        return False

    @property
    def _move(self) -> Move | None:
        table: Table | None = self._store.placement()
        return None if table is None else table.move

    def _look(self) -> None:
        self._process.call_later(LOOK_S * (0.5 + self._random.random()), self._look)
        self._drop()
        move = self._move
        if move is None or move.target != self._process.shard:
            self.copier = None
            return
        if self.copier is None or self.copier.move.number != move.number:
            if any(_meets(left.move, move) for left in self._store.left.values()):
                return  # G11: old rows go first
            self.copier = Copier(move)
            self._level_at = self._waits_since = 0.0
            self._stage(self.copier.begin(self._store.meta(STAGING)))
        for ask in self.copier.asks():
            self._ask(self.copier, ask)
        lag_ms = int((self._process.world.now - self._level_at) * 1000)
        said = Copied(move.number, self.copier.whole, lag_ms)
        for host in self._simulation.hosts:
            self._simulation.send_to_sequencer(self._process, host, said)

    def _stage(self, batch: Batch | None) -> None:
        if batch is not None:
            assert self.copier is not None
            self._store.stage(self.copier.move.number, batch)
            self._role.copy_grew()

    def _ask(self, copier: Copier, ask: Ask) -> None:
        """Ask the own host's source; if it does not help for long, another host's."""
        simulation, me = self._simulation, self._process
        host = me.host
        now = me.world.now
        if self._role.waits_for_base:
            self._waits_since = self._waits_since or now
            if now - self._waits_since > ELSEWHERE_S:
                host = self._random.choice(simulation.hosts)
            if now - self._waits_since > PEERS_STATE_S:
                self._waits_since = now
                self._ask_for_state()
        source = simulation.nodes[host, ask.source]

        def back(found: tuple[int, Any] | None) -> None:
            if self.copier is copier and self._move == copier.move:
                self._came(copier, ask, found, now)

        def asked() -> None:
            found = None
            with suppress(Unknown):
                found = source.node.store.answer(copier.move, ask)
            simulation.message(source, me, lambda: back(found))

        if not simulation.message(me, source, asked):
            copier.lost(ask.source)
        else:
            me.call_later(0.3, lambda: copier.lost(ask.source))

    def _ask_for_state(self) -> None:
        """Every source has dropped the rows (G10), so a majority of the target has the base."""
        node = self._process.node
        if node.raft.role is not Role.LEADER:
            peer = node.raft.leader_id or self._random.choice(node.roster.others)
            node.peers.send(peer, STATE_WANTED, ORDER_INDEX.pack(node.order_index))

    def _came(self, copier: Copier, ask: Ask, found: tuple[int, Any] | None, asked_at: float) -> None:
        if found is None:
            copier.lost(ask.source)
            return
        revision, what = found
        if ask.page:
            rows, more = what
            self._stage(copier.page(ask.source, ask.start, revision, rows, more))
        elif not ask.revision:
            self._stage(copier.stands(ask.source, revision))
        elif what is None:
            self._stage(copier.compacted(ask.source))
        else:
            self._stage(copier.events(ask.source, ask.revision, revision, what))
            self._level_at = asked_at

    def _drop(self) -> None:
        """G10: once no question can come, and this host's target and a majority have it on disk."""
        for number, left in list(self._store.left.items()):
            if not may_drop(self._store._now, left):
                continue
            target, at = left.move.target, left.order_index
            simulation = self._simulation
            have = [host for host in simulation.hosts
                    if simulation.states[host, target].flushed.position.order_index >= at]
            if self._process.host in have and 2 * len(have) > len(simulation.hosts):
                self._store.drop(number)


def _meets(a: Move, b: Move) -> bool:
    return (b.end == b"\0" or a.start < b.end) and (a.end == b"\0" or b.start < a.end)


class MovingShardRole(ShardRole):
    """A shard other than 0."""

    def __init__(self, node: Any, kinds: Kinds, process: NodeProcess) -> None:
        super().__init__(node, kinds)
        self._generation = 0
        self.copying = Copying(process, self)
        self.feed.queue.lacks = self.copying.lacks

    @property
    def waits_for_base(self) -> bool:
        return any(self.copying.lacks(projection) for _, _, projection, _, _ in self.feed.queue)

    def copy_grew(self) -> None:
        if self.leading is not None:
            self.leading.let_go()
        self.node.wake()  # type: ignore[attr-defined]

    def _follow(self) -> None:
        self.feed.queue.lacks = self.copying.lacks
        super()._follow()

    def _tell(self, placed: Any) -> None:
        self._place()
        super()._tell(placed)

    def leader_changed(self) -> None:
        before = self.leading
        super().leader_changed()
        if self.leading is not None and self.leading is not before:
            self.leading.copied = self.copying.copied
            self._generation = 0
            self._place()

    def _place(self) -> None:
        table = self.store.placement()
        if table is None or table.generation == self._generation or self.leading is None:
            return
        self._generation = table.generation
        self.leading.placed(table)

    def replaced(self) -> None:
        super().replaced()
        self.copying.again()
        self._generation = 0
        self._place()


class MovingOrderRole(OrderRole):
    """Shard 0."""

    def __init__(self, node: Any, kinds: Kinds, process: NodeProcess) -> None:
        super().__init__(node, kinds)
        self.process = process
        self.mover: Mover | None = None
        self._held: list[tuple[Any, int, int, bytes]] = []
        self.copying = Copying(process, self)
        self._asked = 0  # the last record that is to be applied
        self._run_writes = self.writes.run
        self.writes.run = self._run_what_may  # type: ignore[method-assign]
        node.frames[STATE_WANTED[0]] = self._state_wanted

    def _state_wanted(self, member_id: int, data: bytes) -> None:
        if ORDER_INDEX.unpack(data)[0] < self.node.applied_index:
            self.node.snapshots.send_to(member_id, 0)

    @property
    def waits_for_base(self) -> bool:
        return self._may_apply(self._asked) < self._asked

    def copy_grew(self) -> None:
        self._go_on()
        self.node.wake()

    # -- the sequencer

    def sequence(self, leader: Any) -> None:
        super().sequence(leader)
        assert self.sequencer is not None
        sequencer, plan = self.sequencer, cast("Simulation", self.process.world).plan
        self.mover = leader.told.moving = Mover(
            self.placement, sequencer.coordinator, self.copying.copied, plan.patience_ms, pause_ms=50)

    def heard(self, host: int, copied: Copied) -> None:
        if self.mover is not None:
            self.mover.heard(host, copied, self.node.now_ms())

    def evaluate(self) -> None:
        if self.sequencer is not None and self.sequencing and self.writes.has_room:
            assert self.mover is not None
            self.mover.run(self.node.now_ms(), self._hosts())
        super().evaluate()

    def _hosts(self) -> Hosts:
        simulation = cast("Simulation", self.process.world)
        voters = self.raft.configuration.voters
        live = frozenset(host for host in voters if all(
            simulation.nodes[host, shard].alive for shard in simulation.shards))
        return Hosts(voters, live, {**self.reports.reporters, 0: self.raft.id})

    def leader_changed(self) -> None:
        super().leader_changed()
        if self.sequencer is None:
            self.mover = None
            self._give_back()

    def _give_back(self) -> None:
        held, self._held = self._held, []
        for request in held:
            self.writes.submit(*request)

    # -- what shard 0 holds, and what has left it

    def submit(self, link: Any, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        if self._left(method, body):
            _, inner, request = named(method, body)
            self._wide(link, rid, inner, timeout_ms, request)
        else:
            super().submit(link, rid, method, timeout_ms, body)

    def _left(self, method: int, body: bytes) -> bool:
        table, inner = self.placement.table, named(method, body)[1]
        return bool(table.generation) and inner in _WRITES and OwnKeys(0, table).lacks(method, body)

    def _run_what_may(self) -> None:
        """What is queued and touches what moves waits; what has left goes elsewhere (G7)."""
        hold = self.coordinator.hold if self.coordinator is not None else None
        if self.placement.table.generation:
            intake = self.writes._intake
            requests, self._held = [*self._held, *intake.drain()], []
            for request in requests:
                link, rid, method, body = request
                if hold is not None and method in _WRITES and hold.holds(method, body):
                    self._held.append(request)
                elif self._left(method, body):
                    self._wide(link, rid, method, 5000, body)
                else:
                    intake.take(request, 0)
        self._run_writes()

    # -- the order log

    def apply(self, last: int) -> None:
        self._asked = last
        super().apply(self._may_apply(last))

    def _go_on(self) -> None:
        if not self.node.applies.busy and self.node.applied_index < self._asked:
            self.apply(self._asked)

    def _may_apply(self, last: int) -> int:
        """The last record that lacks no base."""
        index = self.node.applied_index
        while index < last:
            for entry in self.raft.log_entries(index + 1, min(last, index + 64)):
                if any(kind == Item.MOVED for kind, _, _ in items(entry.data)) and self.copying.lacks(
                        entry.data):
                    return index
                index = entry.index
        return last

    def _applied_run(self, run: Any, applied: Any) -> None:
        super()._applied_run(run, applied)
        if self.coordinator is not None:
            self.coordinator.generations.applied(self.node.applied_index)
            if self.placement.table.move is None:
                self.coordinator.hold = None
        if self.node.applied_index < self._asked:
            self.loop.call_soon(self._go_on)

    def replaced(self) -> None:
        super().replaced()
        self.copying.again()


class Moves:
    """An operator who moves spans about, one after the other, and now and then thinks better of it."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/moves")
        self._later()

    def _later(self) -> None:
        self._simulation.at(self._simulation.plan.move_every_s * self._random.random(), None, self._look)

    def _look(self) -> None:
        self._later()
        for process in self._simulation._leaders(0):
            role = process.node.role
            if role.mover is not None and process.node.upkeep.growing.growth.level >= MOVES:
                process.happens(None, lambda role=role: self._wish(role))  # type: ignore[misc]

    def _wish(self, role: MovingOrderRole) -> None:
        simulation, random = self._simulation, self._random
        leader = role.writes.leader
        if leader is None or not role.sequencing:
            return
        table, plan = leader.told.table, simulation.plan
        if table is None:
            return
        if table.move is not None:
            if simulation.calm or random.random() < plan.cancels:
                self._ask(leader, CANCEL, cancel_body(table.move.number))
        elif not simulation.calm:
            for _ in range(5):  # most are refused: the target has a part of it, or has had one
                if self._ask(leader, MOVE, self._somewhere()):
                    break
        role.node.wake()

    @staticmethod
    def _ask(leader: Any, kind: int, body: bytes) -> bool:
        with suppress(EtcdError):
            leader.execute(Method.SHARD_CHANGE, bytes((kind,)) + body)
            return True
        return False

    def _somewhere(self) -> bytes:
        simulation, random = self._simulation, self._random
        start, end = sorted(random.sample([*simulation.keys, b"/", b"z"], 2))
        if random.random() < 0.3:
            end = start + b"\0"
        return Wish(start, end, random.choice(simulation.plan.targets or tuple(simulation.shards))).encode()

    def why_not(self) -> str:
        """What is still under way; empty: nothing."""
        for name, process in sorted(self._simulation.nodes.items()):
            table = process.node.store.placement()
            if table is not None and table.move is not None:
                return f"G15: {table.move} is under way at {name}"
        return ""
