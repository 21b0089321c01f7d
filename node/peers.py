"""Raft traffic between the replicas of one shard, one frame per peer and tick.

Each node binds one ROUTER on ``peer port + shard`` and connects one DEALER to each peer; a node sends on its
own DEALERs only, so a link carries one direction (plus refusals). Remote fronts share the ROUTER. The first
byte of a frame says what it is::

    H hello, the first frame of a link
    R Raft messages (cluster.raft.encode_messages)
    S of a state's snapshot, both directions (node.snapshots)
    P publication of a host's attributes, for the leader
    A an alarm of a host, for the sequencer
    D what a host's nodes have durably applied, between node 0s (node.floors)
    V a host is short of space (node.space)
    L question and answer before a hand-over (node.handover)
    T, t asked now and then how long a frame takes, and the answer (node.round_trips)
    N "I need a state": order records are kept nowhere (node.shard_node)
    G "I am about to end": nothing is handed over to this node (node.leaving)
    F a front's frame (node.fronts); both directions, as is its answer
    ? "who are you?": the answer to a frame of an unknown link, which says hello then
    X refused: code u8 + reason

A hello carries protocol version, cluster ID, member ID, incarnation and shard. A replica that comes back with
another incarnation has lost its disk: it is refused, because its old votes are gone (``node.incarnations``). Lost frames
need no repair here: Raft resends, snapshots resume from an offset, hellos are asked for again. The
last small frame before such a hello is kept for it: a link between followers says nothing until a vote is wanted, and a vote
that is lost costs an election timeout.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from functools import partial

import structlog
import zmq

from cluster.messages import PROTOCOL_VERSION
from cluster.settings import Peer
from node.incarnations import REFUSED, Incarnations
from node.round_trips import RoundTrips
from node.sockets import CurveKeys, FrameSocket, Receive, open_dealer, open_router
from process.logs import Repeats
from zmtp import tcp_endpoint

log = structlog.get_logger("peers")

HELLO = struct.Struct("<HQQQI")  # protocol version, cluster ID, member ID, incarnation, shard
REFUSED_CLUSTER, REFUSED_VERSION, REFUSED_INCARNATION, REFUSED_UNKNOWN, REFUSED_SHARD = range(1, 6)
_PEER_HWM = 10_000
_MOST_EARLY, _MOST_EARLY_BYTES = 64, 4096  # frames kept for a hello that is asked for, and the size of each


class PeerLink:
    """This node's sending side to one peer."""

    def __init__(
        self,
        connect: Callable[[Receive], FrameSocket],
        peer: Peer,
        hello: bytes,
        refused: Callable[[Peer, int, str], None],
    ) -> None:
        self.peer = peer
        self._hello = hello
        self._refused = refused
        self._greeted = False
        self.sent_bytes = 0
        self.failures = 0
        self._socket = connect(self._receive)

    def send(self, kind: bytes, data: bytes) -> bool:
        """Send one frame; False if the peer is not there (the frame is dropped)."""
        if not self._greeted:
            self._greeted = self._socket.send([self._hello])
        if self._greeted and self._socket.send([kind + data]):
            self.sent_bytes += len(data)
            return True
        self.failures += 1
        return False

    def _receive(self, parts: list[bytes]) -> None:
        frame = parts[-1]
        if frame[:1] == b"?":
            self._greeted = self._socket.send([self._hello])
        elif frame[:1] == b"X" and len(frame) > 1:
            self._refused(self.peer, frame[1], frame[2:].decode(errors="replace"))

    def close(self) -> None:
        self._socket.close()


class Peers:
    """All of a node's peers of one shard."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        cluster_id: int,
        member_id: int,
        incarnation: int,
        shard: int,
        peers: tuple[Peer, ...],
        listen: tuple[str, int],
        keys: CurveKeys | None,
        silence_s: float,
        incarnations: Incarnations,
        on_frame: Callable[[int, int, bytes], None],
        on_front: Callable[[bytes, bytes, Callable[[list[bytes]], bool]], None],
        on_refused: Callable[[Peer, int, str], None],
    ) -> None:
        self._cluster_id = cluster_id
        self._shard = shard
        self._incarnations = incarnations
        self._on_frame = on_frame
        self._on_front = on_front
        self._known = {p.member_id: p for p in peers if p.member_id != member_id}
        self._accepted: dict[bytes, int] = {}
        self._early: dict[bytes, bytes] = {}  # by identity: a frame that came before the hello, as a vote after a restart here
        self._refusals = Repeats()
        self._loop = loop
        self.received_bytes: dict[int, int] = dict.fromkeys(self._known, 0)
        self.round_trips = RoundTrips(loop, self._known, self.send)
        hello = b"H" + HELLO.pack(PROTOCOL_VERSION, cluster_id, member_id, incarnation, shard)
        self._router = open_router(loop, context, tcp_endpoint(*listen), self._receive, keys=keys, hwm=_PEER_HWM,
                                   silence_s=silence_s)
        self.links = {
            p.member_id: PeerLink(
                partial(open_dealer, loop, context, tcp_endpoint(p.host, p.port + shard), b"p" + os.urandom(12), keys=keys,
                        hwm=_PEER_HWM, silence_s=silence_s),
                p,
                hello,
                on_refused,
            )
            for p in self._known.values()
        }

    def send(self, member_id: int, kind: bytes, data: bytes) -> bool:
        """Send one frame to a peer; False if it was dropped."""
        link = self.links.get(member_id)
        return link is not None and link.send(kind, data)

    def _receive(self, parts: list[bytes]) -> None:
        identity, frame = parts[0], parts[-1]
        kind = frame[:1]
        if kind == b"F":
            self._on_front(identity, frame[1:], self._router.send)
            return
        if kind == b"H":
            self._on_hello(identity, frame)
            return
        member_id = self._accepted.get(identity)
        if member_id is None:
            if len(frame) <= _MOST_EARLY_BYTES and (identity in self._early or len(self._early) < _MOST_EARLY):
                self._early[identity] = frame
            self._router.send([identity, b"?"])
            return
        self._take(member_id, frame)

    def _take(self, member_id: int, frame: bytes) -> None:
        self.received_bytes[member_id] += len(frame)
        if not frame:
            log.warning("dropped an empty frame of a peer", peer=f"{member_id:x}")
            return
        if not self.round_trips.take(member_id, frame):
            self._on_frame(member_id, frame[0], frame[1:])

    def _on_hello(self, identity: bytes, frame: bytes) -> None:
        if len(frame) != 1 + HELLO.size:
            self._refuse(identity, 0, REFUSED_VERSION, "not a hello of this protocol")
            return
        version, cluster_id, member_id, incarnation, shard = HELLO.unpack_from(frame, 1)
        if cluster_id != self._cluster_id:
            self._refuse(identity, member_id, REFUSED_CLUSTER,
                         f"cluster ID mismatch (got {cluster_id:x} want {self._cluster_id:x})", "cluster ID mismatch")
        elif version != PROTOCOL_VERSION:
            self._refuse(identity, member_id, REFUSED_VERSION,
                         f"incompatible version (got {version} want {PROTOCOL_VERSION})")
        elif member_id not in self._known:
            self._refuse(identity, member_id, REFUSED_UNKNOWN, f"member {member_id:x} is not in this cluster")
        elif shard != self._shard:
            self._refuse(identity, member_id, REFUSED_SHARD, f"shard mismatch (got {shard} want {self._shard})")
        elif not self._incarnations.accept(member_id, incarnation):
            self._refuse(identity, member_id, REFUSED_INCARNATION, REFUSED.format(member_id))
        else:
            self._accepted[identity] = member_id
            if (frame := self._early.pop(identity, b"")):
                self._take(member_id, frame)

    def refuse(self, member_id: int) -> None:
        """The log says that this member is not who it was when its hello was accepted (H10)."""
        for identity in [i for i, m in self._accepted.items() if m == member_id]:
            self._refuse(identity, member_id, REFUSED_INCARNATION, REFUSED.format(member_id))

    def _refuse(self, identity: bytes, member_id: int, code: int, reason: str, told: str = "") -> None:
        """``told``: what a stranger is to hear instead of the reason, which may name what only members know."""
        self._accepted.pop(identity, None)
        self._early.pop(identity, None)
        if self._refusals.news((member_id, code), self._loop.time()):
            log.warning("refused a peer", member=f"{member_id:x}", reason=reason)
        self._router.send([identity, b"X" + bytes((code,)) + (told or reason).encode()])

    def close(self) -> None:
        self.round_trips.stop()
        self._router.close()
        for link in self.links.values():
            link.close()
