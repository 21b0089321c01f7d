"""The feed: committed order records, from a host's node 0 to the nodes of the other shards.

A node asks any host's node 0 for the records from an index on, its own host's first (H13): the content is the
same everywhere. Records leave as projections (``cluster.order.log.project``) in contiguous order, as far as
the receiver's acknowledgements leave room. A record leaves at once to the nodes that are in haste for it: a
shard's leader for its own cuts, transactions and control records; a node with reads or watches for all of
them. Other nodes get it with those of the next 50 ms, in one frame. ``node.upkeep.log.floors`` says which
records are kept: a node that fell behind them installs a snapshot. For a shard without a majority, more is
kept in files, which are sent first (``node.upkeep.space.keeping``).

All feeds together read ``_TURN_BYTES`` from the log in one turn of the loop: a node that is far behind
must not take the loop from the sequencer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.order.log import project
from cluster.order.passing import KeptRecord
from cluster.order.sound import Place, sound
from cluster.raft import EntryKind
from cluster.wire.frames import PASSED_SINCE
from cluster.wire.messages import ALL_HASTE, FEED_ACK_BODY, FEED_BODY, FEED_HEAD, NO_HASTE, OWN_HASTE, Status
from node.any_node import AnyNode
from node.links.fronts import FrontLink
from node.replica.shards.alone import Alone
from node.upkeep.log.floors import Floors

if TYPE_CHECKING:

    from node.storage import RaftLog
    from node.upkeep.space.keeping import Keeping

_LATE_S = 0.05
_WINDOW = 2000  # records sent beyond the acknowledged one
_WINDOW_BYTES = 8 << 20  # of projections beyond it, or one record; a receiver acknowledges each quarter
ACK_BYTES = _WINDOW_BYTES // 4
_RUN = 128  # records read from the log at once
_RUN_BYTES = 1 << 20
_TURN_BYTES = 2 << 20  # of records read in a turn of the loop: 2 ms a MiB, where the log's cache lacks them
_RECORD_BYTES = 4 << 10  # what the smallest record counts, for what it costs besides its bytes
_MARK_BYTES = 256 << 10
_LARGE_BYTES = 64 << 10  # of a record that is not judged again for each use: 5 ms


@dataclass(slots=True, eq=False)
class Feed:
    link: FrontLink
    rid: int
    shard: int
    next_index: int
    acked: int
    haste: int = ALL_HASTE
    sent_bytes: int = 0  # of projections, in all
    acked_bytes: int = 0  # of these, acknowledged, to within a mark
    marks: deque[tuple[int, int]] = field(default_factory=deque)  # (record, bytes sent up to it)
    kept: deque[KeptRecord] = field(default_factory=deque)  # read from a file, and not sent yet

    def sent(self, index: int, size: int) -> None:
        self.sent_bytes += size
        self.next_index = index + 1
        if self.sent_bytes - (self.marks[-1][1] if self.marks else self.acked_bytes) >= _MARK_BYTES:
            self.marks.append((index, self.sent_bytes))

    def acknowledged(self, index: int) -> None:
        self.acked = index
        while self.marks and self.marks[0][0] <= index:
            self.acked_bytes = self.marks.popleft()[1]
        if index >= self.next_index - 1:
            self.acked_bytes = self.sent_bytes

    @property
    def has_room(self) -> bool:
        return self.sent_bytes - self.acked_bytes < _WINDOW_BYTES


class FeedsNode(AnyNode, Protocol):
    log: RaftLog
    applied_index: int
    dirty: set[FrontLink]


class Feeds:
    """All feeds from this node 0."""

    def __init__(self, node: FeedsNode) -> None:
        self._node = node
        self._feeds: dict[FrontLink, Feed] = {}
        self._projected: dict[tuple[int, int], bytes] = {}
        self.floors = Floors(node.settings.common.member_id, node.settings.common.shard_count)
        self.alone = Alone(node.settings.common.shard_count)
        self.keeping: Keeping | None = None
        self._late_scheduled = False
        self._read_bytes = 0  # since the last turn that was taken for what was left
        self._left: dict[Feed, None] = {}  # feeds with records for the next turn, in order
        self.records = 0
        self._sound: dict[int, bytes] = {}  # large records that were applied last, as far as they are sound

    def follow(self, shards: Sequence[int], forming: int = 0) -> None:
        """The cluster has these shards now. ``forming``: records are kept for it, too (I17); 0: none does."""
        self.floors.follow((*shards, forming))
        self.alone.follow(shards)

    def judged(self, index: int, data: bytes) -> None:
        """A record is about to be applied; ``data``: its sound part, which is sent soon."""
        if len(data) >= _LARGE_BYTES:
            self._sound[index] = data

    def subscribe(self, link: FrontLink, rid: int, body: bytes) -> None:
        """FEED: send records from an index on; Compacted if they are not kept any more."""
        shard, first = FEED_BODY.unpack(body)
        if first <= self._node.log.snapshot_position().index and not self._is_kept(link, shard, first):
            link.answer(rid, Status.ERROR, EtcdError(errors.COMPACTED).encode())
            self._node.mark_dirty(link)
            return
        feed = self._feeds[link] = Feed(link, rid, shard, first, first - 1)
        self.push(feed)
        self._projected.clear()

    def acknowledge(self, link: FrontLink, body: bytes) -> None:
        """FEED_ACK: how far the node is."""
        feed = self._feeds.get(link)
        if feed is not None:
            applied, durable, feed.haste = FEED_ACK_BODY.unpack(body)
            feed.acknowledged(applied)
            if link.local:
                self.floors.own_is(feed.shard, durable)
                self.alone.said(feed.shard, applied)
            self.push(feed)
            self._projected.clear()

    def gone(self, link: FrontLink) -> None:
        self._feeds.pop(link, None)

    def applied(self, concerned: Container[int], *, everybody: bool = False) -> None:
        """More of the order log is applied here. ``concerned``: the shards whose leaders wait for it."""
        late = False
        for feed in list(self._feeds.values()):
            if everybody or feed.haste == ALL_HASTE or (feed.haste == OWN_HASTE and feed.shard in concerned):
                self.push(feed)
            else:
                late = True
        self._projected.clear()
        if not late:
            self._sound.clear()
        elif not self._late_scheduled:
            self._late_scheduled = True
            self._node.loop.call_later(_LATE_S, self._push_late)

    def _push_late(self) -> None:
        self._late_scheduled = False
        for feed in list(self._feeds.values()):
            self.push(feed)
        self._projected.clear()
        self._sound.clear()
        self._node.wake()

    def _go_on(self) -> None:
        left, self._left = self._left, {}
        self._read_bytes = 0
        for feed in left:
            if self._feeds.get(feed.link) is feed:
                self.push(feed)
        self._projected.clear()
        self._node.wake()

    def _next_turn(self, feed: Feed) -> None:
        if not self._left:
            self._node.loop.call_soon(self._go_on)
        self._left[feed] = None

    def push(self, feed: Feed) -> None:
        """Send what there is room for, in this turn of the loop and the next ones."""
        node = self._node
        if not self._push_kept(feed):
            # truncated, or skipped by a snapshot: the node tries another host, or installs a snapshot
            self._feeds.pop(feed.link, None)
            feed.link.answer(feed.rid, Status.ERROR, EtcdError(errors.COMPACTED).encode())
            node.dirty.add(feed.link)
            return
        if feed.next_index <= node.log.snapshot_position().index:
            return  # the rest of the files follows
        last = min(node.applied_index, feed.acked + _WINDOW)
        sent = False
        while feed.next_index <= last and feed.has_room:
            if self._read_bytes >= _TURN_BYTES:
                self._next_turn(feed)
                break
            for e in node.raft.log_entries(
                feed.next_index, min(last, feed.next_index + _RUN - 1), _RUN_BYTES
            ):
                key = (e.index, feed.shard)
                piece = self._projected.get(key)
                if piece is None:
                    data = self._sound.get(e.index)
                    if data is None:
                        data = sound(e.data, Place.ORDER) if e.kind == EntryKind.RECORD else b""
                    piece = project(data, feed.shard)
                    self._projected[key] = piece
                feed.link.answer(
                    feed.rid, Status.PARTIAL, FEED_HEAD.pack(e.index, e.term, len(e.data)) + piece
                )
                feed.sent(e.index, len(piece))
                self._read_bytes += max(len(e.data), _RECORD_BYTES)
                self.records += 1
                sent = True
        if sent:
            node.dirty.add(feed.link)

    def _is_kept(self, link: FrontLink, shard: int, index: int) -> bool:
        return self.keeping is not None and link.version >= PASSED_SINCE and self.keeping.has(shard, index)

    def _push_kept(self, feed: Feed) -> bool:
        """Send from files what the log has dropped; False: they do not have it."""
        node = self._node
        while feed.next_index <= node.log.snapshot_position().index:
            if not feed.kept and not self._is_kept(feed.link, feed.shard, feed.next_index):
                return False
            if feed.next_index > feed.acked + _WINDOW or not feed.has_room:
                break
            if self._read_bytes >= _TURN_BYTES:
                self._next_turn(feed)
                break
            if not feed.kept:
                assert self.keeping is not None
                feed.kept.extend(self.keeping.records(feed.shard, feed.next_index))
                self._read_bytes += sum([len(record.items) for record in feed.kept])
            record = feed.kept.popleft()
            head = FEED_HEAD.pack(record.last, record.term, record.in_log)
            feed.link.answer(feed.rid, Status.PARTIAL, head + record.items)
            feed.sent(record.last, len(record.items))
            self._read_bytes += _RECORD_BYTES
            self.records += 1
            node.dirty.add(feed.link)
        else:
            feed.kept.clear()
        return True

    def close(self) -> None:
        """The node closes: nothing is read for a feed any more."""
        self._feeds.clear()
        self._left.clear()

    @property
    def hasty(self) -> bool:
        return any(feed.haste != NO_HASTE for feed in self._feeds.values())
