"""One connection of a client: HTTP/2 or HTTP/1.1, which its first bytes show.

All that is read at once is processed before anything is written. What is said in a tick leaves in one
``transport.write``: at the end of the read, or in the server's one call for all connections. A client that
does not read stops being read (``Limits.max_unsent_bytes``).
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, cast

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.grpc.calls import Peer
from proxy.http.backlog import LARGE_BYTES, LOUD_TURNS
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import PREFACE, Connection
from proxy.http.http2.outbound import PUMP_BYTES
from proxy.http.memory import STEP_BYTES
from proxy.listener.traffic import Serves
from proxy.tls import TLS_IN_CLEAR, TlsLayer

if TYPE_CHECKING:
    from proxy.listener.server import Server

_AT_ONCE_BYTES = 16_384
_HELD_BYTES = 16_384  # of a new connection, until its turn comes
_TURN_BYTES = 524_288  # written to a connection in a turn of the loop, 0.3 ms: others wait meanwhile
_TAKES_S = 2.0  # a stop does not wait for a client that takes nothing for so long; looked at each second


class ClientConnection(asyncio.Protocol):
    __slots__ = ("accepted", "behind", "closed_at", "closing", "counted", "dirty", "ended", "fd", "grace",
                 "http1", "http2", "layer", "loop", "paused_reading", "peer", "peer_name", "secure",
                 "server", "serves", "sniffed", "taken", "taken_at", "transport", "turns", "unwritable",
                 "waits", "written")

    def __init__(self, server: Server, serves: Serves) -> None:
        self.server = server
        self.serves = serves
        self.loop = server.loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.fd = -1  # of a connection without TLS
        self.layer: TlsLayer | None = None  # of one with TLS
        self.http1: Http1Connection | None = None
        self.http2: Connection | None = None
        self.sniffed = b""
        self.peer = ""
        self.secure = False  # by TLS
        self.peer_name: str | None = None  # in the client's certificate, with --client-cert-auth
        self.accepted = 0.0
        self.dirty = False
        self.closing = False
        self.closed_at = 0.0
        self.paused_reading = False
        self.behind = False  # something that has been read waits for its turn
        self.turns = 0  # had in succession, about
        self.grace = 0  # bytes that it may send before it is taken for loud; 0: it is not
        self.ended = False  # the client has ended its side behind that
        self.waits = False  # until the client has taken more, before it goes on
        self.unwritable = False
        self.counted = 0  # of HTTP/1.1, by ``proxy.http.memory``
        self.written = 0  # bytes given to the transport
        self.taken = 0  # of these the client had taken
        self.taken_at = 0.0  # when that last grew

    # -- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        limits = self.server.limits
        self.transport.set_write_buffer_limits(high=limits.write_high_bytes, low=limits.write_high_bytes >> 2)
        self.layer = transport.get_extra_info("tls_layer")
        if self.layer is None:
            self.in_clear(self.transport)
        name = transport.get_extra_info("peername")
        self.accepted = self.taken_at = self.loop.time()
        number = self.server.opened(self)
        # a client of a Unix socket has no address: connections have shares by it (proxy.routing.in_turn)
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else f"@{number}"

    def in_clear(self, transport: asyncio.Transport) -> None:
        """Nothing lies between this and the socket."""
        self.transport, self.layer = transport, None
        socket = transport.get_extra_info("socket")
        if socket is not None:
            self.fd = socket.fileno()

    def data_received(self, data: bytes) -> None:
        http2 = self.http2
        if http2 is not None:
            self.server.received_bytes += len(data)
            self.dirty = True  # what is said inside the read is written below
            if self.turns or self.grace or len(data) > LARGE_BYTES:
                http2.turn_work = self._turn_work(len(data))
            else:
                backlog = self.server.backlog
                backlog.heard = backlog.at_once = True
            try:
                http2.receive(data, self.loop.time())
                self.flush()
            except HANDLER_MISTAKES as error:
                self._fault(error)
            if http2.more:
                self.again()
        elif (http1 := self.http1) is not None:
            if self.closing:  # it is read only for the client to get what was said last
                return
            try:
                answered = http1.receive(data, self.loop.time())
            except HANDLER_MISTAKES as error:
                self._fault(error)
                return
            if answered and not (self.counted or self.transport.get_write_buffer_size()):
                return
            if self.behind and not self.paused_reading and len(data) <= LARGE_BYTES:
                return  # little data, kept for a moment
            self._count()
            if http1.overrun:
                self.refuse()
            elif http1.full:
                self._pause_reading()
        else:
            self._sniff(data)

    def _turn_work(self, size: int) -> int:
        if self.grace:
            self.grace = max(self.grace - size, 0)
            if not self.grace:
                self.turns = LOUD_TURNS + 1
        return self.server.backlog.work(self.turns, size)

    def again(self) -> None:
        """Go on with what was read in a later turn of the loop; read nothing until then."""
        if not self.behind:
            self.behind = True
            self._pause_reading()
            self.turns = self.server.backlog.again(self._go_on, self.turns)

    def later(self) -> bool:
        """Whether what was read waits for a later turn of the loop."""
        if self.behind:
            self._pause_reading()
        elif self.paused_reading or self.server.backlog.spent(self.turns):  # ``_go_on`` reads on
            self.behind = True
            self.turns = self.server.backlog.add(self._go_on, self.turns)
        elif not self.turns:
            self.server.backlog.heard = True
        return self.behind

    def _go_on(self) -> None:
        self.behind = self.waits = False
        if self.closing:
            return
        if self.unwritable and self._unsent() > self.server.limits.max_unsent_bytes >> 1:
            self.waits = True  # the client reads nothing: it goes on with that
            return
        if self.http1 is not None:
            try:
                self.http1.go_on()
                self.recount()
            except HANDLER_MISTAKES as error:
                self._fault(error)
        else:
            new = self.http2 is None
            self.data_received(b"")
            if new and self.http2 is not None and self.server.stopping:
                self.drain()
        self.turns >>= not self.behind
        if self.http2 is None:
            if self.ended and not (self.behind or self._answers_on()):
                self.close()
            elif self.server.stopping:
                self.drain()
        if not (self.unwritable or (self.http1 is not None and self.http1.full)):
            self._resume_reading()

    def refuse(self) -> None:
        self.closing = True
        self.transport.abort()

    def _fault(self, error: Exception) -> None:
        faults.met("reading a client's connection", error)
        self.closing = True
        self.transport.abort()

    def eof_received(self) -> bool:
        self.taken_at = self.loop.time()  # it has so long for the rest
        if self.http2 is None and (
            self.behind or ((self.http1 is None or self.http1.idle) and self.later())
        ):
            self.ended = True  # what was read has its turn first
            return True
        return self._answers_on()

    def _answers_on(self) -> bool:
        """Whether a request is answered before the connection ends. The client has ended its side."""
        if self.http1 is None or self.http1.idle or self.closing:
            return False
        try:
            return self.http1.half_closed() and not self.closing
        except HANDLER_MISTAKES as error:
            self._fault(error)
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.server.gone(self)
        if self.http2 is not None:
            self.http2.now = self.loop.time()
            self._end(self.http2)
        if self.http1 is not None:
            self.http1.lost()
            self.server.memory.count(self, 0)
        self.http2 = self.http1 = None  # they refer to this: all of it is freed at once

    def _end(self, http2: Connection) -> None:
        """End its streams, some in each turn of the loop."""
        http2.lost()
        if http2.streams:
            self.turns = self.server.backlog.again(partial(self._end, http2), self.turns)

    def pause_writing(self) -> None:
        self.unwritable = True
        if self.http2 is not None:
            self.http2.pause_writing()

    def resume_writing(self) -> None:
        self.unwritable = False
        try:
            if self.http2 is not None:
                self.http2.resume_writing()
            if self.http1 is not None:
                self.http1.drained()
                self.recount()
        except HANDLER_MISTAKES as error:
            self.loop.call_soon(self._fault, error)  # asyncio cannot bear an abort within this
            return
        if self.waits:
            self.again()
        self._resume_reading()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size() + (self.http2.queued if self.http2 is not None else 0)

    # -- which protocol

    def _sniff(self, data: bytes) -> None:
        read, data = data, self.sniffed + data
        if read and len(data) <= _HELD_BYTES and self.later():  # in its turn, nothing was read
            self.sniffed = data
            return
        head = PREFACE[: min(len(data), 14)]  # "PRI * HTTP/2.0": no HTTP/1.1 request line begins so
        if not data.startswith(head):
            self.sniffed, serves = b"", self.serves
            if data[:1] == b"\x16" and not self.secure:  # a client that begins with TLS
                self.server.handshake_failed(self.peer.rpartition(":")[0], TLS_IN_CLEAR)
            if not serves.http1:
                self.close()
                return
            self.http1 = Http1Connection(serves.find_http, self.server.limits, self, self.peer,
                                         self.loop.time(), *serves.short_ways)
            self.http1.secure, self.http1.peer_name = self.secure, self.peer_name
            self.transport.set_write_buffer_limits(self.server.limits.drain_mark_bytes)
            self.data_received(data)
        elif len(head) < 14:
            self.sniffed = data
        elif not (self.secure or self.serves.http2_in_clear):
            self.close()
        else:
            self.sniffed = b""
            self.dirty = True
            self.grace = self.server.backlog.newcomers_grace()
            self.http2 = Connection(
                self.serves.open, self.server.limits, self.loop.time(), self.mark,
                Peer(self.peer, self.server.deadlines, self.peer_name, secure=self.secure,
                     spent=self.server.backlog.over, in_turn=self.server.backlog.add), self.server.memory)
            self.data_received(data)

    # -- writing

    def mark(self) -> None:
        if not self.dirty:
            self.dirty = True
            self.server.schedule(self)

    def flush(self) -> None:
        """Write what HTTP/2 has said."""
        self.dirty = False
        http2 = self.http2
        if http2 is None or self.closing:
            return
        left = _TURN_BYTES
        while data := http2.take():
            self.server.sent_bytes += len(data)
            self._send(data)
            left -= max(len(data), PUMP_BYTES)  # small frames take as long as large ones
            if self.unwritable:
                if self._unsent() > self.server.limits.max_unsent_bytes >> 1:
                    self._pause_reading()  # before calls would have to be refused
                break
            if not http2.ready:
                break
            if left <= 0:  # the rest in another turn of the loop
                self.mark()
                break
        if http2.finished and not http2.out:
            if http2.failed:
                self.server.backlog.turned_out()
            self.close(half=http2.drained)
            if http2.streams:
                self._end(http2)

    def _send(self, data: bytes) -> None:
        """Small data goes to the kernel at once. The transport gets the rest, and finds that a connection is
        broken."""
        transport, http2, sent = self.transport, self.http2, 0
        self.written += len(data)
        if len(data) <= _AT_ONCE_BYTES and self.fd >= 0 and not (
            transport.get_write_buffer_size() or transport.is_closing()
        ):
            try:
                sent = os.write(self.fd, data)
            except OSError:
                sent = 0
        if sent < len(data):
            transport.write(data[sent:])
            if http2 is not None:
                http2.unsent = transport.get_write_buffer_size()
        elif http2 is not None and http2.unsent:
            http2.unsent = 0

    def write(self, data: bytes) -> None:
        """HTTP/1.1's output."""
        if not self.closing:
            self.written += len(data)
            self.transport.write(data)

    def write_now(self, data: bytes) -> None:
        """The same, at once."""
        if not self.closing:
            self._send(data)

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def close(self, *, half: bool = False) -> None:
        """Close once everything written is sent. ``half``: the client closes, at most ``linger_s`` later. A
        socket that is closed with unread bytes takes back what the client has not got yet, such as GOAWAY."""
        if not self.closing:
            self.closing = True
            self.closed_at = self.loop.time()
            if half and self.transport.can_write_eof():
                self._resume_reading()
                self.transport.write_eof()
            else:
                self.transport.close()

    def _pause_reading(self) -> None:
        if not self.paused_reading and not self.closing:
            self.paused_reading = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.paused_reading and (self.closing or not (self.behind or self.waits)):
            self.paused_reading = False
            self.transport.resume_reading()

    # -- from the server

    def tick(self, now: float) -> None:
        """Once a second."""
        if self.closing:
            if now - self.closed_at > self.server.limits.linger_s:
                self.transport.abort()
            return
        self._look_at_taken(now)
        if self.http2 is not None:
            self.http2.unsent = self.transport.get_write_buffer_size()
            self.http2.recount()
            self.http2.tick(now)
            if self.http2.finished:
                self.flush()
        elif self.http1 is not None:
            if self.http1.overrun:  # it was paused before the answer began
                self.refuse()
            self.http1.tick(now, self.behind)
            if self.counted or not self.http1.idle or self.transport.get_write_buffer_size():
                self._count()
            if self.paused_reading and not self.http1.full:
                self._resume_reading()
        elif now - self.accepted > self.server.limits.handshake_timeout_s:
            self.close()

    def _count(self) -> None:
        """What HTTP/1.1 holds."""
        http1 = self.http1
        if http1 is not None and not self.closing:
            size = http1.unfinished + http1.backlog + http1.unsent_bytes()
            if not -STEP_BYTES < size - self.counted < STEP_BYTES or (self.counted and not size):
                self.server.memory.count(self, size)

    def recount(self) -> None:
        if self.counted:
            self._count()

    @property
    def crowded(self) -> bool:
        return self.server.memory.crowded(self)

    def turned_away(self) -> None:
        self.server.memory.refused += 1

    def _look_at_taken(self, now: float) -> None:
        """A client that takes no answers for long, and holds more than its share of a full memory, loses its
        connection. So does one that leaves the end of its last answer for as long as it may be idle."""
        # by TLS each write is larger, and some are TLS' own
        written = self.written if self.layer is None else self.layer.written
        taken = written - self.transport.get_write_buffer_size()
        if taken != self.taken or not self._unsent():
            self.taken, self.taken_at = taken, now
            return
        http1, limits = self.http1, self.server.limits
        if now - self.taken_at > limits.stalled_s and self.server.memory.crowded(self.http2 or self):
            self.server.ended_stalled += 1
            self.refuse()
        # the kernel takes more only once a third of its buffer is free: a slow reader seems to take nothing
        elif http1 is not None and http1.ends and now - self.taken_at > max(
            limits.linger_s, limits.stalled_s if http1.ended else limits.http1_idle_timeout_s
        ):
            self.refuse()

    def drain(self) -> None:
        if self.http2 is not None:
            self.http2.drain()
        elif self.http1 is not None:
            self.http1.drain(self.behind)
        elif not self.behind:
            self.close()

    @property
    def done(self) -> bool:
        """Nothing is being answered, and nothing can come that must be."""
        if self.http2 is not None:
            return self.http2.finished
        if self.hands_on:
            return self.loop.time() - self.taken_at > _TAKES_S
        return not self.behind and (self.http1 is None or self.http1.request is None)

    @property
    def hands_on(self) -> bool:
        """The end of an answer waits for its client alone."""
        return self.http1 is not None and self.http1.ends
