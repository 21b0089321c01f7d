"""A node's end of the feed: from whose node 0 it takes the order's records, and what it says to it.

The own host's node 0 is taken first, another's while that is down or knows no sequencer (H13). What it hears
besides records, who leads shard 0 and how far that is, stands in the link.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.order.following.feed_queue import FeedQueue
from cluster.order.following.source import FeedSource
from cluster.order.log import cut_of
from cluster.order.sound import Place, sound
from cluster.raft import Raft, Role
from cluster.settings import NodeSettings
from cluster.wire.frames import PeerKind
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
from node.links.siblings import NodeLink
from node.replica.pauses import LateFeedTimer
from node.replica.shards.feed import ACK_BYTES

if TYPE_CHECKING:
    import asyncio

    from node.links.peers import Peers
    from node.links.standing import Standing
    from node.members.roster import Roster
    from node.replica.shards.shard_role import ShardRole
    from node.serving.reads import Reads
    from node.serving.watches import WatchSource
    from node.storage import StateStore

log = structlog.get_logger("shard")

_ACK_EVERY = 200
STATE_WANTED = PeerKind.STATE_WANTED.byte
ORDER_INDEX = struct.Struct("<Q")


class FeedEndNode(Protocol):
    """What an end of the feed needs of its node."""

    settings: NodeSettings
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore
    roster: Roster
    peers: Peers
    reads: Reads
    watches: WatchSource
    standing: Standing
    order_index: int
    wanted_revision: int
    hurried_until: float
    stopping: bool

    def wake(self) -> None:
        """Have a tick run."""


class FeedEnd:
    """Of one node."""

    def __init__(self, role: ShardRole) -> None:
        node: FeedEndNode = role.node
        common = node.settings.common
        self._node, self._role, self._loop = node, role, node.loop
        self.queue = FeedQueue(node.order_index)
        self.source = FeedSource(common.member_id, common.election_timeout_ms / 1000)
        self.late = LateFeedTimer(node.loop, self._unseen, node.wake)
        self.link: NodeLink | None = None
        # to whom this node said last how far it is, and what
        self._said: tuple[NodeLink | None, int, int, int] = (None, 0, 0, ALL_HASTE)
        self._unacknowledged = 0  # bytes of projections applied since then

    # -- records

    def subscribe(self) -> None:
        """Take the feed from the own host's node 0, or from another's while that is down (H13)."""
        members, source = [p.member_id for p in self._node.roster.table.peers], self.source
        now, better, link = self._loop.time(), 0, self.link
        if link is not None and link.alive:
            better = source.better(link.member_id, bool(link.leader), members, self._knows_a_sequencer, now)
            if not better:
                return
            link.drop("another host's feed is better now")
        elif link is not None:
            source.failed(link.member_id, now)
        self.queue.again()
        link = self.link = self._role.links.get(source.chosen(better, members, now), 0)
        wanted = FEED_BODY.pack(self._node.settings.shard, self.queue.next)
        link.request(Method.FEED, wanted, self._fed(link), stays=True)

    def _knows_a_sequencer(self, member_id: int) -> bool:
        known = self._role.links.get(member_id, 0)
        return known.up and known.leader > 0

    def _fed(self, link: NodeLink) -> Callable[[int, bytes], bool]:
        def fed(status: int, body: bytes) -> bool:
            if link is not self.link:
                return True
            if status != Status.PARTIAL:
                # what comes next is not kept there any more: another host may have it, or a snapshot must do
                self.source.kept_no_more(link.member_id, self._loop.time())
                link.drop("it does not keep the order records wanted here")
                return True
            order_index, term, in_log = FEED_HEAD.unpack_from(body)
            if order_index != self.queue.next:
                link.drop(f"order record {order_index} where {self.queue.next} was due")
                return True
            self.source.fed()
            projection = sound(body[FEED_HEAD.size :], Place.FED)
            cut = cut_of(projection, self._node.settings.shard)
            self.queue.add((order_index, term, projection, cut, in_log))
            if cut is not None:
                # C6: then the tick that applies it finds it committed
                self._node.raft.prove_committed(cut.index, cut.term)
            return not self.late.may_wait(len(self.queue))

        return fed

    def _unseen(self) -> bool:
        """Whether nobody waits here for what the feed brings."""
        node = self._node
        return (node.raft.role is Role.FOLLOWER and self.haste() == NO_HASTE and self._role.no_fate_is_open
                and node.standing.ready and not len(node.reads.waiting) and not node.stopping)

    def replaced(self) -> None:
        """Another state was installed: the next feed begins behind it."""
        self.queue.skipped_to(self._node.order_index)
        self.source.fed()
        if self.link is not None:
            self.link.drop("a snapshot was installed")
        self.subscribe()

    # -- a peer's state, where no feed has what comes next

    def ask_for_state(self) -> None:
        """Nobody keeps the order records that come next: a peer's state must do (H8)."""
        node = self._node
        if not self.source.wants_state(len(node.roster.table.peers), self._loop.time()):
            return
        if node.raft.role is Role.LEADER:
            return  # it hands over first, since nothing of it is put in order (H13)
        peers = [node.raft.leader_id] if node.raft.leader_id else []
        peers += [m for m in node.roster.others if m not in peers]
        for peer in peers:
            if node.peers.send(peer, STATE_WANTED, ORDER_INDEX.pack(node.order_index)):
                log.info("asked a peer for its state: the order records that come next are kept nowhere",
                         peer=f"{peer:x}", order_index=node.order_index)
                return

    # -- what node 0 is told

    def haste(self) -> int:
        """How soon this node wants the order's records (``node.replica.shards.feed``)."""
        node = self._node
        if (node.watches.active or self._loop.time() < node.hurried_until
                or node.store.revision < node.wanted_revision):
            return ALL_HASTE
        return OWN_HASTE if self._role.leading is not None else NO_HASTE

    def hasten(self, haste: int) -> None:
        """Say so at once if records are wanted sooner than node 0 knows."""
        if haste > self._said[3]:
            self.acknowledge()

    def applied(self, last: int, size: int) -> None:
        """Records up to there are applied, of so many bytes: now and then node 0 hears of it."""
        self._unacknowledged += size
        if last - self._said[1] >= _ACK_EVERY or self._unacknowledged >= ACK_BYTES:
            self.acknowledge()

    def acknowledge(self, *, soon: bool = True) -> None:
        """Tell the feed how far this node is; not ``soon``: unless only more of it is applied, which can
        wait."""
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
        """Whether more of the order is committed, as the feed's node 0 says, than is applied here, and is
        kept there."""
        link = self.link
        return (link is not None and link.alive and link.up and link.commit > self._node.order_index
                and not self.source.starved)

    @property
    def sequencer(self) -> int:
        """The member that leads shard 0, as the feed's node 0 knows it; 0 if none is known or the feed is
        dead."""
        link = self.link
        return link.leader if link is not None and link.alive and link.up else 0

    def reachable_sequencer(self) -> int:
        """The sequencer if this node can talk to it; 0 if not, or not yet."""
        sequencer = self.sequencer
        link = self._role.links.find(sequencer, 0) if sequencer else None
        return sequencer if link is not None and link.up else 0
