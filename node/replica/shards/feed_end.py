"""A node's end of the feed: which node 0 it takes the order's records from, and what it tells that node.

Its own host's node 0 comes first, another's while that is down, stands or knows no sequencer (H13). The link
says which member leads shard 0, and how far that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster.order.following.feed_queue import FeedQueue
from cluster.order.following.source import FeedSource
from cluster.order.log import cut_of
from cluster.order.sound import Place, sound
from cluster.raft import Role
from cluster.wire.frames import ORDER_INDEX, STATE_WANTED
from cluster.wire.messages import (
    ALL_HASTE,
    FEED_ACK_BODY,
    FEED_BODY,
    FEED_HEAD,
    NO_HASTE,
    OWN_HASTE,
    Method,
    Status,
)
from node.any_node import AnyNode
from node.links.siblings import NodeLink
from node.replica.pacing.pauses import LateFeedTimer
from node.replica.shards.feed import ACK_BYTES

if TYPE_CHECKING:

    from cluster.order.following.placing import Placing
    from cluster.order.leading.shard_leader import ShardLeader
    from node.links.peers import Peers
    from node.links.siblings import NodeLinks
    from node.links.standing import Standing
    from node.members.roster import Roster
    from node.replica.shards.fates import Fates
    from node.serving.reads import Reads
    from node.serving.watch.watches import WatchSource

log = structlog.get_logger("shard")

_ACK_EVERY = 200


class FeedEndNode(AnyNode, Protocol):
    roster: Roster
    peers: Peers
    reads: Reads
    watches: WatchSource
    standing: Standing
    order_index: int
    wanted_revision: int
    hurried_until: float
    stopping: bool


class FeedEndRole(Protocol):
    links: NodeLinks
    leading: ShardLeader[Any] | None
    fates: Fates
    placing: Placing

    @property
    def node(self) -> FeedEndNode: ...

    @property
    def members_change(self) -> bool:
        """Whether a new change of members waits for what is durable here."""


class FeedEnd:
    def __init__(self, role: FeedEndRole) -> None:
        node: FeedEndNode = role.node
        common = node.settings.common
        self._node, self._role, self._loop = node, role, node.loop
        self.queue = FeedQueue(node.order_index)
        self.source = FeedSource(common.member_id, common.election_timeout_ms / 1000)
        self.late = LateFeedTimer(node.loop, self._unseen, node.wake)
        self.link: NodeLink | None = None
        self.switches: Callable[[], bool] = lambda: False  # whether a move's switch is near
        # the last acknowledgement: on which link, and what
        self._said: tuple[NodeLink | None, int, int, int] = (None, 0, 0, ALL_HASTE)
        self._unacknowledged = 0  # bytes of projections applied since then

    # -- records

    def subscribe(self) -> None:
        """Take the feed from the own host's node 0, or from another's while that is down (H13)."""
        members, source = self._members, self.source
        now, better, link = self._loop.time(), 0, self.link
        if link is not None and link.alive:
            home = self._role.links.get(self._node.settings.common.member_id, 0)
            source.look(link.commit, link.applied, now)
            source.look_home(home.applied, self._node.order_index, now)
            better = source.better(link.member_id, bool(link.leader), members, self._does_well, now)
            if not better:
                return
            link.drop("another host's feed is better now")
        elif link is not None:
            source.failed(link.member_id, now)
        self.queue.again()
        link = self.link = self._role.links.get(source.chosen(better, members, now), 0)
        wanted = FEED_BODY.pack(self._node.settings.shard, self.queue.next)
        link.request(Method.FEED, wanted, self._fed(link), stays=True)

    @property
    def _members(self) -> list[int]:
        """The hosts whose node 0 may have records: the own host's even if it was removed. A host that was
        forced to go on alone learns from its own order log that it is a member again."""
        return [self._node.settings.common.member_id, *self._node.roster.others]

    def _does_well(self, member_id: int) -> bool:
        """Whether a member's node 0 knows a sequencer, and may have what comes next here: it does, where this
        feed stands. While this feed does well, home alone is asked about, and how level it is tells that."""
        known, link, stands = self._role.links.get(member_id, 0), self.link, self.source.stands
        well = link is not None and link.leader > 0 and not stands
        return known.up and known.leader > 0 and (well or known.applied >= self._node.order_index + stands)

    def _fed(self, link: NodeLink) -> Callable[[int, bytes], bool]:
        def fed(status: int, body: bytes) -> bool:
            if link is not self.link:
                return True
            if status != Status.PARTIAL:
                self.source.kept_no_more(link.member_id, self._loop.time())
                link.drop("it does not keep the order records wanted here")
                return True
            order_index, term, in_log = FEED_HEAD.unpack_from(body)
            projection = sound(body[FEED_HEAD.size :], Place.FED)
            if not self.queue.due(order_index, projection):
                link.drop(f"order record {order_index} where {self.queue.next} was due")
                return True
            self.source.fed()
            cut = cut_of(projection, self._node.settings.shard)
            self.queue.add((order_index, term, projection, cut, in_log))
            if cut is not None:
                self._node.raft.prove_committed(cut.index, cut.term)  # C6: before the tick that applies it
            return not self.may_wait()

        return fed

    def may_wait(self) -> bool:
        """Whether what has come may be applied later."""
        return self.late.may_wait(len(self.queue), self._changes)

    def _changes(self) -> int:
        applied = self._role.placing.fold.cut(self._node.settings.shard)
        return self.queue.count(self._node.raft.announced_index) - applied.count

    def _unseen(self) -> bool:
        """Whether no request here waits for what the feed brings."""
        node = self._node
        return (node.raft.role is Role.FOLLOWER and self.haste() == NO_HASTE and not len(self._role.fates)
                and node.standing.ready and not len(node.reads.waiting) and not node.stopping)

    def replaced(self) -> None:
        self.queue.skipped_to(self._node.order_index)
        self.source.fed()
        if self.link is not None:
            self.link.drop("a snapshot was installed")
        self.subscribe()

    # -- a peer's state, where no feed has what comes next

    @property
    def starved(self) -> bool:
        return self.source.wants_state(len(self._members), self._loop.time())

    def ask_for_state(self) -> None:
        """While starved: ask a peer for its state (H8). A leader hands over first (H13)."""
        if self.starved:
            self.ask_peers_for_state("no host keeps the next order records")

    def ask_peers_for_state(self, reason: str) -> None:
        node = self._node
        if node.raft.role is Role.LEADER:
            return
        peers = [node.raft.leader_id] if node.raft.leader_id else []
        peers += [m for m in node.roster.others if m not in peers]
        for peer in peers:
            if node.peers.send(peer, STATE_WANTED, ORDER_INDEX.pack(node.order_index)):
                log.info("asked a peer for its state", reason=reason, peer=f"{peer:x}",
                         order_index=node.order_index)
                return

    # -- what node 0 is told

    def haste(self) -> int:
        """How soon this node wants the order's records (``node.replica.shards.feed``)."""
        node = self._node
        if (node.watches.active or self._loop.time() < node.hurried_until
                or node.store.revision < node.wanted_revision or self._role.members_change
                or self.switches()):
            return ALL_HASTE
        return OWN_HASTE if self._role.leading is not None else NO_HASTE

    def hasten(self, haste: int) -> None:
        """Tell node 0 at once if records are wanted sooner than it knows."""
        if haste > self._said[3]:
            self.acknowledge()

    def applied(self, last: int, size: int) -> None:
        """Records up to ``last``, of ``size`` bytes, are applied."""
        self._unacknowledged += size
        if last - self._said[1] >= _ACK_EVERY or self._unacknowledged >= ACK_BYTES:
            self.acknowledge()

    def acknowledge(self, *, soon: bool = True) -> None:
        """Tell node 0 how far this node is. Not ``soon``: only if more than the applied index is new."""
        link, node = self.link, self._node
        said = (link, node.order_index, node.store.durable_position.order_index, self.haste())
        before = self._said
        if link is not None and link.alive and said != before and (
                soon or said[2:] != before[2:] or link is not before[0]):
            self._said, self._unacknowledged = said, 0
            link.request(Method.FEED_ACK, FEED_ACK_BODY.pack(*said[1:]))

    # -- what node 0 says

    @property
    def order_known(self) -> bool:
        """Whether the feed's node 0 keeps committed records that are not applied here."""
        link = self.link
        return (link is not None and link.alive and link.up and link.commit > self._node.order_index
                and not self.source.starved)

    @property
    def sequencer(self) -> int:
        """The member that leads shard 0; 0 if none is known or the feed is dead."""
        link = self.link
        return link.leader if link is not None and link.alive and link.up else 0

    def reachable_sequencer(self) -> int:
        """The sequencer if this node has a link to it that is up; otherwise 0."""
        sequencer = self.sequencer
        link = self._role.links.find(sequencer, 0) if sequencer else None
        return sequencer if link is not None and link.up else 0
