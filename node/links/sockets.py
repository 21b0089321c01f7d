"""A node's sockets: ``zmtp`` where peers talk in clear, libzmq where they have a key, as it does CURVE.

libzmq on the event loop is drained without coroutines, edge-triggered as its FD is. A ZeroMQ socket's FD becomes readable when its *state changed*, not while messages wait. So after every
wake-up the socket is drained to EAGAIN, and after every send the EVENTS flag is looked at again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
import zmq
from zmq.utils import z85

from tools.muster.machine.logs import Repeats
from tools.muster.machine.zmtp import Dealer, Receive, Router, end_libzmq_when_silent, traffic
from tools.muster.machine.zmtp.curve import DealerMonitor, RouterMonitor
from tools.muster.machine.zmtp.sockets import split

__all__ = ["CurveKeys", "FrameSocket", "Gatekeeper", "LoopSocket", "Receive", "open_dealer", "open_router", "router", "traffic"]

log = structlog.get_logger("sockets")

_DRAIN_LIMIT = 1000  # messages taken in one go, so that a flood cannot starve the rest of the loop


@dataclass(slots=True, frozen=True)
class CurveKeys:
    """The cluster's one key pair, z85."""

    public: bytes
    secret: bytes

    @classmethod
    def load(cls, path: str) -> CurveKeys | None:
        """Read the key file of ``muster peer-keys``; None for no path. ValueError if it is not one."""
        if not path:
            return None
        try:
            raw = json.loads(Path(path).read_text())
            return cls(raw["public"].encode(), raw["secret"].encode())
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as e:
            raise ValueError(f"{path} is not a peer key file") from e


class FrameSocket(Protocol):
    """What carries frames: ``tools.muster.machine.zmtp.Dealer``, ``tools.muster.machine.zmtp.Router``, or libzmq's."""

    dropped: int  # frames not sent because the peer's queue was full or its connection gone
    trouble: str  # of a dealer: why it has no connection; "" while it has one, or nothing is known

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the frame was dropped. To a router's peer: its identity first."""

    def stands(self) -> bool:
        """Whether a dealer has a connection, as far as this side knows."""

    def trust(self, identity: bytes) -> None:
        """Of a router: who connected under this identity has said who it is. A holder of the cluster's key is known anyway."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Of a router: end this connection, if it is no key holder's."""

    def address(self, identity: bytes) -> str:
        """Of a router: where this connection comes from, ``host:port``; empty if that is not known."""

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""


class LoopSocket:
    """A ZeroMQ socket whose messages go to a callback, drained on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], receive: Receive) -> None:
        self._loop = loop
        self.socket = socket
        self._receive = receive
        self._fd = int(socket.getsockopt(zmq.FD))
        self._routes = socket.type == zmq.ROUTER
        self._scheduled = False
        self._monitor: DealerMonitor | RouterMonitor | None = None
        self.closed = False
        self.dropped = 0
        self.trouble = ""
        loop.add_reader(self._fd, self._drain)
        self._again()

    def monitor_dealer(self, endpoint: str, opened: Callable[[], None] | None) -> None:
        """From now on know the trouble of this connection, and call ``opened`` when it stands."""

        def troubled(reason: str) -> None:
            self.trouble = reason
            if not reason and opened is not None:
                opened()

        self.trouble = "not tried yet"
        self._monitor = DealerMonitor(self._loop, self.socket, endpoint, troubled)

    def monitor_router(self, endpoint: str) -> None:
        """From now on bear few strangers."""
        self._monitor = RouterMonitor(self._loop, self.socket, split(endpoint)[2])

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the frame was dropped."""
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK, copy=True)
            traffic.sent += 1
            sent = True
        except zmq.Again:
            if self._routes:  # a connection that is gone would be EHOSTUNREACH
                log.warning("a connection is stuck: it does not take what is sent to it", peer=parts[0].hex())
            self.dropped += 1
            sent = False
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            self.dropped += 1
            sent = False
        self._again()
        return sent

    def _again(self) -> None:
        if not self._scheduled and not self.closed and int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        recv = self.socket.recv_multipart
        receive = self._receive
        for _ in range(_DRAIN_LIMIT):
            try:
                parts = recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            traffic.received += 1
            receive(parts)
            if self.closed:
                return
        self._again()

    def stands(self) -> bool:
        """Whether it takes a message now: with IMMEDIATE only while there is a connection."""
        return not self.closed and bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def trust(self, identity: bytes) -> None:
        """Nothing: who got here holds the cluster's key."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: libzmq ends no single connection."""

    def address(self, identity: bytes) -> str:
        """Not known: libzmq keeps it to itself."""
        return ""

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        if not self.closed:
            self.closed = True
            if self._monitor is not None:
                self._monitor.close()
            self._loop.remove_reader(self._fd)
            self.socket.close(linger=0)


def open_router(
    loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, receive: Receive, *,
    keys: CurveKeys | None, hwm: int, silence_s: float = 0.0, strangers: bool = False,
    gone: Callable[[bytes], None] | None = None,
) -> FrameSocket:
    """A socket that listens; with keys only holders of the cluster's key may connect (see :class:`Gatekeeper`).
    ``silence_s``, ``strangers``, ``gone``: as of ``tools.muster.machine.zmtp.Router``; with keys strangers are those who have not proved to hold it, and
    nobody is told who has gone."""
    if keys is None:
        return Router(loop, endpoint, receive, hwm=hwm, silence_s=silence_s, strangers=strangers, gone=gone)
    made = LoopSocket(loop, _router(context, keys=keys, hwm=hwm, silence_s=silence_s, ipv6="[" in endpoint), receive)
    if strangers:
        made.monitor_router(endpoint)
    made.socket.bind(endpoint)
    return made


def open_dealer(
    loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: bytes,
    receive: Receive, *, keys: CurveKeys | None, hwm: int, silence_s: float = 0.0, opened: Callable[[], None] | None = None,
) -> FrameSocket:
    """A socket that connects, again and again. Nothing is queued for a peer that is not there. ``silence_s``: as of
    ``tools.muster.machine.zmtp.Dealer``. ``opened``: there is a connection."""
    if keys is None:
        return Dealer(loop, endpoint, identity, receive, hwm=hwm, silence_s=silence_s, opened=opened)
    # of names libzmq would take no IPv4 address, and that is what hosts bind: IPv6 only where an address says so
    made = LoopSocket(loop, _dealer(context, identity, keys=keys, hwm=hwm, silence_s=silence_s, ipv6="[" in endpoint), receive)
    made.monitor_dealer(endpoint, opened)
    made.socket.connect(endpoint)  # only now: nothing is told twice
    return made


def router(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, keys: CurveKeys | None, hwm: int, silence_s: float = 0.0
) -> zmq.Socket[bytes]:
    """A bound ROUTER of libzmq."""
    socket = _router(context, keys=keys, hwm=hwm, silence_s=silence_s, ipv6="[" in endpoint)
    socket.bind(endpoint)
    return socket


def _router(context: zmq.Context[zmq.Socket[bytes]], *, keys: CurveKeys | None, hwm: int, silence_s: float, ipv6: bool) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = hwm
    socket.router_mandatory = True  # an unroutable frame is an error here, not silence
    socket.router_handover = True
    socket.maxmsgsize = 1 << 30
    end_libzmq_when_silent(socket, silence_s)
    socket.ipv6 = ipv6
    if keys is not None:
        socket.curve_server = True
        socket.curve_publickey = keys.public
        socket.curve_secretkey = keys.secret
        socket.zap_domain = b"muster"
    return socket


def _dealer(
    context: zmq.Context[zmq.Socket[bytes]], identity: bytes, *, keys: CurveKeys | None, hwm: int, silence_s: float, ipv6: bool,
) -> zmq.Socket[bytes]:
    """A DEALER of libzmq, not connected yet. Nothing is queued for a peer that is not there, nothing old is sent later."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = hwm
    socket.immediate = True
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 500
    socket.handshake_ivl = 5000
    socket.routing_id = identity
    end_libzmq_when_silent(socket, silence_s)
    socket.ipv6 = ipv6
    if keys is not None:
        socket.curve_serverkey = keys.public
        socket.curve_publickey = keys.public
        socket.curve_secretkey = keys.secret
    return socket


class Gatekeeper:
    """ZeroMQ's authentication hook (RFC 27): CURVE alone proves who the server is; this refuses clients that
    do not hold the cluster's key."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys
    ) -> None:
        self._allowed = z85.decode(keys.public)
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind("inproc://zeromq.zap.01")
        self._socket = LoopSocket(loop, socket, self._answer)
        self.refused = 0
        self._loop = loop
        self._refusals = Repeats()

    def _answer(self, parts: list[bytes]) -> None:
        # identity, empty, version, request id, domain, address, identity, mechanism, credentials...
        split = parts.index(b"")
        _, request_id, _, _, _, mechanism, *credentials = parts[split + 1 :]
        good = mechanism == b"CURVE" and credentials[:1] == [self._allowed]
        if not good:
            self.refused += 1
            if self._refusals.news("no key", self._loop.time()):
                log.warning("refused a connection that does not hold this cluster's peer key", refused=self.refused)
        status, text = (b"200", b"OK") if good else (b"400", b"not this cluster's key")
        self._socket.send([*parts[: split + 1], b"1.0", request_id, status, text, b"", b""])

    def close(self) -> None:
        """Stop answering."""
        self._socket.close()
