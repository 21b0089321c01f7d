"""Links: one connection of this front to one node, one frame a tick.

Hot path: a request costs one struct pack, one dictionary entry and two list appends; the frame is joined and
sent once per loop tick.

Rules
- A link never resumes: when the connection is gone, the link is dead. A new link has a new session, so that
  nothing old is ever delivered (review (b) Transport).
- A link that cannot take a frame is lost: the connection is gone, or the node stopped reading.
- A node says STATE every heartbeat: a link that hears nothing for an election timeout is dead; a leader's is
  *quiet* at first (``proxy.routing.routes``). Time for which this front's own loop was held does not count.
- Nothing but the hello is sent before the first STATE, which shows that the node is the right shard's.
- Frames are numbered 1, 2, 3, ... in each direction; one out of sequence ends the link.

What becomes of a dead link's requests is the router's business (I23).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from cluster.endpoints import ipc_endpoint, peer_endpoint
from cluster.members import meant
from cluster.members.table import Table
from cluster.settings import Common, Peer
from cluster.wire.frames import PeerKind
from cluster.wire.link import AskingEnd, Broken
from cluster.wire.messages import REQUEST, STATE_BODY, Method
from proxy.machine import Machine
from proxy.routing.rounds import Rounds

_FRONT = PeerKind.FRONT.byte
# begin the reasons of a refused link, and of one to another shard or member
REFUSED, ASTRAY = "refused: ", "astray: "
_HWM = 20_000  # frames; a node that lets so many ticks pile up is dead


class Receiver(Protocol):
    """What a link reports to: the router."""

    def link_up(self, link: Link) -> None: ...
    def link_state(self, link: Link) -> None: ...
    def link_down(self, link: Link, reason: str) -> None: ...
    def link_answers(self, link: Link, answers: list[tuple[int, int, bytes]]) -> None: ...
    def link_pieces(self, link: Link, rid: int, status: int, parts: list[bytes]) -> None: ...


class Subscriber(Protocol):
    """The watch hub, as the router feeds it."""

    @property
    def restless(self) -> bool: ...
    def link_up(self, link: Link) -> None: ...
    def link_down(self, link: Link) -> None: ...
    def record(self, link: Link, rid: int, status: int, body: bytes) -> None: ...
    def watermark(self, link: Link) -> None: ...
    def tick(self, now: float) -> None: ...


class Near(Protocol):
    """A node in this process, for reads of one key without a frame."""

    generation: int  # of the table by which its front goes; ``guarded`` while the node has another one

    @property
    def revision(self) -> int: ...
    @property
    def order_index(self) -> int: ...
    @property
    def guarded(self) -> bool: ...
    def get(self, key: bytes) -> tuple[int, int, bytes]: ...
    def v2_file(self, path: bytes, after: int, now_ns: int) -> tuple[int, int, int, bytes] | None: ...


class Transport(Protocol):
    """What carries frames; ZeroMQ, or a test's own."""

    def send(self, frame: bytes) -> bool: ...
    def unfinished(self) -> int: ...
    def close(self) -> None: ...


class Link:
    """One connection to one node of one shard. States: connecting, up (STATE seen), closed."""

    __slots__ = (
        "_end", "_moved_at", "_receiver", "_transport", "applied", "asked", "began", "closed", "commit",
        "greeted", "hurried", "leader", "leaving", "left", "member_id", "members", "near", "next_rid",
        "outbox", "parts", "pending", "pieces_read", "pieces_told", "prefix", "quiet", "revision", "rounds",
        "session", "settled", "shard", "stated_at", "term", "trouble", "unseen", "up", "up_at",
        "watermark",
    )

    def __init__(self, receiver: Receiver, shard: int, member_id: int, session: int, prefix: bytes) -> None:
        self.shard = shard
        self.member_id = member_id
        self.session = session
        self.prefix = prefix
        self.greeted = False  # the connection stands, HELLO was sent
        self.up = False
        self.up_at = 0.0  # loop time
        self.settled = False  # it has applied all that this front had shown (proxy.routing.reads.recent)
        self.trouble = ""  # why there was no connection
        self.quiet = False  # nothing is heard of it: it gets questions about its host alone
        self.leaving = False  # the node is about to end: nothing more is asked on this link
        self.left = False  # FAREWELL was sent: every answer has come
        self.closed = False
        self.next_rid = 1
        self.pending: dict[int, Any] = {}  # rid -> router.Waiting
        # bytes of answers in pieces, and what the node was told of them (proxy.routing.pieces)
        self.pieces_read = 0
        self.pieces_told = 0
        # their rids, newest first, that proxy.routing.overdue has not come to in this round
        self.unseen: list[int] = []
        self.parts: dict[int, Any] = {}  # rid -> watch.parts.Part: the subscriptions on this link
        self.asked: set[int] = set()  # rids of SUBSCRIBE records without an answer
        self.outbox: list[bytes] = []
        self.leader = 0  # of the last STATE
        self.term = 0
        self.commit = 0
        self.began = 0  # what the node knew to be committed when it said so first
        self.applied = 0
        # when its last STATE came, and the last one by which it went on
        self.stated_at = self._moved_at = 0.0
        self.members = b""  # as the node has told them last
        self.revision = 0  # the highest this node is known to have applied
        self.watermark = 0  # every event up to it has arrived here
        self.hurried = 0  # the revision that the node was asked to catch up to
        self.near: Near | None = None
        self.rounds: Rounds | None = None
        self._receiver = receiver
        self._transport: Transport | None = None
        self._end = AskingEnd(prefix)

    def attach(self, transport: Transport) -> None:
        self._transport = transport

    def connected(self, common: Common) -> None:
        """Introduce this front, and say how it places keys."""
        self.greeted = True
        hello = self._end.hello(common.cluster_id, common.member_id, self.session,
                                (common.shard_count, common.placement_depth))
        self._send(self._end.frame((hello,)))

    @property
    def heard(self) -> bool:
        """Whether the node's word of who leads counts."""
        return self.up and not self.quiet

    @property
    def stands_s(self) -> float:
        """For how long it has applied nothing of what is committed, or known no leader, by its last STATE."""
        return self.stated_at - self._moved_at

    @property
    def usable(self) -> bool:
        return self.heard and not self.leaving

    @property
    def seen_at(self) -> float:
        """Loop time of the last frame or attempt to connect, without the time this loop was held."""
        return self._end.heard_at

    @seen_at.setter
    def seen_at(self, now: float) -> None:
        self._end.heard_at = now

    def silent(self, now: float, limit_s: float) -> bool:
        transport = self._transport
        return self._end.silent(now, limit_s, 0 if transport is None else transport.unfinished())

    def excuse(self, held_s: float, now: float) -> None:
        self._end.excuse(held_s, now)

    @property
    def version(self) -> int:
        """The version that both sides speak, as far as the node has said."""
        return self._end.version

    def post(self, rid: int, method: int, body: bytes, timeout_ms: int = 0) -> None:
        """Queue a record without an answer (UNSUBSCRIBE, CANCEL, SUBSCRIBE). The caller has the link
        flushed."""
        self.outbox.append(REQUEST.pack(rid, method, timeout_ms, len(body)) + body)

    def flush(self) -> None:
        if self.outbox and not self.closed:
            frame = self._end.frame(self.outbox)
            self.outbox.clear()
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or not transport.send(frame):
            self.close("the node does not take frames")

    def frame(self, data: bytes, now: float) -> None:
        if self.closed:
            return
        try:
            answers = self._end.opened(data, now)
        except Broken as e:
            self.close(str(e))
            return
        if self.rounds is not None:
            answers = self.rounds.sift(self, answers)
        self._receiver.link_answers(self, answers)

    def take(self, answers: list[tuple[int, int, bytes]]) -> None:
        """Answers that ``proxy.routing.rounds`` kept."""
        self._receiver.link_answers(self, answers)

    def pieces(self, rid: int, status: int, parts: list[bytes]) -> None:
        """A large answer of a node in this process, in pieces; the first begins with HEAD."""
        if not self.closed:
            self._receiver.link_pieces(self, rid, status, parts)

    def state(self, body: bytes) -> None:
        """A STATE record; the first one opens the link. Another shard's ends it."""
        shard, leader, term, commit, applied, revision = STATE_BODY.unpack(body)
        if shard != self.shard:
            self.close(f"{ASTRAY}shard {shard}'s node answers")
            return
        if not self.up or (leader and (applied >= commit or applied != self.applied)):
            self._moved_at = self.seen_at
        self.stated_at = self.seen_at
        self.leader, self.term, self.commit, self.applied = leader, term, commit, applied
        if revision > self.revision:
            self.revision = revision
        self.quiet = False
        if not self.up:
            self.up = True
            self.began = self.commit
            self._receiver.link_up(self)
        self._receiver.link_state(self)

    def refused(self, body: bytes) -> None:
        """The node takes no frames of this front. Another member than is meant is dialled again soon."""
        reason = body.decode("utf-8", "replace")
        self.close((ASTRAY if reason.startswith(meant.REASON) else REFUSED) + reason)

    def leave(self) -> None:
        """The node is about to end. It waits for a FAREWELL: every answer of its own has come."""
        self.leaving = True
        self._receiver.link_state(self)
        self.farewell()

    def farewell(self) -> None:
        if self.leaving and not self.left and not self.pending:
            self.post(0, Method.FAREWELL, b"")
            self.left = True
            self.flush()

    def close(self, reason: str) -> None:
        """End the link. The router answers its open requests."""
        if self.closed:
            return
        if self.rounds is not None:
            self.rounds.release()  # these requests are answered
        self.closed = True
        self.up = False
        self.outbox.clear()
        if self._transport is not None:
            self._transport.close()
        self._receiver.link_down(self, reason)

    @property
    def frames(self) -> tuple[int, int]:
        """Sent and received."""
        return self._end.sent, self._end.came


class SocketTransport:
    """A link of the machine's."""

    __slots__ = ("_before", "_link", "_loop", "_socket", "_stands")

    def __init__(
        self, machine: Machine, endpoint: str, identity: bytes, link: Link, stands: Callable[[Link], None],
        silence_s: float, *, shard: int | None, before: tuple[bytes, ...] = ()
    ) -> None:
        """``before``: parts of the first message, before the hello."""
        self._before = before
        self._link = link
        self._loop = machine.loop
        self._stands = stands
        self._socket = machine.dial(
            endpoint, identity, self._came, shard=shard, hwm=_HWM, silence_s=silence_s, opened=self._opened,
            lost=self._lost,
        )

    def send(self, frame: bytes) -> bool:
        parts = [*self._before, frame]
        self._before = ()
        return self._socket.send(parts)

    def unfinished(self) -> int:
        return self._socket.unfinished()

    def _opened(self) -> None:
        self._stands(self._link)

    def _came(self, parts: list[bytes]) -> None:
        self._link.frame(parts[-1], self._loop.time())

    def _lost(self, reason: str) -> None:
        if self._link.greeted:
            self._link.close("connection lost")
            return
        hint = self._socket.hint()
        # the route's own limit ends the link: no faster retry than that
        self._link.trouble = f"{reason} ({hint})" if hint else reason

    def close(self) -> None:
        self._socket.close()


class Connector:
    """Opens links to the nodes of this cluster."""

    def __init__(
        self, machine: Machine, common: Common, new_session: Callable[[], int] | None = None
    ) -> None:
        self._machine = machine
        self._loop = machine.loop
        self._common = common
        self._new_session = new_session or partial(machine.random.getrandbits, 64)
        self._members = Table(common.peers)
        # by shard and member, of members with several addresses: which was dialled last, and its link
        self._dialled: dict[tuple[int, int], tuple[tuple[str, int], Link]] = {}

    def follow(self, members: Table) -> None:
        self._members = members

    def __call__(self, receiver: Receiver, shard: int, member_id: int) -> Link | None:
        """A new link, still connecting. None: this host has not heard yet where a new leader is."""
        common = self._common
        local = member_id == common.member_id and member_id != 0
        if not local and member_id not in self._members.hosts:
            return None
        session = self._new_session()
        link = Link(receiver, shard, member_id, session, b"" if local else _FRONT)
        link.seen_at = self._loop.time()
        identity = b"f" + session.to_bytes(8, "big")
        before: tuple[bytes, ...] = ()
        if local:
            endpoint = ipc_endpoint(common.run_dir, shard)
        else:
            if common.member_id:  # a proxy's list may be older than the members, and names all addresses
                before = (meant.encode(member_id),)
            endpoint = peer_endpoint(*self._turn(link, self._members.peer(member_id)))
        link.attach(
            SocketTransport(
                self._machine, endpoint, identity, link, self._greet, common.silence_s,
                shard=None if local else shard, before=before,
            )
        )
        return link

    def _turn(self, link: Link, peer: Peer) -> tuple[str, int]:
        """Where a member is dialled now: at another of its addresses than before, unless its node answered
        there."""
        turns, of, at = peer.addresses, (link.shard, link.member_id), 0
        if len(turns) > 1:
            last, there = self._dialled.get(of, (None, link))
            if last in turns:
                at = (turns.index(last) + (not there.term)) % len(turns)
            self._dialled[of] = turns[at], link
        return turns[at]

    def _greet(self, link: Link) -> None:
        link.connected(self._common)
