"""libzmq's sockets on the event loop, drained without coroutines.

A socket's FD becomes readable when its *state changed*, not while messages wait. So each wake-up drains the
socket to EAGAIN, and each send looks at the EVENTS flag again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
import zmq

from cluster.machine import Receive
from cluster.repeats import Repeats
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.curve.monitors import DealerMonitor, RouterMonitor, show_keys
from tools.muster.machine.zmtp.hints import hint_of
from tools.muster.machine.zmtp.options import LinkOptions, split
from tools.muster.machine.zmtp.silence import end_libzmq_when_silent
from tools.muster.machine.zmtp.stream import traffic

log = structlog.get_logger("sockets")

_DRAIN_LIMIT = 1000  # messages taken in one go, so that a flood cannot starve the rest of the loop
_NOT_TRIED = "not tried yet"


class LoopSocket:
    """A socket whose messages go to ``receive``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], receive: Receive) -> None:
        self._loop = loop
        self.socket = socket
        self._receive = receive
        self._fd = int(socket.getsockopt(zmq.FD))
        self._routes = socket.type == zmq.ROUTER
        self._scheduled = True
        self._monitor: DealerMonitor | RouterMonitor | None = None
        self.closed = False
        self.dropped = 0
        self.trouble = ""
        loop.add_reader(self._fd, self._drain)
        loop.call_soon(self._drain)

    def monitor_dealer(self, endpoint: str, opened: Callable[[], None] | None, keys: CurveKeys) -> None:
        """From now on know the connection's trouble, and call ``opened`` when there is one."""

        def troubled(reason: str) -> None:
            self.trouble = reason
            if not reason and opened is not None:
                opened()

        self.trouble = _NOT_TRIED
        self._monitor = DealerMonitor(self._loop, self.socket, endpoint, troubled, keys)

    def monitor_router(self, endpoint: str) -> None:
        """From now on bound strangers."""
        self._monitor = RouterMonitor(self._loop, self.socket, split(endpoint)[2])

    def send(self, parts: list[bytes]) -> bool:
        socket = self.socket
        try:
            socket.send_multipart(parts, zmq.NOBLOCK)
            traffic.sent += 1
            sent = True
        except zmq.ZMQError as e:
            if self.closed:
                self.dropped += 1
                return False
            if e.errno == zmq.EAGAIN:
                if self._routes:  # a connection that is gone would be EHOSTUNREACH
                    log.warning("a connection is stuck: the other side does not read", peer=parts[0].hex())
            elif e.errno not in (zmq.EHOSTUNREACH, zmq.ETERM, zmq.ENOTSOCK):
                raise
            self.dropped += 1
            sent = False
        if not self._scheduled and int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._drain_later()
        return sent

    def _drain_later(self) -> None:
        """Once a turn, whatever was sent meanwhile: a flood may not starve the rest of the loop."""
        if not self._scheduled:
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
        self._drain_later()

    def stands(self) -> bool:
        """With IMMEDIATE a dealer takes a message only while there is a connection."""
        return not self.closed and bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def hint(self) -> str:
        return hint_of(self.trouble)

    def trust(self, identity: bytes) -> None:
        """Nothing: every partner holds the cluster's key."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: libzmq ends no single connection."""

    def address(self, identity: bytes) -> str:
        """libzmq does not say."""
        return ""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._monitor is not None:
                self._monitor.close()
            self._loop.remove_reader(self._fd)
            self.socket.close(linger=0)


class DealtOnce(LoopSocket):
    """A dealer of one connection. ``opened()``: there is one. ``lost(reason)``: there is none, or none any
    more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], endpoint: str, receive: Receive,
        opened: Callable[[], None] | None, lost: Callable[[str], None], keys: CurveKeys,
    ) -> None:
        super().__init__(loop, socket, receive)
        self._opened = opened
        self._lost = lost
        self._up = False
        self.trouble = _NOT_TRIED
        self._monitor = DealerMonitor(loop, socket, endpoint, self._troubled, keys, redials=False)

    def _troubled(self, reason: str) -> None:
        self.trouble = reason
        if reason and not self._up:
            self._lost(reason)

    def _drain(self) -> None:
        self._scheduled = False
        socket = self.socket
        for _ in range(_DRAIN_LIMIT):
            if self.closed:
                return
            events = int(socket.getsockopt(zmq.EVENTS))
            if not self._up and events & zmq.POLLOUT:
                self._up, self.trouble = True, ""
                if self._opened is not None:
                    self._opened()
                continue
            if events & zmq.POLLIN:
                traffic.received += 1
                self._receive(socket.recv_multipart(zmq.NOBLOCK))
                continue
            if self._up and not events & zmq.POLLOUT:
                self.trouble = "connection lost"
                self._lost(self.trouble)
            return
        self._drain_later()

    def stands(self) -> bool:
        return self._up and super().stands()


class Nowhere:
    """A dealer of an address that libzmq refuses; a member's URL may have one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, lost: Callable[[str], None] | None = None
    ) -> None:
        self.dropped = 0
        self.trouble = "this is no address that can be dialled"
        self._endpoint = endpoint
        self._told = loop.call_soon(lost, self.trouble) if lost is not None else None

    def send(self, parts: list[bytes]) -> bool:
        self.dropped += 1
        return False

    def stands(self) -> bool:
        return False

    def hint(self) -> str:
        return "see the member's peer URL"

    def trust(self, identity: bytes) -> None:
        """Nothing: there is no partner."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: there is no partner."""

    def address(self, identity: bytes) -> str:
        return self._endpoint.partition("://")[2]

    def close(self) -> None:
        if self._told is not None:
            self._told.cancel()


def router(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, options: LinkOptions, keys: CurveKeys | None
) -> zmq.Socket[bytes]:
    """A ROUTER of libzmq for this endpoint, not bound yet."""
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = options.hwm
    socket.router_mandatory = True  # an unroutable frame is an error here, not silence
    socket.router_handover = True
    socket.maxmsgsize = 1 << 30
    end_libzmq_when_silent(socket, options.silence_s)
    socket.ipv6 = "[" in endpoint
    if keys is not None:
        socket.curve_server = True
        socket.curve_publickey = keys.public
        socket.curve_secretkey = keys.secret
        socket.zap_domain = b"muster"
    return socket


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: bytes, options: LinkOptions,
    keys: CurveKeys, redials: bool,
) -> zmq.Socket[bytes]:
    """A DEALER of libzmq, not connected yet. Nothing is queued for a partner without a connection."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    # a dealer of one connection always reads; the other side is the bounded one
    socket.sndhwm, socket.rcvhwm = options.hwm, options.hwm if redials else 0
    socket.immediate = True
    socket.reconnect_ivl = 50 if redials else -1
    socket.reconnect_ivl_max = 500
    socket.handshake_ivl = 5000
    socket.routing_id = identity
    end_libzmq_when_silent(socket, options.silence_s)
    # only for an IPv6 address: of a name libzmq would take no IPv4 address then, and hosts bind that
    socket.ipv6 = "[" in endpoint
    show_keys(socket, endpoint, keys)
    return socket


class Gatekeeper:
    """ZeroMQ's authentication hook (RFC 27). CURVE alone proves the server's key; this refuses clients
    without the cluster's key."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys
    ) -> None:
        self._keys = keys
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
        good = mechanism == b"CURVE" and bool(credentials) and self._keys.allows(credentials[0])
        if not good:
            self.refused += 1
            if self._refusals.news("no key", self._loop.time()):
                log.warning("refused a connection without this cluster's peer key", refused=self.refused)
        status, text = (b"200", b"OK") if good else (b"400", b"not this cluster's key")
        self._socket.send([*parts[: split + 1], b"1.0", request_id, status, text, b"", b""])

    def close(self) -> None:
        self._socket.close()
