"""The listening side of links (ZeroMQ's ROUTER).

A router knows its partners by the identities that they give. A partner with a known identity replaces the one
before (HANDOVER). ``send`` to an unknown identity returns False (MANDATORY). So does ``send`` to a partner
for which ``hwm`` messages wait, or too many bytes (``stream.MOST_BYTES``); its connection ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial

import structlog

from cluster.endpoints import HANDED, tcp_endpoint
from cluster.repeats import Repeats
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.codec import Decoder
from tools.muster.machine.zmtp.curve.mechanism import CurveDecoder
from tools.muster.machine.zmtp.hints import fields
from tools.muster.machine.zmtp.options import LinkOptions
from tools.muster.machine.zmtp.port.bound import Acceptor, Bound
from tools.muster.machine.zmtp.port.handing import Handed
from tools.muster.machine.zmtp.port.http import QUESTION
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
from tools.muster.machine.zmtp.tls import Handshake, PeerCredentials, Steps, TlsSocket

log = structlog.get_logger("zmtp")

_LOOK_S = 30.0  # between looks for connections that were reset without a word of the loop


class Router:
    """At ``handed://PATH`` a host's peer port hands connections on (``port``). Others are bound here.

    ``receive`` gets ``[identity, *frames]``, and ``send`` takes the same. ``gone(identity)``: a connection
    has ended.

    ``strangers``: each partner is a stranger until :meth:`trust`. A stranger has ``HELLO_S``, and may send
    few and small messages (``stream``). It may also ask for the members by HTTP (``http``). There are
    ``MOST_STRANGERS`` at most.

    With ``own_user`` other users' processes may do no more at a loopback address than ask by HTTP, and this
    user's come by a Unix socket (``own_user``). At other addresses there is HTTP alone."""

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
        self._steps = Steps(loop)
        self._unnamed = 0
        self._complaints = Repeats()
        self.closed = False
        self.trouble = ""
        self.dropped = 0
        self._bound: Bound | None = None
        if endpoint.startswith(HANDED):
            self._source: Acceptor | Handed = Handed(loop, endpoint.removeprefix(HANDED), self._accepted)
        else:
            self._bound = Bound(endpoint, own_user=options.own_user)
            self._source = Acceptor(loop, self._bound.sockets, lambda sock, _: self._accepted(sock))
        self._looks = loop.call_later(_LOOK_S, self._look)

    @property
    def port(self) -> int:
        """Of one that is bound here."""
        assert self._bound is not None
        return self._bound.port

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
            self._loop.call_soon(self._end, stream, "the other side does not read")
        self.dropped += 1
        return False

    def hint(self) -> str:
        return ""

    def unfinished(self) -> int:
        return 0

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

    def _accepted(self, sock: socket.socket) -> None:
        is_unix = sock.family == socket.AF_UNIX
        try:
            end_when_silent(sock, self._options.silence_s)
            where = None if is_unix else sock.getpeername()
        except OSError:  # it has ended
            sock.close()
            return
        near = is_unix and self._options.own_user
        name = tcp_endpoint(*where[:2]).removeprefix("tcp://") if where is not None else ""
        if self._options.tls is None or near:
            self._take(sock, owners.other_end(sock) if near else name, sock)
        else:
            self._shake_hands(sock, name, self._options.tls, _plain(where[0]) if where is not None else "")

    def _take(self, sock: Socket, address: str, below: socket.socket) -> Stream:
        """``below``: the kernel's."""
        keys = self._options.keys
        checks = self._options.own_user and below.family != socket.AF_UNIX
        events = Events(
            self._opened, self._came, self._lost, asked=self._asked if self._wary and keys is None else None,
            refuses=partial(owners.refused, below) if checks else None)
        decoder = Decoder(b"ROUTER") if keys is None else CurveDecoder(b"ROUTER", keys)
        stream = Stream(self._loop, sock, decoder, self._options.hwm, events, address, self._wary)
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
        handshake = Handshake(self._loop, sock, tls, "", done, failed, number, self._steps)
        self._handshakes[handshake] = None

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
        if self._wary and (shaking or (stranger and reason != CLOSED)):  # an own front is no peer
            self._complain(stream.address, reason)

    def _complain(
        self, address: str, reason: str, what: str = "a peer connection was not established"
    ) -> None:
        host = address.rpartition(":")[0]
        if self._complaints.news((host, reason), self._loop.time()):
            log.warning(what, **fields(address, reason, tls=self._options.tls is not None))

    def _look(self) -> None:
        """A router that only listens does not learn by sending that a connection was reset."""
        self._looks = self._loop.call_later(_LOOK_S, self._look)
        for stream in tuple(self._streams.values()):
            stream.look()

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
        self._looks.cancel()
        self._source.close()
        if self._bound is not None:
            self._bound.close()
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
