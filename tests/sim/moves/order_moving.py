"""Keys that move in the simulator: the product's driver over its store, and an operator with wishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.errors import EtcdError
from cluster.features.growth import MOVES
from cluster.features.moves import CANCEL, MOVE, Wish, cancel_body
from cluster.order.moving.copier import STAGING, Answer, Ask, Batch, read_staging
from cluster.order.moving.mover import Mover
from cluster.placement import Table
from cluster.placement.table import END, Move, State
from cluster.wire.messages import Method
from node.replica.moving.moved import Copy, MovedKeys
from node.replica.shards.order_role import OrderRole
from tests.sim.moves.order_owned import Left, Unknown, may_drop, moved_span

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation


class SimulatedMovedKeys(MovedKeys):
    """Of a store in memory."""

    def __init__(self, store: Any) -> None:
        self._of: Any = store

    @property
    def shard(self) -> int:
        shard: int = self._of._now.shard
        return shard

    @property
    def table(self) -> Table | None:
        table: Table | None = self._of.placement()
        return table

    def answer(self, move: Move, ask: Ask) -> Answer | None:
        with suppress(Unknown):
            found: Answer = self._of.answer(move, ask)
            return found
        return None

    @property
    def left(self) -> Mapping[int, Left]:
        left: Mapping[int, Left] = self._of.left
        return left

    def may_drop(self, number: int) -> bool:
        left = self._of.left
        return may_drop(self._of._now, left[number])

    def drop(self, number: int) -> Iterator[None]:
        yield
        if number in self._of.left:
            self._of.drop(number)

    def bare(self, number: int) -> Iterator[None]:
        yield
        if number in self._of.left:
            self._of.bare(number)

    @property
    def copy(self) -> Copy | None:
        row = self._of.meta(STAGING)
        table = self.table
        if row is None or table is None or table.move is None:
            return None
        return Copy(read_staging(row)[0], len(moved_span(self._of._now, table.move)), row)

    def drop_copy(self) -> Iterator[None]:
        return iter(())  # with the record that ends the move

    def begin(self, move: Move, batch: Batch) -> Iterator[None]:
        yield
        table = self.table
        if table is not None and table.move == move:
            self._of.stage(move.number, batch)

    def stage(self, batch: Batch) -> None:
        table = self.table
        assert table is not None
        assert table.move is not None
        self._of.stage(table.move.number, batch)


def hurried_mover(patience_ms: int) -> type[Mover]:
    """One whose pauses fit a run of some seconds."""

    class Hurried(Mover):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **{**named, "patience_ms": patience_ms, "pause_ms": 50})

    return Hurried


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
            if isinstance(role, OrderRole) and role.moves.mover is not None and (
                    process.node.upkeep.growing.growth.level >= MOVES):
                process.happens(None, lambda role=role: self._wish(role))  # type: ignore[misc]

    def _wish(self, role: OrderRole) -> None:
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
                if self._ask(leader, MOVE, self._leave(table) or self._away(table) or self._somewhere()):
                    break
        role.node.wake()

    @staticmethod
    def _ask(leader: Any, kind: int, body: bytes) -> bool:
        with suppress(EtcdError):
            leader.execute(Method.SHARD_CHANGE, bytes((kind,)) + body)
            return True
        return False

    def _leave(self, table: Table) -> bytes:
        """All keys to a born shard; nothing: another span is wished for."""
        share, random = self._simulation.plan.leaves_first, self._random
        if not share or random.random() >= share:
            return b""
        born = [shard for shard, known in sorted(table.shards.items())
                if shard >= table.base.shards and known.state == State.SERVING]
        return Wish(END, END, random.choice(born)).encode() if born else b""

    def _away(self, table: Table) -> bytes:
        """From the born shard that is there longest, which can retire without keys; nothing: none has any, or
        another span is wished for."""
        drains, random = self._simulation.plan.drains, self._random
        if not drains or random.random() >= drains:
            return b""
        serving = sorted(shard for shard, known in table.shards.items() if known.state == State.SERVING)
        oldest = next((shard for shard in serving if shard >= table.base.shards), None)
        spans = [span for span in table.spans if span.owner == oldest]
        if not spans:
            return b""
        span = random.choice(spans)
        return Wish(span.start, span.end, random.choice(serving)).encode()

    def _somewhere(self) -> bytes:
        simulation, random = self._simulation, self._random
        if simulation.plan.joins:
            return self._joined()
        start, end = sorted(random.sample([*simulation.keys, b"/", b"z"], 2))
        if random.random() < 0.3:
            end = start + b"\0"
        return Wish(start, end, random.choice(simulation.plan.targets or self._shards())).encode()

    def _joined(self) -> bytes:
        """Mostly neighbouring spans, to a shard that owns none of them; else one key, or a few."""
        simulation, random = self._simulation, self._random
        shards, keys = list(simulation.plan.targets or self._shards()), sorted(simulation.keys)
        table: Table | None = None
        for process in simulation.nodes.values():
            known = process.node.store.placement() if process.alive else None
            if known is not None and (table is None or known.generation > table.generation):
                table = known
        if table is not None and random.random() < 0.75 and table.spans:
            first = random.randrange(len(table.spans))
            last = min(len(table.spans) - 1, first + random.choice((0, 1, 1, 2, 3)))
            start, end = table.spans[first].start, table.spans[last].end
            owners = table.owners_of(start, end)
            if others := [shard for shard in shards if shard not in owners]:
                return Wish(start, end, random.choice(others)).encode()
        start = random.choice(keys)
        if random.random() < 0.5:
            return Wish(start, start + b"\0", random.choice(shards)).encode()
        at = random.randrange(len(keys) - 1)
        end = keys[min(len(keys) - 1, at + random.choice((1, 2, 3)))]
        return Wish(keys[at], end, random.choice(shards)).encode()

    def _shards(self) -> list[int]:
        """As far as anybody knows."""
        return [0, *self._simulation.checker.owners.others]

    def why_not(self) -> str:
        """What is still under way; empty: nothing."""
        for name, process in sorted(self._simulation.nodes.items()):
            table = process.node.store.placement()
            if table is not None and table.move is not None:
                return f"G15: {table.move} is under way at {name}"
        return ""
