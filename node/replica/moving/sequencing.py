"""Shard 0's part in moves: while it leads, the sequencer's; and the writes that are not its own any more.

A write that touches what a switch is about to take from shard 0 waits for its end
(``cluster.order.moving.hold``). What was queued and has left by then goes to its new owner, by way of the
coordinator (G7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from cluster.evaluate.replica import Leader
from cluster.features.auth.principal import SAID, Principal, named
from cluster.order.leading.own_keys import OwnKeys
from cluster.order.moving.hold import Hold
from cluster.order.moving.mover import Copied, Hosts, Mover
from cluster.order.prepare import Base
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.reports import Reports
from cluster.placement import Placement
from cluster.raft import Raft
from cluster.wire.messages import OF_KEYS
from node.links.fronts import FrontLink

if TYPE_CHECKING:
    from node.replica.writes import Request, Writes

_WIDE_MS = 5000  # a write that waited here, and is another's by now


class SequencingRole(Protocol):
    placement: Placement
    reports: Reports
    raft: Raft
    writes: Writes

    @property
    def coordinator(self) -> Coordinator[Any] | None: ...
    @property
    def sequencing(self) -> bool: ...
    def wide(
        self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes,
        who: Principal | None = None,
    ) -> None: ...


class Moves(ABC):
    """Of one node 0."""

    def __init__(
        self, role: SequencingRole, kind: type[Mover], now_ms: Callable[[], int], election_ms: int
    ) -> None:
        self._role = role
        self._kind = kind
        self._now_ms = now_ms
        self._election_ms = election_ms
        self.mover: Mover | None = None  # while this node sequences
        self._held_by: Hold | None = None  # what is held was looked at with it
        self._own: OwnKeys | None = None  # None: no key has ever moved, or is about to
        self._news = False  # the table has changed since the queue was looked at

    @abstractmethod
    def copied(self, base: Base) -> bool:
        """Whether this host's copy is so far, where shard 0 is the target."""

    @abstractmethod
    def countable(self) -> bool:
        """Whether shard 0's keys are counted without walking them."""

    # -- the sequencer

    def begin(self, leader: Leader, coordinator: Coordinator[Any]) -> None:
        """This node begins to sequence."""
        self.mover = leader.told.moving = self._kind(
            self._role.placement, coordinator, self.copied, countable=self.countable)

    def end(self) -> None:
        """It does not any more: what is held is refused with all else."""
        self.mover = None
        for request in self._role.writes.take_held():
            self._role.writes.submit(*request)

    def heard(self, host: int, copied: Copied) -> None:
        if self.mover is not None:
            self.mover.heard(host, copied, self._now_ms())

    def run(self) -> None:
        """Before a record is made."""
        if self.mover is not None and self._role.placement.table.move is not None:
            self.mover.run(self._now_ms(), self._hosts())

    def _hosts(self) -> Hosts:
        raft, now = self._role.raft, self._now_ms()
        live = {host for host, peer in raft.peers().items() if now - peer.heard_ms < self._election_ms}
        leaders = {**self._role.reports.reporters, 0: raft.id}
        return Hosts(raft.configuration.voters, frozenset(live | {raft.id}), leaders)

    def applied(self, order_index: int) -> None:
        """So much of the order is applied here."""
        coordinator = self._role.coordinator
        if coordinator is not None:
            coordinator.generations.applied(order_index)
            if self._role.placement.table.move is None:
                coordinator.hold = None

    def placed(self) -> None:
        """A table is applied here."""
        table = self._role.placement.table
        self._own = None if table.settled else OwnKeys(0, table)
        self._role.writes.lacks = self._own.lacks if self._own is not None else None
        self._news = True

    # -- what is not shard 0's, or perhaps not for long

    def has_left(self, method: int, body: bytes) -> bool:
        """Whether a write is another shard's by now."""
        return self._own is not None and method & ~SAID in OF_KEYS and self._own.lacks(method, body)

    def sift(self) -> None:
        """Before queued writes are evaluated: what may wait, waits; what has left goes on."""
        coordinator = self._role.coordinator
        hold = coordinator.hold if coordinator is not None else None
        writes = self._role.writes
        if (hold is None and not writes.held and not self._news) or not writes.has_room:
            return  # without room none is evaluated
        held = writes.take_held() if self._news or hold is not self._held_by else []
        self._news, self._held_by = False, hold
        requests = [*held, *writes.take_queued()]
        kept: list[Request] = []
        for request in requests:
            link, rid, method, body = request
            if method & ~SAID not in OF_KEYS:
                kept.append(request)
            elif hold is not None and hold.holds(*named(method, body)[1:]):
                writes.held.append(request)
            elif self.has_left(method, body):
                who, inner, asked = named(method, body)
                writes.goes_on(link, rid)
                self._role.wide(link, rid, inner, _WIDE_MS, asked, who)
            else:
                kept.append(request)
        writes.put_back(kept)

    def facts(self) -> dict[str, Any]:
        """``move``: of the one under way, while this node sequences (G15)."""
        found = self.mover.facts() if self.mover is not None else {}
        return {"move": found} if found else {}
