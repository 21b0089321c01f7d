"""Rules of moves (growth.md, G2 to G11, G15), taken out one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.evaluate.footprint import Footprint
from cluster.order.leading.attempts import Attempts
from cluster.order.leading.own_keys import OwnKeys
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.moving import switch
from cluster.order.moving.copier import Batch, Copier
from cluster.order.moving.generations import Generations
from cluster.order.moving.hold import Hold
from cluster.order.prepare import Base, Prepare
from cluster.order.sequencing.coordinator import Coordinator
from cluster.placement import Table, changes
from node.replica.moving.copying import Copying
from tests.sim.disks import order_store
from tests.sim.moves import order_moving, order_owned
from tests.sim.moves.order_moving import SimulatedMovedKeys
from tests.sim.mutants.mutant import WRONG, Mutant, plan
from tests.sim.world.order_plan import MIX, Plan

Patch = pytest.MonkeyPatch


def moves(**given: Any) -> Plan:
    """Spans move all the time."""
    return plan(**{
        "shards": 3, "moves": True, "move_every_s": 0.03, "cancels": 0.02, "seconds": 5.0, "clients": 3,
        "think_s": 0.02, "fault_every_s": 1.0, **given})


def busy(**given: Any) -> Plan:
    """Moves under more load."""
    return moves(**{"clients": 6, "think_s": 0.005, "seconds": 4.0, **given})


def calm(**given: Any) -> Plan:
    """Moves, and nothing that goes wrong."""
    return moves(**{
        "targets": (1, 2), "fault_every_s": 1e9, "faults": ("heal",), "clients": 4, "seconds": 4.0, **given})


def slow(**given: Any) -> Plan:
    """The same, and so few writes and compactions that a revision is the compacted one for a second or more:
    what has left is looked through once a second."""
    return calm(**{"clients": 3, "think_s": 0.1, "seconds": 8.0, **given})


COMPACTED = {**MIX, "compact": 5, "watch": 2}
READS = {"range": 20, "serializable": 8}
HASHED = {"put": 3, **READS, "hash": 6, "compact": 3, "watch": 2}

# -- the switch (G2 to G4, G8, G15)


def tables_forget_the_past(patch: Patch) -> None:
    """G2: as if a span had been its owner's always."""
    take_moved = changes.take_moved
    patch.setattr(changes, "take_moved", lambda table, moved, at: replace(
        take_moved(table, moved, at), past=table.past))


def source_does_not_lock(patch: Patch) -> None:
    """G4: a source answers, and goes on writing."""
    wanted = Prepare.footprint
    patch.setattr(Prepare, "footprint", lambda self: wanted(self) if self.base is None else Footprint())


def grants_before_it_applied(patch: Patch) -> None:
    """H1, G4: a source grants with what it has logged still on its way."""
    lock = Attempts._lock

    def at_once(self: Any, held: Any, begun: int) -> None:
        lock(self, held, begun)
        if held.payload.prepare.base is not None:
            held.payload.batch = 0

    patch.setattr(Attempts, "_lock", at_once)


def shard_0_holds_nothing(patch: Patch) -> None:
    """G4: shard 0 goes on writing what moves."""
    patch.setattr(Hold, "holds", lambda self, method, body: False)


def attempts_begin_at_any_time(patch: Patch) -> None:
    """G8: a change of placement is logged, and attempts go by the table before it."""
    patch.setattr(Generations, "settled", property(lambda self: True))


def locks_without_end(patch: Patch) -> None:
    """G15: a switch waits as long as it takes."""
    begin = Coordinator.switch

    def waits(self: Coordinator[Any], tried: switch.Switch, now_ms: int) -> None:
        begin(self, tried, now_ms)
        self._queue[-1].deadline_ms = now_ms + 100_000

    patch.setattr(Coordinator, "switch", waits)


# -- the copy (G5, G11)


def base_is_not_awaited(patch: Patch) -> None:
    """G5: a target applies the switch with what it has."""
    patch.setattr(Copying, "lacks", lambda self, record: False)


def promises_without_a_base(patch: Patch) -> None:
    """G5: a target's leader grants at once, and nobody waits."""
    patch.setattr(Copying, "copied", lambda self, base, frozen=False: True)


def pages_alone(patch: Patch) -> None:
    """G5: what changes after its page was read is not copied."""
    events = Copier.events

    def nothing(self: Copier, source: int, after: Any, upto: Any, found: Any) -> Batch | None:
        return events(self, source, after, upto, ())

    patch.setattr(Copier, "events", nothing)


def old_rows_stay(patch: Patch) -> None:
    """G11: a copy begins over what is left of the span. The number of keys would tell, too."""
    copied = Copying.copied

    def careless(self: Copying, base: Base, *, frozen: bool = False) -> bool:
        copy = self._moved.copy
        wanted = base if copy is None else base._replace(live=copy.live)
        return copied(self, wanted, frozen=frozen)

    patch.setattr(Copying, "copied", careless)
    patch.setattr(order_owned, "remove", lambda content, move: None)
    patch.setattr(SimulatedMovedKeys, "has_old_rows", lambda self, start, end: False)


def targets_with_a_past(patch: Patch) -> None:
    """G11: a span goes back to a shard that is still asked for its past."""
    patch.setattr(Table, "past_of", lambda self, shard, start, end: 0)
    patch.setattr(SimulatedMovedKeys, "has_old_rows", lambda self, start, end: False)


# -- what is shown (G6, G7, G10)


def left_rows_show(patch: Patch) -> None:
    """G6: a source shows what has left it."""
    owns = order_owned.owns

    def shows(content: Any, key: bytes, revision: int | None) -> bool:
        return owns(content, key, revision) or any(
            order_owned.holds((left.move.start, left.move.end), key) for left in content.left.values())

    patch.setattr(order_store, "owns", shows)


def copied_rows_show(patch: Patch) -> None:
    """G6: a target shows what is copied and not its own yet."""
    owns = order_owned.owns

    def shows(content: Any, key: bytes, revision: int | None) -> bool:
        move = content.table.move if content.table is not None else None
        copied = move is not None and move.target == content.shard and order_owned.holds(
            (move.start, move.end), key)
        return copied or owns(content, key, revision)

    patch.setattr(order_store, "owns", shows)


def stale_fronts_are_trusted(patch: Patch) -> None:
    """G7: a leader evaluates whatever comes."""
    patch.setattr(OwnKeys, "lacks", lambda self, method, body: False)


def queues_are_not_looked_at(patch: Patch) -> None:
    """G7: what waits at a source when the switch is applied is evaluated there."""
    def placed(self: Any, table: Any) -> None:
        self._own = OwnKeys(self.shard, table)

    patch.setattr(ShardLeader, "placed", placed)


# -- what is left behind (G10)


def drops_without_compaction(patch: Patch) -> None:
    """G10: a source drops what the target has, whoever may ask for its past."""
    patch.setattr(SimulatedMovedKeys, "may_drop", lambda self, number: True)


def drops_at_its_revision(patch: Patch) -> None:
    """G10: a source drops at a compaction of the switch's own revision, which is shown still."""
    def may_drop(content: Any, left: order_owned.Left) -> bool:
        at = replace(left, revision=left.revision - 1)
        return order_owned.may_drop(content, at)

    patch.setattr(order_moving, "may_drop", may_drop)


MUTANTS = [
    Mutant(tables_forget_the_past, ("I16 every event once", *WRONG), moves(mix=COMPACTED), first=34),
    Mutant(source_does_not_lock, ("G3", "G4", "G5"), busy(targets=(1, 2)), first=7),
    Mutant(grants_before_it_applied, ("G3", "G4", "G5", "I9 a grant"), busy(), first=1),
    Mutant(shard_0_holds_nothing, ("G3", "G4"), busy(targets=(1, 2)), first=15),
    Mutant(attempts_begin_at_any_time, ("G3", "G1", "G8", *WRONG), busy(), first=20),
    Mutant(locks_without_end, ("G15",), busy(late=0.02, patience_ms=0), first=63),
    Mutant(base_is_not_awaited, ("G5",), moves()),
    Mutant(promises_without_a_base, ("G5",), moves()),
    Mutant(pages_alone, ("G5",), busy(), first=5),
    Mutant(old_rows_stay, ("G5", *WRONG), moves(mix=COMPACTED), first=5),
    Mutant(targets_with_a_past, ("G5", *WRONG), calm(mix={"put": 6, "delete": 2, **READS}), first=3),
    Mutant(left_rows_show, WRONG, moves(mix=COMPACTED), first=1),
    Mutant(copied_rows_show, WRONG, moves(mix=COMPACTED)),
    Mutant(stale_fronts_are_trusted, ("G3", *WRONG), busy(), first=4),
    Mutant(queues_are_not_looked_at, ("G3", *WRONG), busy(), first=4),
    Mutant(drops_without_compaction, WRONG, moves(mix=COMPACTED), first=9),
    Mutant(drops_at_its_revision, WRONG, slow(mix=HASHED), first=1),
]
