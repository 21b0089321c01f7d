"""The end of v2 nodes whose time is over, and of what large directories held, at shard 0's leader.

While an entry of the leader is under way, requests gather for the next one. The end of a moment's nodes has
its turn among them, as etcd logs both in the order in which they come: a refresh that came in time keeps its
node, and whoever comes later finds that it has gone. Very many nodes end some each heartbeat: no other
request is to wait for all of them. What is left of a moment that has had its turn waits for nothing more. Who
comes meanwhile still finds these nodes: a create is refused, a refresh keeps its node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster.effects import records
from cluster.features.rows import RowsOf, encode
from cluster.features.v2.changes import expire
from cluster.features.v2.tree import Tree
from node.machine import NodeMachine

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from node.replica.writes import Writes

_AT_ONCE = 1024  # nodes that end in one go, at most: 10 ms each heartbeat interval


class EndsNode(Protocol):
    machine: NodeMachine
    writes: Writes

    def wake(self) -> None: ...


class Ends:
    def __init__(self, node: EndsNode) -> None:
        self._node = node
        self._of: Leader | None = None  # the term that the moments are of: a lost one's turn never comes
        self._came_ns = self._waits_ns = 0  # moments: that has had its turn, and that waits for it
        self._left = False  # whether the last turn, at most ``_AT_ONCE`` a time, has not ended all

    def look(self, tree: Tree) -> None:
        """Every heartbeat interval. ``tree``: as applied here."""
        writes = self._node.writes
        leader = writes.leader
        if leader is not self._of:
            self._of, self._came_ns, self._waits_ns, self._left = leader, 0, 0, False
        if leader is not None:
            self._look(tree, leader)
            self._log_refusals(leader)  # behind what ends, whose entry takes them along

    def _look(self, tree: Tree, leader: Leader) -> None:
        writes = self._node.writes
        now_ns = int(self._node.machine.wall_time() * 1e9)
        # clocks may be put back, also while nothing is due
        self._came_ns, self._waits_ns = min(self._came_ns, now_ns), min(self._waits_ns, now_ns)
        first_ns = tree.next_expiry_ns
        due = first_ns is not None and first_ns <= now_ns
        if not (due or tree.going):
            return
        logged = leader.v2
        # a TTL that wraps is over before that moment, though it came later: it takes a turn as all do
        left = self._left and logged.due(self._came_ns)
        if logged.due(now_ns) and not left and not self._waits_ns:
            self._waits_ns = now_ns
            writes.in_turn(self._turn)
            self._node.wake()
        elif (left or logged.going) and (writes.has_room or not leader.dirty):
            # else what was logged the last time has not left: the entry is not to grow
            self._end(leader)
            self._node.wake()

    def _log_refusals(self, leader: Leader) -> None:
        """What no change logged along: replicas learn it, and it outlives this term."""
        tree = leader.counted
        if tree is not None and tree.uncounted and (self._node.writes.has_room or not leader.dirty):
            leader.append(records.rows(encode(RowsOf.V2, leader.v2.counters())))
            self._node.wake()

    def _turn(self, leader: Leader) -> int:
        self._came_ns, self._waits_ns = self._waits_ns, 0
        return self._end(leader)

    def _end(self, leader: Leader) -> int:
        """Returns the bytes to be logged."""
        rows = expire(leader.v2, self._came_ns, _AT_ONCE)
        self._left = leader.v2.due(self._came_ns)
        if not rows:
            return 0
        if leader.v2.uncounted:  # what a directory held goes without the counters
            rows += leader.v2.counters()
        item = records.rows(encode(RowsOf.V2, rows))
        leader.append(item)  # H7: decided and appended in one and the same term
        return len(item)
