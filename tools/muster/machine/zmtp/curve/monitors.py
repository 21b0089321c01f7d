"""Monitors of libzmq's sockets (``zmq_socket_monitor(3)``): why a link fails, and a bound on strangers.

A monitor is made before its socket binds or connects.

- A dealer knows its trouble. libzmq (4.3.5) never dials again after an answer that is no handshake, such as
  that of a host without a key file. :class:`DealerMonitor` does.
- A router bounds connections that have not proved to hold the cluster's key, and the bytes of each. libzmq
  itself takes a command of up to a message's length, a gigabyte, before any proof. The kernel counts each
  connection's bytes (``TCP_INFO``): without the key it gets a greeting, a WELCOME and an ERROR at most
  (RFC 26, CurveZMQ).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator

import structlog
import zmq

from cluster.repeats import Repeats
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.hints import NO_KEY, NO_PEER, fields
from tools.muster.machine.zmtp.stream import CLOSED, HELLO_S, MOST_STRANGERS

log = structlog.get_logger("curve")

_EVENT = struct.Struct("=hi")  # number and value
_FAILURES = (
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH)
_OF_DEALERS = (
    zmq.Event.CONNECTED
    | zmq.Event.CONNECT_RETRIED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | _FAILURES)
_OF_ROUTERS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED | zmq.Event.CLOSED | _FAILURES
_REDIAL_S = 2.0  # libzmq's own dials come after half a second at most
_OTHER_KEY_S = 0.05
_LOOK_S = 0.1
# Of CurveZMQ, with ZMTP's frames: a greeting (64), then WELCOME (170) or, at the end, an ERROR (12). READY
# comes after the proof
_MOST_TO_A_STRANGER = 64 + 170 + 12
_MOST_OF_A_STRANGER = 8192  # greeting (64), HELLO (202) and INITIATE (some 300)
# Of struct tcp_info (linux/tcp.h; since 4.19): tcpi_bytes_received, tcpi_bytes_sent, tcpi_bytes_retrans
_BYTES = struct.Struct("=128xQ64xQQ")
_FAILED = (NO_KEY, NO_PEER)  # libzmq dials again after these, and reports only that it did
_numbers = itertools.count()


class Monitor:
    """The events of one socket: ``told(event, value)`` on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: zmq.Socket[bytes], events: int,
                 told: Callable[[int, int], None]) -> None:
        self._loop = loop
        self._watched = sock
        self._told = told
        address = f"inproc://muster-monitor-{next(_numbers)}"
        sock.monitor(address, events)
        self._pair: zmq.Socket[bytes] = sock.context.socket(zmq.PAIR)
        self._pair.linger = 0
        self._pair.connect(address)
        self._fd = int(self._pair.getsockopt(zmq.FD))
        self.closed = False
        loop.add_reader(self._fd, self._drain)
        loop.call_soon(self._drain)

    def _drain(self) -> None:
        while not self.closed:
            try:
                parts = self._pair.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts[0]) == _EVENT.size:
                event, value = _EVENT.unpack(parts[0])
                self._told(event & 0xFFFF, value)

    def close(self) -> None:
        """To be called before the watched socket is closed."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._fd)
            self._watched.monitor(None, 0)
            self._pair.close(linger=0)


def show_keys(sock: zmq.Socket[bytes], endpoint: str, keys: CurveKeys) -> None:
    """Set the keys of a dealer's next connection."""
    sock.curve_serverkey = keys.served_by(endpoint)
    sock.curve_publickey = keys.public
    sock.curve_secretkey = keys.secret


class DealerMonitor:
    """``troubled(reason)``: why the dealer has no connection; "": it has one. With ``redials`` the monitor
    dials again where libzmq has given up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: zmq.Socket[bytes], endpoint: str,
                 troubled: Callable[[str], None], keys: CurveKeys, *, redials: bool = True) -> None:
        self._keys = keys
        self._trouble = "not tried yet"
        self._loop = loop
        self._socket = sock
        self._endpoint = endpoint
        self._troubled = troubled
        self._redials = redials
        self._redial: asyncio.TimerHandle | None = None
        self._other_key: asyncio.TimerHandle | None = None
        self._tried = 0
        self._monitor = Monitor(loop, sock, _OF_DEALERS, self._told)

    def _told(self, event: int, value: int) -> None:
        if self._redial is not None and event != zmq.Event.DISCONNECTED:
            self._redial.cancel()
            self._redial = None
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            if self._other_key is not None:
                self._other_key.cancel()
                self._other_key = None
            self._is("")
        elif event & _FAILURES:
            self._failed()
        elif event == zmq.Event.CONNECT_RETRIED:
            if self._trouble not in _FAILED:
                self._is("no connection: refused, or no answer")
        elif event == zmq.Event.DISCONNECTED:
            if self._trouble not in _FAILED and self._other_key is None:
                self._is(NO_PEER if self._trouble else CLOSED)
            if self._redial is None and self._redials:
                self._redial = self._loop.call_later(_REDIAL_S, self._dial)

    def _failed(self) -> None:
        """Try another key of the file. A dealer of one connection is troubled once it has tried them all."""
        if self._other_key is not None:
            return  # libzmq has tried again meanwhile
        others = self._keys.failed(self._endpoint)
        self._tried += 1
        again = self._redials or self._tried <= others
        if others and again:
            self._other_key = self._loop.call_later(_OTHER_KEY_S, self._dial)
        if self._redials or not again:
            self._is(NO_KEY)

    def _is(self, trouble: str) -> None:
        self._trouble = trouble
        self._troubled(trouble)

    def _dial(self) -> None:
        for timer in (self._redial, self._other_key):
            if timer is not None:
                timer.cancel()
        self._redial = self._other_key = None
        with contextlib.suppress(zmq.ZMQError):  # it may have forgotten where it was connected to
            self._socket.disconnect(self._endpoint)
        show_keys(self._socket, self._endpoint, self._keys)
        self._socket.connect(self._endpoint)

    def close(self) -> None:
        for timer in (self._redial, self._other_key):
            if timer is not None:
                timer.cancel()
        self._monitor.close()


class RouterMonitor:
    def __init__(self, loop: asyncio.AbstractEventLoop, sock: zmq.Socket[bytes], port: int) -> None:
        """``port``: the one that the router is about to bind."""
        self._loop = loop
        self._port = port
        # descriptor -> when it was accepted, and from where
        self._strangers: dict[int, tuple[float, str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._complaints = Repeats()
        self._monitor = Monitor(loop, sock, _OF_ROUTERS, self._told)

    def _told(self, event: int, value: int) -> None:
        if event == zmq.Event.ACCEPTED:
            self._strangers[value] = self._loop.time(), self._address(value)
            if len(self._strangers) > MOST_STRANGERS:
                self._look()
            if len(self._strangers) > MOST_STRANGERS:
                self._end(
                    next(iter(self._strangers)), "too many connections have not proved to hold the peer key"
                )
            if self._timer is None:
                self._timer = self._loop.call_later(_LOOK_S, self._look_again)
        elif event & _FAILURES:
            self._failed = True  # of the connection that ends next
        else:
            stranger = self._strangers.pop(value, None)
            if self._failed and stranger is not None:  # else it was ended here
                self._complain(stranger[1], NO_KEY)
            self._failed = False

    def _look_again(self) -> None:
        self._timer = None
        self._look()
        if self._strangers:
            self._timer = self._loop.call_later(_LOOK_S, self._look_again)

    def _look(self) -> None:
        """A connection with a proved key is a stranger no more; one that takes too much or too long ends."""
        now = self._loop.time()
        for descriptor, (since, _) in list(self._strangers.items()):
            sent, received = self._bytes(descriptor)
            if sent > _MOST_TO_A_STRANGER:
                del self._strangers[descriptor]
            elif received > _MOST_OF_A_STRANGER:
                self._end(descriptor, "it sent too much before it proved to have the peer key")
            elif now - since > HELLO_S:
                self._end(descriptor, "no handshake in time")

    def _end(self, descriptor: int, reason: str) -> None:
        """End a connection whose descriptor is libzmq's."""
        _, address = self._strangers.pop(descriptor)
        with contextlib.suppress(OSError), self._borrowed(descriptor) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        self._complain(address, reason)

    def _complain(self, address: str, reason: str) -> None:
        if self._complaints.news((address.rpartition(":")[0], reason), self._loop.time()):
            log.warning("a peer connection was not established", **fields(address, reason))

    def _bytes(self, descriptor: int) -> tuple[int, int]:
        """Bytes sent, each counted once, and received. A connection that is gone counts as no stranger."""
        try:
            with self._borrowed(descriptor) as sock:
                received, sent, again = _BYTES.unpack(
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES.size))
                return sent - again, received
        except (OSError, struct.error):
            return _MOST_TO_A_STRANGER + 1, 0

    def _address(self, descriptor: int) -> str:
        try:
            with self._borrowed(descriptor) as sock:
                host, port = sock.getpeername()[:2]
                return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        except OSError:
            return ""

    @contextlib.contextmanager
    def _borrowed(self, descriptor: int) -> Iterator[socket.socket]:
        """A connection of this port by libzmq's descriptor. OSError if that is another file by now: libzmq
        closes it in a thread of its own, and reports that later."""
        copy = os.dup(descriptor)
        try:
            borrowed = socket.socket(fileno=copy)
        except OSError:  # not even a socket
            os.close(copy)
            raise
        with borrowed as sock:
            if sock.getsockname()[1:2] != (self._port,):
                raise OSError(errno.EBADF, "another file has this descriptor")
            yield sock

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._monitor.close()
