"""Links between the nodes of different shards: this node as a client of another, as a front is.

They use the sockets that serve fronts (``node.links.fronts``): own host over ipc, other hosts over tcp. A
link that is silent for an election timeout, or out of sequence, is dropped and made again with another
session. Requests on it are repeated by the parts that need the answers: all of them are idempotent
(``cluster.order.prepare``).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf

import structlog

from cluster.endpoints import ipc_endpoint, peer_endpoint
from cluster.grain import GRAIN
from cluster.members import meant
from cluster.members.origin import Origin
from cluster.repeats import Repeats
from cluster.settings import Common, Peer
from cluster.wire.frames import PeerKind
from cluster.wire.link import AskingEnd, Broken, Listening
from cluster.wire.messages import REQUEST, STATE_BODY, Status
from node.links.fronts import NODE_IDENTITY
from node.links.peer_link import ELSEWHERE_S
from node.machine import Machine

log = structlog.get_logger("links")

_FRONT = PeerKind.FRONT.byte

_HWM = 10_000
_MAX_WAITING = 1000  # requests kept while a connection is being made
_MOST_CALLBACKS = 20_000  # of a link: beyond it the oldest is forgotten, for it was repeated since


class NodeLink:
    def __init__(self, links: NodeLinks, member_id: int, shard: int) -> None:
        self.member_id = member_id
        self.shard = shard
        self.alive = True
        self.up = False
        self.refused = False  # another member is at that address
        self.leader = 0  # of its shard, as it last said
        self.term = 0
        self.commit = self.applied = 0
        self._links = links
        self._rid = 0
        self._out: list[bytes] = []
        # rid -> what takes its answers, and until when; in the order of their times, except what stays
        self._callbacks: dict[int, tuple[Callable[[int, bytes], object], float]] = {}
        self.used_at = links.loop.time()
        endpoint, prefix, at = links.route(member_id, shard)
        self._end = AskingEnd(prefix, self.used_at)
        self.endpoint = endpoint
        self._greeted = False
        if links.closed:  # this node is stopping: nothing leaves any more
            self.alive = False
            return
        self._socket = links.machine.dial(
            endpoint, NODE_IDENTITY + links.machine.random_bytes(12), self._frame, shard=at, hwm=_HWM,
            silence_s=links.common.silence_s)

    def request(self, method: int, body: bytes, answered: Callable[[int, bytes], object] | None = None, *,
                stays: bool = False) -> int:
        """Queue a request for this tick's frame. ``answered(status, body)`` gets every answer to it; it
        returns False if that leaves nothing to do at once. Answers are taken for ``Common.limit_s``; those
        of a request that ``stays``, a subscription, as long as the link lasts."""
        self._rid += 1
        callbacks = self._callbacks
        if answered is not None:
            until = inf if stays else self._links.loop.time() + self._links.common.limit_s
            callbacks[self._rid] = answered, until
            if len(callbacks) > _MOST_CALLBACKS:
                del callbacks[next(rid for rid, (_, until) in callbacks.items() if until < inf)]
            assert len(callbacks) <= _MOST_CALLBACKS, "I23: what waits for answers is bounded"
        self._out.append(REQUEST.pack(self._rid, method, 0, len(body)) + body)
        self._links.dirty.add(self)
        return self._rid

    def flush(self) -> None:
        """Introduce this node, and send what is queued once the other side has said its STATE: before, it may
        be another shard's node. What is queued is dropped while the other side is unreachable, or another
        member."""
        if self.refused:
            self._out = []
            return
        if (not self._out and self._greeted) or not self.alive:
            return
        records = self._out
        if not self._greeted and not self._greet():
            self._links.dirty.add(self)  # not connected yet: with the next tick
        if self.up and self._send(records):
            self._out = []
        elif self.up or len(records) > (_HWM if self._greeted else _MAX_WAITING):
            self.drop("it does not take frames")

    def _send(self, records: list[bytes], *before: bytes) -> bool:
        if self._socket.send([*before, self._end.frame(records)]):
            return True
        self._end.not_sent()
        return False

    def _greet(self) -> bool:
        """Send the hello in a frame of its own: before it the other side takes no large frames."""
        common = self._links.common
        session = int.from_bytes(self._links.machine.random_bytes(7), "big")
        hello = self._end.hello(
            common.cluster_id, common.member_id, session, (common.shard_count, common.placement_depth))
        origin = Origin.parse(common.origin, common.shard_count, common.placement_depth)
        before = [origin.encode()] if origin is not None else []
        if self.member_id != common.member_id:
            before.append(meant.encode(self.member_id))
        self._greeted = self._send([hello], *before)
        return self._greeted

    @property
    def version(self) -> int:
        return self._end.version

    def _frame(self, parts: list[bytes]) -> None:
        try:
            records = self._end.opened(parts[-1], self._links.loop.time())
        except Broken as e:
            self.drop(str(e))
            return
        news = False
        for rid, status, body in records:
            if rid:
                waiting = self._callbacks.get(rid)
                if waiting is not None:
                    if status != Status.PARTIAL:
                        del self._callbacks[rid]
                    if waiting[0](status, body) is not False:
                        news = True
            elif status == Status.STATE:
                known = self.up, self.leader, self.term
                shard, leader, term, commit, applied, _ = STATE_BODY.unpack(body)
                if shard != self.shard:
                    self._links.astray(self, shard)
                    return
                self.leader, self.term, self.commit, self.applied = leader, term, commit, applied
                if not self.up:
                    self.up = True
                    self._links.dirty.add(self)  # what was queued meanwhile
                news = news or known != (True, self.leader, self.term)
            elif status == Status.REFUSED:
                self._links.refused(self, body.decode(errors="replace"))
                return
        if news:
            self._links.heard()

    def forget(self, now: float) -> None:
        overdue = []
        for rid, (_, until) in self._callbacks.items():
            if until <= now:
                overdue.append(rid)
            elif until < inf:
                break
        for rid in overdue:
            del self._callbacks[rid]

    @property
    def waiting(self) -> int:
        return len(self._callbacks)

    def silent(self, now: float, limit_s: float) -> bool:
        return self._end.silent(now, limit_s, self._socket.unfinished())

    def excuse(self, held_s: float, now: float) -> None:
        """This node's loop was held for ``held_s``, which is not the other's silence."""
        self._end.excuse(held_s, now)

    def broken(self) -> bool:
        return self._greeted and not self._socket.stands()

    def drop(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self._socket.close()
            self._links.dropped(self, reason)


class NodeLinks:
    kind = NodeLink

    def __init__(
        self, machine: Machine, common: Common, heard: Callable[[], None],
        peer_of: Callable[[int], Peer | None],
    ) -> None:
        """``peer_of``: how a host is reached now; None: it is unknown."""
        self.machine = machine
        self.loop = machine.loop
        self.common = common
        self.heard = heard
        self.closed = False
        self.dirty: set[NodeLink] = set()
        self._peer_of = peer_of
        self._links: dict[tuple[int, int], NodeLink] = {}
        self._complaints = Repeats()
        self._silence_s = common.election_timeout_ms / 1000
        self._listening = Listening(self._silence_s / 2)  # a calm node looks twice in that time

    def route(self, member_id: int, shard: int) -> tuple[str, bytes, int | None]:
        """Endpoint, frame prefix, and the shard to ask another host for, of a host's node of a shard.
        KeyError: it is unknown."""
        if member_id == self.common.member_id:
            return ipc_endpoint(self.common.run_dir, shard), b"", None
        peer = self._peer_of(member_id)
        if peer is None:
            raise KeyError(member_id)
        return peer_endpoint(peer.host, peer.port), _FRONT, shard

    def get(self, member_id: int, shard: int) -> NodeLink:
        """The link to that node, made if missing."""
        link = self._links.get((member_id, shard))
        if link is None or not link.alive:
            link = self._links[member_id, shard] = self.kind(self, member_id, shard)
            self.dirty.add(link)  # it hears the other's STATE even without a request
        link.used_at = self.loop.time()
        return link

    def find(self, member_id: int, shard: int) -> NodeLink | None:
        """As :meth:`get`; None if this node does not know the host, which was added while this node was
        down."""
        # asked for each message: a link that is there needs no address
        known = (member_id, shard) in self._links or self._is_known(member_id)
        return self.get(member_id, shard) if known else None

    def reaches(self, member_id: int, shard: int) -> bool:
        link = self.find(member_id, shard)
        return link is not None and link.up

    def _is_known(self, member_id: int) -> bool:
        return member_id == self.common.member_id or self._peer_of(member_id) is not None

    def __contains__(self, name: tuple[int, int]) -> bool:
        """Whether there is a link to a host's node of a shard."""
        return name in self._links

    def follow(self) -> None:
        """Members have changed: drop links to where a host was before, unless it still answers there."""
        for (member_id, shard), link in list(self._links.items()):
            if link.up:
                continue
            if not self._is_known(member_id) or link.endpoint != self.route(member_id, shard)[0]:
                link.drop("its host is somewhere else now")

    def flush(self) -> None:
        if self.dirty:
            dirty = list(self.dirty)
            self.dirty.clear()
            for link in dirty:
                link.flush()

    def sweep(self) -> None:
        """Each heartbeat: drop links that are silent, or whose connection is gone (H13)."""
        now = self.loop.time()
        listening = self._listening
        heard_till = listening.look(now)
        for link in list(self._links.values()):
            link.forget(now)
            if link.alive and link.silent(heard_till, self._silence_s):
                link.drop("it is silent")
            elif link.alive and link.broken():
                link.drop("its connection is gone")
            elif listening.held_s:
                link.excuse(listening.held_s, now)

    def drop_unused(
        self, keep: NodeLink | None, among: Container[tuple[int, int]] | None = None
    ) -> None:
        """Drop links that were not used for a while: each brings a STATE, and a wake-up, four times in an
        election timeout. ``keep``: a link that is held elsewhere. ``among``: those of these hosts' nodes of
        shards alone."""
        since = self.loop.time() - GRAIN.unused_link_s
        for name, link in list(self._links.items()):
            if link.alive and link.used_at < since and link is not keep and (among is None or name in among):
                link.drop("nothing is asked of it")

    def astray(self, link: NodeLink, shard: int) -> None:
        """Another shard's node answers. As if the connection were lost."""
        if self._complaints.news((link.member_id, link.shard), self.loop.time()):
            log.warning("another shard's node answers", peer=f"{link.member_id:x}", shard=link.shard,
                        answers=shard)
        link.drop("another shard's node answers")

    def refused(self, link: NodeLink, reason: str) -> None:
        """The other side takes nothing of this node. Where that is another member, the link ends a little
        later: at once, it would be made again with the next message. The other side ends strangers, too."""
        if not reason.startswith(meant.REASON):
            link.drop(reason)
            return
        link.refused = True
        self.dirty.add(link)  # what is queued is for nobody
        self.loop.call_later(ELSEWHERE_S, link.drop, reason)
        if self._complaints.news((link.member_id, link.shard), self.loop.time()):
            log.warning("another member's node answers", peer=f"{link.member_id:x}", shard=link.shard,
                        reason=reason)

    def dropped(self, link: NodeLink, reason: str) -> None:
        if link.up:
            log.info("dropped a link to another node", peer=f"{link.member_id:x}", shard=link.shard,
                     reason=reason)
        if self._links.get((link.member_id, link.shard)) is link:
            del self._links[link.member_id, link.shard]
        self.dirty.discard(link)

    def close(self) -> None:
        self.closed = True
        self.dirty.clear()
        for link in list(self._links.values()):
            link.alive = False
            link._socket.close()
        self._links.clear()
