"""A node's clock: it ticks when something is due, not at an interval (D12).

Due are Raft's deadlines, a heartbeat's work, a second's work, and the STATE by which links know that this
node lives. A tick each 20 ms and a STATE each heartbeat were most of the cost of an idle host (decision
19).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cluster.settings import Common
from node.any_node import AnyNode

if TYPE_CHECKING:
    from node.links.standing import Standing
    from node.replica.roles.role import Role
    from node.replica.writes import Writes

_READ_S = 0.001  # until a loop has looked at its sockets


def signs_of_life_ms(common: Common) -> int:
    """How often idle links show that they live: four times in the timeout that ends them. Groups of shards
    other than 0 do so too; shard 0's keeps the configured interval."""
    return max(
        common.heartbeat_interval_ms, min(3 * common.heartbeat_interval_ms, common.election_timeout_ms // 4)
    )


class ClockNode(AnyNode, Protocol):
    writes: Writes
    standing: Standing
    role: Role


class Clock:
    """Of one node. The work of each heartbeat and second is done in the order of its registration."""

    def __init__(self, node: ClockNode) -> None:
        common = node.settings.common
        self._node = node
        # no request waits for this node: a heartbeat's work is done as seldom as STATE is sent
        self.calm = False
        self._interval_s = common.heartbeat_interval_ms / 1000
        self._held_ms = common.election_timeout_ms // 2
        self._state_s = signs_of_life_ms(common) / 1000
        self.late = 0  # heartbeats of a leader that were an interval late
        self._next_heartbeat = 0.0
        self._next_state = 0.0
        self._next_second = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeats: list[Callable[[], None]] = []
        self._seconds: list[Callable[[], None]] = []
        self._due_ms = 0  # when the timer goes off, as far as Raft is concerned

    def each_heartbeat(self, call: Callable[[], None]) -> None:
        self._heartbeats.append(call)

    def each_second(self, call: Callable[[], None]) -> None:
        self._seconds.append(call)

    def start(self) -> None:
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Raft's deadline may have moved forward."""
        due_ms = self._node.raft.next_deadline()
        if due_ms < self._due_ms and self._timer is not None:
            self._timer.cancel()
            self._arm(due_ms, self._node.now_ms(), self._node.loop.time())

    def state_said(self) -> None:
        self._next_state = self._node.loop.time() + self._state_s

    def _tick(self) -> None:
        if self._due_ms and self._node.now_ms() - self._due_ms > self._held_ms:
            # The loop was held. Peers' frames are read first: then a follower need not campaign, nor a leader
            # step down.
            self._timer = self._node.loop.call_later(_READ_S, self._tick_now)
        else:
            self._tick_now()

    def _tick_now(self) -> None:
        node, interval = self._node, self._interval_s
        now, now_ms = node.loop.time(), node.now_ms()
        node.raft.tick(now_ms)
        if now >= self._next_heartbeat - interval / 4:  # together with what Raft's clock woke this up for
            if node.writes.leader is not None and now > self._next_heartbeat + interval:
                self.late += 1
            self._next_heartbeat = now + (self._state_s if self.calm else interval)
            if now >= self._next_state - interval / 2:
                node.standing.say_state()
            for call in self._heartbeats:
                call()
        if now >= self._next_second:
            self._next_second = now + 1.0
            for call in self._seconds:
                call()
        self._arm(node.raft.next_deadline(), now_ms, now)
        node.wake()

    def _arm(self, raft_due_ms: int, now_ms: int, now: float) -> None:
        due = min(self._next_heartbeat - now, (raft_due_ms - now_ms) / 1000)
        links = self._node.role.links
        if links is not None and links.dirty:  # no event tells that a connection is made
            due = min(due, self._interval_s / 5)
        due = max(due, 0.001)
        self._due_ms = now_ms + math.ceil(due * 1000)
        self._timer = self._node.loop.call_later(due, self._tick)
