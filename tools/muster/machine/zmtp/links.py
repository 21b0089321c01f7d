"""Message links on either transport: ``zmtp`` where peers talk in clear, libzmq where they have a key, as it
does CURVE.

libzmq on the event loop is drained without coroutines, edge-triggered as its FD is. A ZeroMQ socket's FD
becomes readable when its *state changed*, not while messages wait. So after every wake-up the socket is
drained to EAGAIN, and after every send the EVENTS flag is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
import zmq

from cluster.endpoints import dialled_from
from cluster.machine import FrameSocket, Receive
from cluster.repeats import Repeats
from tools.muster.machine.zmtp import Dealer, Router, end_libzmq_when_silent, traffic
from tools.muster.machine.zmtp.curve import DealerMonitor, RouterMonitor, show_keys
from tools.muster.machine.zmtp.keys import CurveKeys
from tools.muster.machine.zmtp.sockets import AGAIN_S, hint_of, split
from tools.muster.machine.zmtp.tls import PeerCredentials

log = structlog.get_logger("sockets")

_DRAIN_LIMIT = 1000  # messages taken in one go, so that a flood cannot starve the rest of the loop


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

    def monitor_dealer(self, endpoint: str, opened: Callable[[], None] | None, keys: CurveKeys) -> None:
        """From now on know the trouble of this connection, and call ``opened`` when it stands."""

        def troubled(reason: str) -> None:
            self.trouble = reason
            if not reason and opened is not None:
                opened()

        self.trouble = "not tried yet"
        self._monitor = DealerMonitor(self._loop, self.socket, endpoint, troubled, keys)

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

    def hint(self) -> str:
        """What an operator may look at while there is trouble."""
        return hint_of(self.trouble)

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


class DealtOnce:
    """A DEALER of libzmq of one connection. What comes is drained as :class:`LoopSocket` does; besides, it
    tells when the connection stands and when it is gone."""

    __slots__ = (
        "_fd",
        "_loop",
        "_lost",
        "_monitor",
        "_opened",
        "_receive",
        "_scheduled",
        "_socket",
        "_up",
        "closed",
        "dropped",
        "trouble",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], endpoint: str, receive: Receive,
        opened: Callable[[], None] | None, lost: Callable[[str], None] | None, keys: CurveKeys,
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._monitor = DealerMonitor(loop, socket, endpoint, self._troubled, keys, redials=False)
        self._receive = receive
        self._opened = opened
        self._lost = lost
        self._up = False
        self._scheduled = True
        self.closed = False
        self.dropped = 0
        self.trouble = "not tried yet"
        self._fd = int(socket.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._ready)
        loop.call_soon(self._ready)

    def send(self, parts: list[bytes]) -> bool:
        """Send without waiting; False if the frame was dropped."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1
            return False
        traffic.sent += 1
        if not self._scheduled and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._scheduled = True
            self._loop.call_soon(self._ready)
        return True

    def _troubled(self, reason: str) -> None:
        self.trouble = reason
        if reason and not self._up and self._lost is not None:
            self._lost(reason)

    def _ready(self) -> None:
        self._scheduled = False
        socket = self._socket
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
                if self._lost is not None:
                    self._lost(self.trouble)
            return
        self._scheduled = True
        self._loop.call_soon(self._ready)

    def stands(self) -> bool:
        """Whether there is a connection."""
        return self._up and not self.closed and bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def hint(self) -> str:
        """What an operator may look at while there is trouble."""
        return hint_of(self.trouble)

    def trust(self, identity: bytes) -> None:
        """Nothing: whom a dealer dialled, it knows."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: it has one connection, which :meth:`close` ends."""

    def address(self, identity: bytes) -> str:
        """Not known: libzmq keeps it to itself."""
        return ""

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        if not self.closed:
            self.closed = True
            self._monitor.close()
            self._loop.remove_reader(self._fd)
            self._socket.close(linger=0)


def open_router(
    loop: asyncio.AbstractEventLoop,
    context: zmq.Context[zmq.Socket[bytes]] | None,
    endpoint: str,
    receive: Receive,
    *,
    keys: CurveKeys | None,
    hwm: int,
    silence_s: float = 0.0,
    strangers: bool = False,
    gone: Callable[[bytes], None] | None = None,
    tls: PeerCredentials | None = None,
) -> FrameSocket:
    """A socket that listens; with keys only holders of the cluster's key may connect (see
    :class:`Gatekeeper`). ``silence_s``, ``strangers``, ``gone``: as of ``tools.muster.machine.zmtp.Router``;
    with keys strangers are those who have not proved to hold it, and nobody is told who has gone."""
    if keys is None:
        # a port where strangers come is one for peers, at which an etcd answers HTTP
        return Router(
            loop,
            endpoint,
            receive,
            hwm=hwm,
            silence_s=silence_s,
            strangers=strangers,
            gone=gone,
            http=strangers,
            tls=tls,
        )
    assert context is not None, "libzmq does CURVE"
    made = LoopSocket(
        loop, _router(context, keys=keys, hwm=hwm, silence_s=silence_s, ipv6="[" in endpoint), receive
    )
    if strangers:
        made.monitor_router(endpoint)
    made.socket.bind(endpoint)
    return made


def open_dealer(
    loop: asyncio.AbstractEventLoop,
    context: zmq.Context[zmq.Socket[bytes]] | None,
    endpoint: str,
    identity: bytes,
    receive: Receive,
    *,
    keys: CurveKeys | None,
    hwm: int,
    silence_s: float = 0.0,
    opened: Callable[[], None] | None = None,
    lost: Callable[[str], None] | None = None,
    redials: bool = True,
    tls: PeerCredentials | None = None,
    local: str = "",
) -> FrameSocket:
    """A socket that connects, again and again, or once. Nothing is queued for a peer that is not there.
    ``silence_s``, ``local``: as of ``Dealer``. ``opened``: there is a connection. ``lost``: there is none, or
    none any more; with a key, only a socket of one connection tells."""
    if keys is None:
        return Dealer(
            loop,
            endpoint,
            identity,
            receive,
            hwm=hwm,
            silence_s=silence_s,
            opened=opened,
            lost=lost,
            again_s=AGAIN_S if redials else None,
            tls=tls,
            local=local,
        )
    endpoint = dialled_from(endpoint, local)
    assert context is not None, "libzmq does CURVE"
    if not redials:
        socket = _dealer(context, endpoint, identity, keys=keys, hwm=hwm, silence_s=silence_s)
        socket.reconnect_ivl = -1
        socket.rcvhwm = 0  # whoever dials once reads always; the other side is the bounded one
        once = DealtOnce(loop, socket, endpoint, receive, opened, lost, keys)
        return _dialled(once, socket, endpoint) or Nowhere(loop, endpoint, lost)  # only now: it is told once
    # of names libzmq would take no IPv4 address, and that is what hosts bind: IPv6 only where an address says
    # so
    made = LoopSocket(
        loop, _dealer(context, endpoint, identity, keys=keys, hwm=hwm, silence_s=silence_s), receive)
    made.monitor_dealer(endpoint, opened, keys)
    return _dialled(made, made.socket, endpoint) or Nowhere(loop, endpoint)  # only now: nothing is told twice


def _dialled(made: FrameSocket, sock: zmq.Socket[bytes], endpoint: str) -> FrameSocket | None:
    """The dealer, connecting; None if libzmq does not take the address."""
    try:
        sock.connect(endpoint)
    except (zmq.ZMQError, ValueError, OverflowError):
        made.close()
        return None
    return made


class Nowhere:
    """A dealer of an address that libzmq does not take, as a member's URL may have it: nobody is there."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, lost: Callable[[str], None] | None = None
    ) -> None:
        self.dropped = 0
        self.trouble = "this is no address that can be dialled"
        self._endpoint = endpoint
        self._told = loop.call_soon(lost, self.trouble) if lost is not None else None

    def send(self, parts: list[bytes]) -> bool:
        """It is dropped."""
        self.dropped += 1
        return False

    def stands(self) -> bool:
        """Never."""
        return False

    def hint(self) -> str:
        """What an operator may look at."""
        return "see the member's peer URL"

    def trust(self, identity: bytes) -> None:
        """Nothing: there is nobody."""

    def drop(self, identity: bytes, reason: str) -> None:
        """Nothing: there is nobody."""

    def address(self, identity: bytes) -> str:
        """What would be dialled."""
        return self._endpoint.partition("://")[2]

    def close(self) -> None:
        """Nothing is told any more."""
        if self._told is not None:
            self._told.cancel()


def router(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    *,
    keys: CurveKeys | None,
    hwm: int,
    silence_s: float = 0.0,
) -> zmq.Socket[bytes]:
    """A bound ROUTER of libzmq."""
    socket = _router(context, keys=keys, hwm=hwm, silence_s=silence_s, ipv6="[" in endpoint)
    socket.bind(endpoint)
    return socket


def _router(
    context: zmq.Context[zmq.Socket[bytes]], *, keys: CurveKeys | None, hwm: int, silence_s: float, ipv6: bool
) -> zmq.Socket[bytes]:
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
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: bytes, *, keys: CurveKeys, hwm: int,
    silence_s: float,
) -> zmq.Socket[bytes]:
    """A DEALER of libzmq, not connected yet. Nothing is queued for a peer that is not there, nothing old is
    sent later."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = hwm
    socket.immediate = True
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 500
    socket.handshake_ivl = 5000
    socket.routing_id = identity
    end_libzmq_when_silent(socket, silence_s)
    socket.ipv6 = "[" in endpoint
    show_keys(socket, endpoint, keys)
    return socket


class Gatekeeper:
    """ZeroMQ's authentication hook (RFC 27): CURVE alone proves who the server is; this refuses clients that
    do not hold the cluster's key."""

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
                log.warning(
                    "refused a connection that does not hold this cluster's peer key", refused=self.refused
                )
        status, text = (b"200", b"OK") if good else (b"400", b"not this cluster's key")
        self._socket.send([*parts[: split + 1], b"1.0", request_id, status, text, b"", b""])

    def close(self) -> None:
        """Stop answering."""
        self._socket.close()
