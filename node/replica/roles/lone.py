"""The role of a store's only shard, whose log is the order; and what shard 0's role has in common with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cluster.effects import records
from cluster.features.growth import BIRTHS
from cluster.raft import EntryKind
from cluster.wire.messages import Method, Status
from node.any_node import AnyNode
from node.links.fronts import FrontLink, Request, say_not_leader
from node.replica.applying import is_full, one_run
from node.replica.roles.role import Handler, Kinds, Owed, Role

if TYPE_CHECKING:
    import asyncio

    from node.replica.applying import Applies
    from node.replica.pacing.pauses import GatheringTimer
    from node.replica.writes import Writes
    from node.serving.confirm import Confirmations
    from node.serving.txns.looking import Looking
    from node.serving.watch.watches import WatchSource
    from node.storage import Applied
    from node.upkeep.upkeep import Upkeep

_APPLY_ENTRIES = 256
# What only the role of shard 0 in a store of several takes. The node of a host that is new, or has lost its
# disks, begins with this role: others may ask it before it has heard of their shards.
_OF_SEVERAL = (Method.WIDE, Method.LONE, Method.QUERY, Method.REPORT, Method.FEED, Method.FEED_ACK,
               Method.COPIED)
# What the node of a source or a target is asked of a move, which this node has not heard of either.
_OF_MOVES = (Method.COPY, Method.DURABLE)


class OwnLogNode(AnyNode, Protocol):
    writes: Writes
    looking: Looking
    gathering: GatheringTimer
    applied_index: int


class OwnLog:
    """A role whose own log is the order; ``node.replica.roles.role`` describes the methods."""

    def __init__(self, node: OwnLogNode) -> None:
        self._own = node
        self.raft, self.writes = node.raft, node.writes

    @property
    def alone(self) -> bool:
        return self.writes.alone

    @property
    def queued(self) -> int:
        return self.writes.queued + self.writes.aside

    @property
    def owed(self) -> Owed:
        return Owed.FATE if self.writes.uncommitted > 0 or len(self._own.looking) > 0 else Owed.NOTHING

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        return False

    def catch_up(self) -> None:
        gathering = self._own.gathering
        if gathering.waits:
            gathering.catch_up()

    def unapplied(self) -> Iterable[bytes]:
        for entry in self.raft.log_entries(self._own.applied_index + 1, self.raft.last_index):
            if entry.kind == EntryKind.RECORD:
                yield entry.data


class LoneNode(OwnLogNode, Protocol):
    confirmations: Confirmations
    watches: WatchSource
    upkeep: Upkeep
    applies: Applies
    fatal: asyncio.Future[str]
    handlers: dict[int, Handler]

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None: ...


class LoneRole(OwnLog, Role):
    """The role of an only shard."""

    gathers = True

    def __init__(
        self, node: LoneNode, kinds: Kinds, orders_from_here: Callable[[], None] = lambda: None
    ) -> None:
        """``orders_from_here``: the data has grown so far that shards may be born: have the role of shard 0
        go on (``node.replica.roles.made``)."""
        super().__init__(node)
        self._node = node
        self._orders_from_here = orders_from_here
        self._over = False
        node.handlers.update(dict.fromkeys(_OF_SEVERAL, self._refuse))
        node.handlers.update(dict.fromkeys(_OF_MOVES, self._does_not_know))

    def _refuse(self, link: FrontLink, rid: int, timeout_ms: int, body: bytes) -> None:
        say_not_leader(self.raft, link, rid)
        self._node.mark_dirty(link)

    def _does_not_know(self, link: FrontLink, rid: int, timeout_ms: int, body: bytes) -> None:
        link.answer(rid, Status.UNKNOWN, b"")
        self._node.mark_dirty(link)

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        self.writes.submit(link, rid, method, body)

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        return self.writes.submit_all(link, requests)

    @property
    def has_room(self) -> bool:
        return not self.writes.uncommitted or self.writes.due

    @property
    def settled(self) -> bool:
        return not (self.writes.ready or self._node.confirmations.asked)

    def evaluate(self) -> None:
        self.writes.run()
        self._node.confirmations.run(self.writes.leader is not None)

    def apply(self, last: int) -> None:
        node = self._node
        raft, store = node.raft, node.store
        # One by one until the layout is known: this node cannot read what follows another layout.
        most = _APPLY_ENTRIES if store.bootstrap() is not None else 1
        while node.applied_index < last and not (node.fatal.done() or node.applies.busy or self._over):
            run = one_run(raft.log_entries(node.applied_index + 1, min(last, node.applied_index + most)))
            if most == 1 and (agreed := records.bootstrap_in(run[0][2])) is not None:
                node.upkeep.agreed.check_bootstrap(agreed)
                if node.fatal.done():
                    return
            if node.applied_index + len(run) < last and is_full(run, most):
                node.gathering.later()  # far behind, as after a restart: the loop is served between two runs
                last = node.applied_index + len(run)
            index, term, _ = run[0]
            if len(run) == 1 and (rows := node.writes.prepared(index, term)) is not None and most > 1:
                node.applied_run(run, node.applies.at_once(
                    partial(store.apply_own, rows, index, term, want_events=node.watches.active)))
                continue
            node.applies.run(
                store.apply_slices(run, want_events=node.watches.active, evaluated=node.writes.prepared),
                partial(self._applied_run, run))

    def _applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        self._node.applied_run(run, applied)
        if applied.grown:
            self._look()

    def replaced(self) -> None:
        self._look()

    def _look(self) -> None:
        if self._node.upkeep.growing.growth.level >= BIRTHS and not self._over:
            self._over = True
            self._orders_from_here()

    def covers(self, voters: Collection[int], last: int) -> bool:
        return True
