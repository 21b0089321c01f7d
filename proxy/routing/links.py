"""Links: one connection of this front to one node, which the machine makes, one frame a tick.

Hot path: a request costs one struct pack, one dictionary entry and two list appends here; the frame is
joined and sent once per loop tick, whatever the number of requests.

Rules
- A link never resumes: when the connection is gone the link is dead. Whoever needs the node opens a new link
  with a new session, so that nothing old is ever delivered (review (b) Transport).
- A socket takes frames only while a connection stands, so a link that cannot take a frame is lost: either the
  connection is gone or the node stopped reading. Both mean the same to a front.
- A node says STATE every heartbeat: a link that hears nothing for an election timeout is dead. Time for which
  this front's own loop was held does not count.
- Frames are numbered 1, 2, 3, ... in each direction; one out of sequence ends the link.

What happens to the requests of a dead link is the router's business (I23).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from cluster.endpoints import ipc_endpoint, peer_endpoint
from cluster.members.table import Table
from cluster.settings import Common
from cluster.wire.frames import PeerKind
from cluster.wire.link import AskingEnd, Broken
from cluster.wire.messages import REQUEST, STATE_BODY, Method
from proxy.machine import Machine
from proxy.routing.rounds import Rounds

_FRONT = PeerKind.FRONT.byte
REFUSED = "refused: "  # what the reason begins with of a link that a node refused
_HWM = 20_000  # frames; a node that lets so many ticks pile up is dead


class Receiver(Protocol):
    """Who a link reports to: the router."""

    def link_up(self, link: Link) -> None: ...
    def link_state(self, link: Link) -> None: ...
    def link_down(self, link: Link, reason: str) -> None: ...
    def link_answers(self, link: Link, answers: list[tuple[int, int, bytes]]) -> None: ...
    def link_pieces(self, link: Link, rid: int, status: int, parts: list[bytes]) -> None: ...


class Near(Protocol):
    """A node in this very process: what a read of one key needs of it, without a frame."""

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
    def close(self) -> None: ...


class Link:
    """One connection to one node of one shard. States: connecting, up (STATE seen), closed."""

    __slots__ = (
        "_end",
        "_receiver",
        "_transport",
        "applied",
        "asked",
        "began",
        "closed",
        "commit",
        "greeted",
        "hurried",
        "leader",
        "leaving",
        "left",
        "member_id",
        "near",
        "next_rid",
        "outbox",
        "parts",
        "pending",
        "pieces_read",
        "pieces_told",
        "prefix",
        "revision",
        "rounds",
        "session",
        "settled",
        "shard",
        "term",
        "trouble",
        "unseen",
        "up",
        "up_at",
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
        self.settled = False  # it has had what this front had shown by then (proxy.routing.reads.recent)
        self.trouble = ""  # why there was no connection
        self.leaving = False  # the node is about to end: nothing more is asked on this link
        self.left = False  # and nothing is waited for: it was told FAREWELL
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
        self.revision = 0  # the highest this node is known to have applied
        self.watermark = 0  # every event up to it has arrived here
        self.hurried = 0  # the revision that the node was asked to catch up to
        self.near: Near | None = None
        self.rounds: Rounds | None = None
        self._receiver = receiver
        self._transport: Transport | None = None
        self._end = AskingEnd(prefix)

    def attach(self, transport: Transport) -> None:
        """Give the link what carries its frames."""
        self._transport = transport

    def connected(self, common: Common) -> None:
        """The connection stands: introduce this front, and say how it places keys."""
        self.greeted = True
        hello = self._end.hello(common.cluster_id, common.member_id, self.session,
                                (common.shard_count, common.placement_depth))
        self._send(self._end.frame((hello,)))

    @property
    def seen_at(self) -> float:
        """Loop time of the last frame, or of the attempt to connect; later by as long as nobody listened."""
        return self._end.heard_at

    @seen_at.setter
    def seen_at(self, now: float) -> None:
        self._end.heard_at = now

    def silent(self, now: float, limit_s: float) -> bool:
        """Whether nothing has come for so long."""
        return self._end.silent(now, limit_s)

    def excuse(self, held_s: float, now: float) -> None:
        """For so long this front's loop was held: that is not the node's silence."""
        self._end.excuse(held_s, now)

    @property
    def version(self) -> int:
        """That both sides speak, as far as the node has said yet."""
        return self._end.version

    def post(self, rid: int, method: int, body: bytes, timeout_ms: int = 0) -> None:
        """Queue a record that nobody waits for here (UNSUBSCRIBE, CANCEL, SUBSCRIBE). The caller marks the
        link as having something to send."""
        self.outbox.append(REQUEST.pack(rid, method, timeout_ms, len(body)) + body)

    def flush(self) -> None:
        """Send what is queued as one frame."""
        if self.outbox and not self.closed:
            frame = self._end.frame(self.outbox)
            self.outbox.clear()
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or not transport.send(frame):
            self.close("the node does not take frames")

    def frame(self, data: bytes, now: float) -> None:
        """A frame arrived."""
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
        """Answers that were kept for a moment (``proxy.routing.rounds``)."""
        self._receiver.link_answers(self, answers)

    def pieces(self, rid: int, status: int, parts: list[bytes]) -> None:
        """A large answer of a node in this process, in pieces instead of in a frame; the first begins with
        the HEAD."""
        if not self.closed:
            self._receiver.link_pieces(self, rid, status, parts)

    def state(self, body: bytes) -> None:
        """A STATE record: what the node knows of its shard. The first one opens the link."""
        _, self.leader, self.term, self.commit, self.applied, revision = STATE_BODY.unpack(body)
        if revision > self.revision:
            self.revision = revision
        if not self.up:
            self.up = True
            self.began = self.commit
            self._receiver.link_up(self)
        self._receiver.link_state(self)

    def leave(self) -> None:
        """The node is about to end: others are asked from now on. It waits for a FAREWELL, which says that no
        answer of its own is missed here."""
        self.leaving = True
        self._receiver.link_state(self)
        self.farewell()

    def farewell(self) -> None:
        """Say so as soon as it is true."""
        if self.leaving and not self.left and not self.pending:
            self.post(0, Method.FAREWELL, b"")
            self.left = True
            self.flush()

    def close(self, reason: str) -> None:
        """End the link. Its open requests are the router's to answer."""
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

    def statistics(self) -> dict[str, int]:
        """Figures for /metrics and debugging."""
        return {"pending": len(self.pending), "subscriptions": len(self.parts), "frames_sent": self._end.sent,
                "frames_received": self._end.came, "term": self.term}


class SocketTransport:
    """A link of the machine's."""

    __slots__ = ("_link", "_loop", "_socket", "_stands")

    def __init__(
        self,
        machine: Machine,
        endpoint: str,
        identity: bytes,
        link: Link,
        stands: Callable[[Link], None],
        silence_s: float,
        *,
        keyed: bool,
    ) -> None:
        self._link = link
        self._loop = machine.loop
        self._stands = stands
        self._socket = machine.dial(
            endpoint,
            identity,
            self._came,
            keyed=keyed,
            hwm=_HWM,
            silence_s=silence_s,
            opened=self._opened,
            lost=self._lost,
            redials=False,
        )

    def send(self, frame: bytes) -> bool:
        """Hand over one frame; False if there is no connection that takes it."""
        return self._socket.send([frame])

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
        """Close the socket; what was not sent is dropped."""
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

    def follow(self, members: Table) -> None:
        """Find hosts in this table from now on."""
        self._members = members

    def __call__(self, receiver: Receiver, shard: int, member_id: int) -> Link | None:
        """A new link, still connecting. None: others have named a leader that was added while this host was
        down, and it has not heard yet where that is."""
        common = self._common
        local = member_id == common.member_id and member_id != 0
        if not local and member_id not in self._members.hosts:
            return None
        session = self._new_session()
        link = Link(receiver, shard, member_id, session, b"" if local else _FRONT)
        link.seen_at = self._loop.time()
        identity = b"f" + session.to_bytes(8, "big")
        if local:
            endpoint = ipc_endpoint(common.run_dir, shard)
        else:
            peer = self._members.peer(member_id)
            endpoint = peer_endpoint(peer.host, peer.port + shard)
        link.attach(
            SocketTransport(
                self._machine, endpoint, identity, link, self._greet, common.silence_s, keyed=not local
            )
        )
        return link

    def _greet(self, link: Link) -> None:
        link.connected(self._common)

    def close(self) -> None:
        """Every link must be closed before; the machine is its owner's to close."""
