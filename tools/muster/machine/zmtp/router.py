"""The listening side of links (ZeroMQ's ROUTER).

A router knows its partners by the identities that they give. A partner with a known identity replaces the one
before (HANDOVER). ``send`` to an unknown identity returns False (MANDATORY), and so does ``send`` to a
partner that does not read once ``hwm`` messages, or ``stream.MOST_BYTES``, wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial

import structlog

from cluster.endpoints import tcp_endpoint
from cluster.repeats import Repeats
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.hints import fields
from tools.muster.machine.zmtp.http import QUESTION
from tools.muster.machine.zmtp.options import LinkOptions, split
from tools.muster.machine.zmtp.silence import end_when_silent
from tools.muster.machine.zmtp.stream import (
    CLOSED,
    HELLO_S,
    MOST_STRANGERS,
    Events,
    Receive,
    Socket,
    Stream,
    traffic,
)
from tools.muster.machine.zmtp.tls import Handshake, PeerCredentials, TlsSocket

log = structlog.get_logger("zmtp")

_BACKLOG = 1024
_ACCEPTS = 64  # in one go
_TRIES = 5
_PAUSE_S = 0.5  # without file descriptors there is nothing to accept with


class Router:
    """``receive`` gets ``[identity, *frames]``, and ``send`` takes the same. ``gone(identity)``: a connection
    has ended.

    ``strangers``: each partner is a stranger until :meth:`trust`. A stranger has ``HELLO_S``, and may send
    few and small messages (``stream``). It may also ask for the members by HTTP (``http``). There are
    ``MOST_STRANGERS`` at most.

    With ``own_user`` other users' processes may do no more at a loopback address than ask by HTTP, and this
    user's come by a Unix socket (``own_user``)."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, receive: Receive, options: LinkOptions, *,
        strangers: bool = False, gone: Callable[[bytes], None] | None = None,
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._options = options
        self._wary = strangers
        self._gone = gone
        self._streams: dict[bytes, Stream] = {}
        self._shaking: set[Stream] = set()  # not ready yet
        self._strangers: dict[Stream, asyncio.TimerHandle] = {}  # the oldest one first
        self._handshakes: dict[Handshake, None] = {}  # the oldest one first
        self._unnamed = 0
        self._complaints = Repeats()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.trouble = ""
        self.dropped = 0
        transport, host, port = split(endpoint)
        self._path = host if transport == "ipc" else ""
        self._checks = options.own_user and transport == "tcp"
        self._near = ""  # the path of the Unix socket besides
        self._listeners = [_bound_unix(host) if transport == "ipc" else _bound_tcp(host, port)]
        self._listen()
        self._accept_again()

    def _listen(self) -> None:
        """OSError."""
        try:
            if self._checks:
                self._listen_near()
            else:
                self._listeners[0].listen(_BACKLOG)
        except OSError:
            for listener in self._listeners:
                listener.close()
            raise

    def _listen_near(self) -> None:
        """At the port, and at a Unix socket besides. OSError."""
        (port,) = self._listeners
        host, number = port.getsockname()[:2]
        if not owners.is_near(host):
            raise OSError(errno.EADDRNOTAVAIL, "without a key only a loopback address takes peers", host)
        path = owners.path_of(host, number)
        near = _bound_near(path)
        try:
            port.listen(_BACKLOG)  # of two processes that have bound it, one may: the path is its
            if near is not None and _moved(path):
                self._near = path
                self._listeners.append(near)
        finally:
            if near is not None and not self._near:
                owners.remove(_made(path))
                near.close()

    @property
    def port(self) -> int:
        return int(self._listeners[0].getsockname()[1])

    def send(self, parts: list[bytes]) -> bool:
        stream = self._streams.get(parts[0])
        if stream is None:
            self.dropped += 1
            return False
        if stream.send(parts[1:]):
            traffic.sent += 1
            return True
        if stream.ready:
            log.warning("a connection is stuck: the other side does not read", peer=parts[0].hex())
        self.dropped += 1
        return False

    def hint(self) -> str:
        return ""

    def trust(self, identity: bytes) -> None:
        """The partner of this identity has proved itself: it is no stranger any more."""
        stream = self._streams.get(identity)
        if stream is not None and (timer := self._strangers.pop(stream, None)) is not None:
            timer.cancel()
            stream.trust()

    def drop(self, identity: bytes, reason: str) -> None:
        stream = self._streams.get(identity)
        if stream is not None:
            self._end(stream, reason)

    def address(self, identity: bytes) -> str:
        stream = self._streams.get(identity)
        return stream.address if stream is not None else ""

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as e:
                log.warning("cannot accept a connection", error=str(e))
                if self._timer is None:
                    self._remove_readers()
                    self._timer = self._loop.call_later(_PAUSE_S, self._accept_again)
                return
            sock.setblocking(False)
            end_when_silent(sock, self._options.silence_s)
            is_unix = listener.family == socket.AF_UNIX
            near = is_unix and self._checks
            name = "" if is_unix else tcp_endpoint(*address[:2]).removeprefix("tcp://")
            if self._options.tls is None or near:
                self._take(sock, owners.other_end(sock) if near else name, sock)
            else:
                self._shake_hands(sock, name, self._options.tls, "" if is_unix else _plain(address[0]))

    def _take(self, sock: Socket, address: str, below: socket.socket) -> Stream:
        """``below``: the kernel's."""
        checks = self._checks and below.family != socket.AF_UNIX
        events = Events(
            self._opened, self._came, self._lost, asked=self._asked if self._wary else None,
            refuses=partial(owners.foreign, below) if checks else None)
        stream = Stream(self._loop, sock, b"ROUTER", b"", self._options.hwm, events, address, self._wary)
        self._shaking.add(stream)
        if self._wary:
            if len(self._strangers) >= MOST_STRANGERS:
                self._end(next(iter(self._strangers)), "too many connections without a hello")
            self._strangers[stream] = self._loop.call_later(HELLO_S, self._end, stream, "no hello in time")
        return stream

    def _shake_hands(self, sock: socket.socket, address: str, tls: PeerCredentials, number: str) -> None:
        def done(encrypted: TlsSocket) -> None:
            self._handshakes.pop(handshake, None)
            self._loop.call_soon(self._take(encrypted, address, sock).look)

        def failed(reason: str) -> None:
            self._handshakes.pop(handshake, None)
            self._complain(address, reason, "rejected connection on peer endpoint")  # etcd's words

        if len(self._handshakes) >= MOST_STRANGERS:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.close()
        handshake = Handshake(self._loop, sock, tls, "", done, failed, number)
        self._handshakes[handshake] = None

    def _accept_again(self) -> None:
        self._timer = None
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _remove_readers(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def _opened(self, stream: Stream) -> None:
        self._shaking.discard(stream)
        if not stream.identity:
            self._unnamed += 1
            # a name that a router gives begins with 0, as libzmq's
            stream.identity = b"\0" + self._unnamed.to_bytes(8, "big")
        before = self._streams.get(stream.identity)
        if before is not None:
            before.close()
            self._forget(before)
        self._streams[stream.identity] = stream

    def _asked(self, stream: Stream) -> None:
        """A stranger asks by HTTP what a joining host asks."""
        self._shaking.discard(stream)
        stream.identity = b"\0http" + os.urandom(8)
        self._streams[stream.identity] = stream
        self._receive([stream.identity, QUESTION])

    def _came(self, stream: Stream, parts: list[bytes]) -> None:
        self._receive([stream.identity, *parts])

    def _end(self, stream: Stream, reason: str) -> None:
        stream.close()
        self._lost(stream, reason)

    def _lost(self, stream: Stream, reason: str) -> None:
        shaking, stranger = stream in self._shaking, stream in self._strangers
        self._forget(stream)
        if shaking or (stranger and reason != CLOSED):
            self._complain(stream.address, reason)

    def _complain(
        self, address: str, reason: str, what: str = "a peer connection was not established"
    ) -> None:
        host = address.rpartition(":")[0]
        if self._complaints.news((host, reason), self._loop.time()):
            log.warning(what, **fields(address, reason))

    def _forget(self, stream: Stream) -> None:
        self._shaking.discard(stream)
        if (timer := self._strangers.pop(stream, None)) is not None:
            timer.cancel()
        if self._streams.get(stream.identity) is stream:
            del self._streams[stream.identity]
            if self._gone is not None:
                self._gone(stream.identity)

    def stands(self) -> bool:
        return not self.closed

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._remove_readers()
        if self._near:  # while the port is held: the port's next holder makes its own
            owners.remove(self._near)
        for listener in self._listeners:
            listener.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for stream in (*self._streams.values(), *self._shaking):
            stream.close()
        for timer in self._strangers.values():
            timer.cancel()
        for handshake in self._handshakes:
            handshake.close()
        self._handshakes.clear()
        self._streams.clear()
        self._shaking.clear()
        self._strangers.clear()


def _plain(address: str) -> str:
    """An address as certificates have it: without a zone, and an IPv4 one not mapped to IPv6."""
    return address.partition("%")[0].removeprefix("::ffff:") if "." in address else address.partition("%")[0]


def _bound_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a process that ended without closing it
    made = _bound(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)
    os.chmod(path, 0o600)
    return made


def _bound_near(path: str) -> socket.socket | None:
    """A listening socket, to be moved to the path; None, and a log line, if there can be none."""
    for tries_left in reversed(range(_TRIES)):
        try:
            if not path:
                raise OSError(errno.ENXIO, "the network namespace is not known", "/proc/self/ns/net")
            owners.prepare(path)
            near = _bound_unix(_made(path))
            near.listen(_BACKLOG)
            return near
        except OSError as e:
            if not tries_left or e.errno != errno.ENOENT:  # the folder went with the last one to use it
                _tell_none(path, e)
                break
    return None


def _moved(path: str) -> bool:
    try:
        os.replace(_made(path), path)
    except OSError as e:
        _tell_none(path, e)
        return False
    return True


def _tell_none(path: str, e: OSError) -> None:
    log.warning("cannot listen at a Unix socket: this user's hosts reach this one by its port",
                path=e.filename or path, reason=e.strerror or str(e))


def _made(path: str) -> str:
    """The socket's path until this process has the port."""
    return f"{path}.{os.getpid()}"


def _bound_tcp(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(
        None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bound(sock, address)


def _bound(sock: socket.socket, address: object) -> socket.socket:
    sock.setblocking(False)
    try:
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    return sock
