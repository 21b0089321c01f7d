"""Rules of ``order_checks`` that need a memory of their own: what is logged under locks (I9), what is done
twice (I23)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.effects import later_puts, records
from cluster.effects.records import Item, items
from cluster.evaluate.footprint import Footprint
from cluster.order import log as order
from cluster.order.leading.queued import Preparing
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.locks import Queued
from cluster.order.log import Attempt
from cluster.raft import EntryKind
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.order_replay import Replay
    from tests.sim.clients.order_clients import Operation
    from tests.sim.world.order_host import NodeProcess
    from tests.sim.world.order_sim import Simulation


@dataclass
class Term:
    """What was known of one shard leader's term after its last step."""

    leading: ShardLeader[Any]
    last_index: int  # of the log
    last_record: int = 0  # the last entry that is not empty, as far as this leader logged it
    # held by now -> what was logged before: to be shown
    locked: dict[Attempt, int] = field(default_factory=dict)
    # the next entry may hold what was evaluated before the last lock, and was not logged then
    older: bool = False
    answered: set[Attempt] = field(default_factory=set)


class UnderLocks:
    """I9, at each step of a shard's leader: what it logs touches no lock that it has held since before the
    step; and what it grants shows all that was logged before the step in which it locked."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], Term] = {}

    def stepped(self, process: NodeProcess, leading: ShardLeader[Any]) -> None:
        raft: Any = process.node.raft
        term = self.seen.get(process.where)
        if term is None or term.leading is not leading:
            self.seen[process.where] = Term(leading, raft.last_index)
            return
        waits = len(leading._table)
        if not (waits or term.locked or term.older) and raft.log.last_index <= term.last_index:
            return  # nothing is held, nothing was, and nothing is logged
        held = {h.attempt: h for h in leading._table if h.active and h.attempt is not None} if waits else {}
        before = term.last_record
        if raft.last_index > term.last_index and raft.term == leading.term:
            locked = [h for attempt, h in held.items() if attempt in term.locked]
            for entry in raft.log_entries(max(term.last_index, raft.log.position.index) + 1, raft.last_index):
                if entry.kind == EntryKind.RECORD:
                    term.last_record = entry.index
                    if not term.older:
                        self._logged(process, entry.index, entry.data, locked)
                    term.older = False
            term.last_index = raft.last_index
        term.older = leading.dirty and (term.older or bool(held.keys() - term.locked.keys()))
        term.locked = {attempt: term.locked.get(attempt, before) for attempt in held}
        for attempt, entry_ in held.items():
            if entry_.payload.answer is not None and attempt not in term.answered:
                term.answered.add(attempt)
                if process.node.applied_index < term.locked[attempt]:
                    raise Violation(
                        "I9 a grant shows what was logged before",
                        f"{process.name} grants {attempt} at entry "
                        f"{process.node.applied_index}, {term.locked[attempt]} was logged before it locked",
                    )

    def _logged(self, process: NodeProcess, index: int, data: bytes, locked: list[Queued[Any]]) -> None:
        if not locked:
            return
        written = Footprint(
            [],
            [span for kind, at, to in items(data, order.ENTRY_ITEMS) for span in _spans(data, kind, at, to)],
        )
        for held in locked:
            assert isinstance(held.payload, Preparing)
            if held.footprint.conflicts(written):
                raise Violation(
                    "I9 nothing that conflicts is logged under a lock",
                    f"{process.name} logs {written.writes} in {index}, {held.attempt} holds {held.footprint}",
                )


def _spans(data: bytes, kind: int, at: int, to: int) -> list[tuple[bytes, bytes]]:
    """What an item of a shard's entry writes."""
    if kind == Item.DELETE_RANGE:
        return [records.read_delete_range(data, at, to)[:2]]
    if kind == Item.DELETE:
        return [(data[at:to], b"")]
    if kind == Item.PUTS_LATER:
        return [(key, b"") for key in later_puts.read(data, at, to).keys]
    if kind in (Item.TXN, Item.TXN_LONG):
        return [span for item in items(data, at, to) for span in _spans(data, *item)]
    return [(records.key_of(data, kind, at, to), b"")]


class Once:
    """I23: no request is done twice. Every request writes a value of its own (``order_clients``), unless a
    test gives several the same: then they may be done as often as they were asked."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._asked: Counter[bytes] = Counter()
        self._read = 0  # requests that are in there
        self._done: Counter[bytes] = Counter()
        self._revision = 1

    def go_on(self, revision: int, left: list[Operation]) -> None:
        """After a run before this, which made what there is up to ``revision``, and left some requests."""
        self._revision = revision
        for operation in left:
            self._asked.update(written(operation))

    def ordered(self, replay: Replay) -> None:
        """More of the order is known."""
        if replay.revision == self._revision:
            return
        operations: list[Operation] = self._simulation.clients.operations
        for operation in operations[self._read :]:
            self._asked.update(written(operation))
        self._read = len(operations)
        for revision in range(self._revision + 1, replay.revision + 1):
            before = replay.states[revision - 1]
            # a put that keeps the value writes what another request has written
            for value in {c.kv.value for c in replay.changes[revision] if c.kv is not None
                          and not (c.key in before and before[c.key].value == c.kv.value)}:
                self._done[value] += 1
                if self._done[value] > self._asked[value]:
                    raise Violation(
                        "I23 no request is done twice",
                        f"{value!r} is written at {revision}, in record "
                        f"{replay.record_of[revision]}, once too often",
                    )
        self._revision = replay.revision


def written(operation: Operation) -> set[bytes]:
    """The values that a request may write."""
    request = operation.request
    if operation.method == "Put":
        return {request.value}
    if operation.method == "Txn":
        return {
            op.request_put.value
            for ops in (request.success, request.failure)
            for op in ops
            if op.HasField("request_put")
        }
    return set()
