"""Large writes at a leader: while there are other requests, it rests between them
(``cluster.pacing.resting``).

This stands between the fronts' links and admission. Fronts have a window each (``proxy.routing.in_turn``);
a leader sees the writes of all hosts. Transactions over several shards are left out: their shards are only
known later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cluster.features.auth.principal import SAID
from cluster.pacing.resting import LARGE_BYTES, Resting
from cluster.wire.messages import Method
from node.any_node import AnyNode
from node.kinds import QUESTIONS, WRITES
from node.links.fronts import FrontLink, Request

if TYPE_CHECKING:
    from node.replica.roles.role import Role

_WATCHED_S = 10.0  # other requests are noted for so long after the last large write
# a client's request, for one shard or for several
_ASKS = WRITES | QUESTIONS | frozenset(map(int, (Method.LONE, Method.WIDE, Method.LEASE_REVOKE)))


class LargeNode(AnyNode, Protocol):
    role: Role
    applied_index: int


class LargeWrites:
    def __init__(self, node: LargeNode, pass_on: Callable[[FrontLink, list[Request]], None]) -> None:
        self._node = node
        self._pass_on = pass_on
        self._resting: Resting[tuple[FrontLink, Request]] = Resting()
        self._through: int | None = None  # the log's end with all that is under way
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms = 0.0  # its end
        self._watched_until = 0.0
        self.held = 0  # that had to wait
        self.large_bytes = LARGE_BYTES

    def requests(self, link: FrontLink, requests: list[Request]) -> None:
        """A frame of a front, or of another shard's node."""
        if link.watches:
            if self._watched_until:
                self._hear(requests)
            if max([len(body) for *_, body in requests]) > self.large_bytes and self._node.raft.is_leader:
                requests = [request for request in requests if not self._holds(link, request)]
        if requests:
            self._pass_on(link, requests)

    def _hear(self, requests: list[Request]) -> None:
        now, least = self._node.loop.time(), self.large_bytes
        if now >= self._watched_until:
            self._watched_until = 0.0
        elif any(len(body) <= least and method & ~SAID in _ASKS for _, method, _, body in requests):
            self._resting.heard(now * 1000)

    def _holds(self, link: FrontLink, request: Request) -> bool:
        _, method, _, body = request
        if len(body) <= self.large_bytes or method & ~SAID not in WRITES:
            return False
        now = self._node.loop.time()
        self._watched_until = now + _WATCHED_S
        if self._resting.enter(len(body), (link, request), now * 1000):
            self._through = None
            return False
        self.held += 1
        self._go_on(now * 1000)  # as a rule none may
        return True

    def look(self) -> None:
        node, resting = self._node, self._resting
        if not (resting.used or len(resting)):
            return
        if not node.raft.is_leader:
            self._through = None
            for link, request in resting.drain():
                self._pass_on(link, [request])  # which answers NOT_LEADER
            node.wake()
            return
        if not resting.used:
            return
        now = node.loop.time()
        if self._through is None and (not node.role.queued or resting.is_overdue(now * 1000)):
            self._through = node.raft.last_index  # with a queue that never empties, they are logged by then
        if self._through is not None and node.applied_index >= self._through:
            self._through = None
            resting.ended(now * 1000)
            self._go_on(now * 1000)

    def _go_on(self, now_ms: float) -> None:
        resting = self._resting
        while (found := resting.next(now_ms)) is not None:
            link, request = found
            self._through = None
            if link.awaits(request[0]):
                self._pass_on(link, [request])
            self._node.wake()
        self._await_rest(now_ms)

    def _await_rest(self, now_ms: float) -> None:
        """Nothing is under way whose end would start the next one: the rest's end does."""
        resting = self._resting
        if self._timer is None and len(resting) and not resting.used:
            self._due_ms = resting.until_ms
            self._timer = self._node.loop.call_later(max(self._due_ms - now_ms, 0.0) / 1000, self._rested)

    def _rested(self) -> None:
        self._timer = None
        # a clock in seconds may round to just before the end, again and again
        self._go_on(max(self._node.loop.time() * 1000, self._due_ms))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
