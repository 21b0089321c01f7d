"""A shard's leader gives its leadership away: to where leaders are wanted, or to a node that makes progress.

Placement (``cluster.leader_placement``) is decided every second, from what Raft knows of the group, where the
sequencer is, and what the wanted member last answered (frame ``L``): how far it is in the order, and whether
it has a live feed.

H13: what this leader has committed must be in a cut within an election timeout. If it is not, its feed or
its way to the sequencer is dead while its group is well, and no election would follow. It asks its peers
(frame ``L``) whether they have a live feed and a way to the sequencer, and hands over to the first that
has, with back-off. A leader whose next order record is kept nowhere does the same. While there is no
sequencer no peer has a way to it, and the leader stays. A long apply excuses it for a while.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster.leader_placement import MAX_LAG, BackOff, Candidate, LeaderPlacement
from cluster.order.following.stuck import Stuck
from cluster.raft import Role
from cluster.wire.frames import PeerKind
from node.any_node import AnyNode

if TYPE_CHECKING:
    from cluster.order.following.placing import Placing
    from cluster.order.leading.shard_leader import ShardLeader
    from node.links.peers import Peers
    from node.replica.shards.feed_end import FeedEnd

log = structlog.get_logger("handover")

FRAME = PeerKind.HAND_OVER.byte
_QUESTION, _ANSWER = b"?", b"!"
_LIVE = struct.Struct("<cQQ")  # answer, sequencer it can reach (0: none), order index applied


class HandOverNode(AnyNode, Protocol):
    peers: Peers
    order_index: int
    stopping: bool

    def catch_up(self) -> None: ...


class HandOverRole(Protocol):
    leading: ShardLeader[Any] | None
    placing: Placing
    feed: FeedEnd

    @property
    def node(self) -> HandOverNode: ...


class HandOver:
    def __init__(self, role: HandOverRole, policy: str) -> None:
        node: HandOverNode = role.node
        common = node.settings.common
        self._node, self._role = node, role
        self._placement = LeaderPlacement(
            policy, node.settings.shard, common.member_id, settle_ms=2 * common.election_timeout_ms)
        self._pauses = BackOff(5 * common.election_timeout_ms)
        self._election_ms = common.election_timeout_ms
        self._stuck = Stuck(common.election_timeout_ms)
        self._order_lags: dict[int, int] = {}  # members with a live feed, as they said since the last second
        self.moved = 0

    def _candidates(self) -> list[Candidate]:
        raft, now = self._node.raft, self._node.now_ms()
        voters = raft.configuration.voters  # a member on its way out is still heard, and cannot lead
        return [
            Candidate(member_id, now - peer.heard_ms < self._election_ms, raft.last_index - peer.match,
                      self._order_lags.get(member_id))
            for member_id, peer in raft.peers().items() if member_id in voters
        ]

    def second(self) -> None:
        """Every second: is the leader where it is wanted?"""
        node = self._node
        if node.raft.role is not Role.LEADER:
            self._placement.resigned()
        elif self._role.leading is not None and self._role.leading.serving and not node.raft.transferring:
            target = self._placement.decide(node.now_ms(), self._role.feed.sequencer, self._candidates())
            if target:
                self._hand_over(target, "leaders are wanted there")
            elif self._placement.wish != node.settings.common.member_id:
                node.peers.send(self._placement.wish, FRAME, _QUESTION)
        self._order_lags.clear()

    def heartbeat(self) -> None:
        """Every heartbeat: is what this leader committed put in order?"""
        node, role = self._node, self._role
        now = node.now_ms()
        report = role.leading.report(node.raft.commit_index) if role.leading is not None else None
        cut = role.placing.fold.cut(node.settings.shard)
        committed = (report.term, report.index) if report is not None else None
        stuck = self._stuck.look(
            committed, (cut.term, cut.index), node.order_index, role.feed.order_known, now,
            starved=role.feed.starved)
        if stuck and self._pauses.ready(now) and not node.raft.transferring:
            for candidate in self._candidates():
                if candidate.heard and candidate.lag <= MAX_LAG:
                    node.peers.send(candidate.member_id, FRAME, _QUESTION)

    def frame(self, peer: int, data: bytes) -> None:
        """A question or an answer of another member of the group. ValueError."""
        node = self._node
        if data == _QUESTION:
            if node.stopping:
                return  # it must not lead any more
            node.catch_up()
            sequencer = self._role.feed.reachable_sequencer()
            node.peers.send(peer, FRAME, _LIVE.pack(_ANSWER, sequencer, node.order_index))
            return
        if len(data) != _LIVE.size:
            raise ValueError("a hand-over frame of a wrong size")
        _, sequencer, order_index = _LIVE.unpack(data)
        if not sequencer:
            return
        self._order_lags[peer] = node.order_index - order_index
        now = node.now_ms()
        helps = self._role.leading is not None and self._stuck.helped_by(order_index, node.order_index, now)
        if helps and self._pauses.ready(now) and not node.raft.transferring:
            self._pauses.tried(now)
            self._hand_over(peer, "what is committed here is not put in order, and that host has a live feed")

    def _hand_over(self, target: int, reason: str) -> None:
        node = self._node
        if node.raft.role is not Role.LEADER or target not in node.raft.configuration.voters:
            return  # deposed in this tick, or the target must not lead any more
        self.moved += 1
        log.info("handing over leadership", shard=node.settings.shard, to=f"{target:x}", reason=reason)
        node.raft.transfer_leadership(target)
        node.wake()
