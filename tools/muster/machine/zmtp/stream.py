"""One ZMTP connection on the event loop.

Hot path. A message there and back between two processes costs 15 us of CPU and 16 us of time this way, and
77 and 65 with libzmq, whose I/O threads must be woken on each side, for sending and for receiving (uvloop,
loopback, 100 bytes, 2-core reference machine).

What is sent goes to the kernel at once, not at the end of the tick: an append is on its way while the leader
writes its own log. What the kernel does not take is kept here: at most ``hwm`` messages, and ``MOST_BYTES``
for a partner that takes nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tools.muster.machine.zmtp import codec
from tools.muster.machine.zmtp.port.http import Request, is_http

_READ_BYTES = 65_536  # below malloc's threshold for maps of its own
_READS = 16  # in one go, so that one connection cannot starve the rest of the loop
_JOIN_BYTES = 65_536  # up to so much, head and body are copied together
_HANDSHAKE_S = 5.0
# of a message; a hello has less than a hundred, and a vote before it some hundreds
STRANGER_BYTES = 4096
# reads, of STRANGER_BYTES each, and messages before its hello; a partner needs some four
_STRANGER_TURNS = 64
HELLO_S = 5.0  # a stranger's time until it has named itself; a partner needs a round trip
# Beyond so many strangers the oldest one goes. To keep a partner out, an enemy has to fill them again within
# the partner's round trip. What they hold is some megabytes in all.
MOST_STRANGERS = 256
CLOSED = "connection closed"
ENDED = (CLOSED, os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE))  # no reason for it is known
LATE = "no handshake in time"
MOST_BYTES = 256 << 20  # large answers to many clients at once may be more, and their partner reads
_TIMES = 4  # so often as much waits for one that reads, at most
_TAKES_S = 3.0  # in which it takes something; turns of its loop or this one may be long

Receive = Callable[[list[bytes]], None]


class Socket(Protocol):
    """What a stream needs of a non-blocking socket, or of ``tls.TlsSocket``."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Traffic:
    """Messages of all sockets of this process."""

    sent: int = 0
    received: int = 0


traffic = Traffic()


@dataclass(frozen=True, slots=True)
class Events:
    """What a stream calls. ``opened``: both sides are ready. ``lost``: once at the end, unless ``close`` was
    called. ``asked``: a stranger asks by HTTP for the members (``http``); ``send`` answers it. ``refuses``:
    why the other side gets nothing but HTTP; "" if there is no reason."""

    opened: Callable[[Stream], None]
    message: Callable[[Stream, list[bytes]], None]
    lost: Callable[[Stream, str], None]
    asked: Callable[[Stream], None] | None = None
    refuses: Callable[[], str] | None = None


class Stream:
    """A connected, non-blocking socket. ``stranger``: the other side may say little until :meth:`trust`."""

    __slots__ = (
        "_backlog", "_backlog_bytes", "_decoder", "_events", "_fd", "_handshake", "_hwm", "_loop", "_message",
        "_request", "_seal", "_socket", "_stranger_turns", "_taken_at", "_waits", "address", "closed",
        "identity", "ready",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: Socket, decoder: codec.Decoder, hwm: int,
        events: Events, address: str = "", stranger: bool = False,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._decoder = decoder
        if stranger:
            decoder.most_bytes, decoder.one_by_one = STRANGER_BYTES, True
        self._seal: Callable[[int, bytes], bytes] | None = None
        self._stranger_turns = 0
        self.address = address  # the other side's, for logs
        self._backlog: deque[bytes | memoryview] = deque()
        self._backlog_bytes = 0
        self._taken_at = 0.0  # when the other side last took something of that
        self._hwm = hwm
        self._events = events
        self._message = events.message
        self.closed = False
        self.ready = False
        self.identity = b""  # the other side's
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handshake: asyncio.TimerHandle | None = loop.call_later(_HANDSHAKE_S, self._late)
        loop.add_reader(self._fd, self._readable)
        self._request: Request | None = None
        self._waits = stranger  # for the first bytes, before it says anything
        if not stranger:
            self._put(decoder.greeting)

    def trust(self) -> None:
        """The other side has proved itself."""
        self._decoder.most_bytes = codec.MAX_MESSAGE_BYTES
        self._decoder.one_by_one = False

    def send(self, parts: list[bytes]) -> bool:
        """Send one message; False if it was dropped."""
        if not self.ready or len(self._backlog) >= self._hwm or self._backlog_bytes >= MOST_BYTES:
            request = self._request
            if self._stuck():
                return request is not None and self._answer(request.members(parts[-1]))
        if self._seal is not None:
            return self._send_sealed(self._seal, parts)
        if len(parts) == 1:
            body = parts[0]
            size = len(body)
            if size <= _JOIN_BYTES:
                return self._put(codec.frame_head(size, False) + body)
            return self._put(codec.frame_head(size, False)) and self._put(body)
        last = len(parts) - 1
        return self._put(
            b"".join([codec.frame_head(len(part), at < last) + part for at, part in enumerate(parts)])
        )

    def _stuck(self) -> bool:
        """Whether the other side gets nothing more: it reads nothing, or has too much before it."""
        if not self.ready or len(self._backlog) >= self._hwm or self._backlog_bytes >= _TIMES * MOST_BYTES:
            return True
        return self._loop.time() - self._taken_at > _TAKES_S

    def _send_sealed(self, seal: Callable[[int, bytes], bytes], parts: list[bytes]) -> bool:
        if len(parts) == 1:
            return self._put(seal(0, parts[0]))
        last = len(parts) - 1
        return self._put(b"".join([seal(codec.MORE * (at < last), part) for at, part in enumerate(parts)]))

    def look(self) -> None:
        """Read what the loop does not tell of: what came before this stream was made, or a reset."""
        if not self.closed:
            self._readable()

    def _put(self, data: bytes) -> bool:
        backlog = self._backlog
        if backlog:
            backlog.append(data)
            self._backlog_bytes += len(data)
            return True
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as e:
            # the sender learns of the loss in a turn of its own
            self.ready = False
            self._loop.call_soon(self._end, e.strerror or str(e))
            return False
        if sent < len(data):
            backlog.append(memoryview(data)[sent:])
            self._backlog_bytes += len(data) - sent
            self._taken_at = self._loop.time()
            self._loop.add_writer(self._fd, self._writable)
        return True

    def _writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                sent = self._socket.send(backlog[0])
                self._backlog_bytes -= sent
                self._taken_at = self._loop.time()
                if sent < len(backlog[0]):
                    backlog[0] = memoryview(backlog[0])[sent:]
                    return
                backlog.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._end(e.strerror or str(e))
            return
        self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        for _ in range(_READS):
            if self.closed:
                return
            try:
                data = self._socket.recv(STRANGER_BYTES if self._decoder.one_by_one else _READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                self._end(e.strerror or str(e))
                return
            if not data:
                self._end(CLOSED)
                return
            if not self._take(data):
                return
            # uvloop reports an error once, with what came before it. Before the handshake is over nothing is
            # sent that would show the error; a router that only listens looks for it
            if len(data) < _READ_BYTES and self.ready:
                return

    def _take(self, data: bytes) -> bool:
        """Take bytes that have come; whether the connection goes on."""
        decoder = self._decoder
        while True:
            stranger = decoder.one_by_one
            if stranger:
                self._stranger_turns += 1
                if self._stranger_turns > _STRANGER_TURNS:
                    self._end("it said too much before its hello")
                    return False
                if self._waits and self._begins(data):
                    return False
            try:
                messages = decoder.feed(data)
            except codec.Broken as e:
                self._put(bytes(decoder.pongs))
                self._end(str(e))
                return False
            if decoder.pongs:
                if len(self._backlog) >= self._hwm:
                    self._end("it does not take what it asks for")
                    return False
                self._put(bytes(decoder.pongs))
                decoder.pongs.clear()
            if not self.ready and decoder.ready and self._handshake is not None:
                self._handshake.cancel()
                self._handshake = None
                self.ready = True
                self.identity = decoder.identity
                self._seal = decoder.seal
                self._events.opened(self)
            message = self._message
            traffic.received += len(messages)
            for parts in messages:
                if self.closed:
                    return False
                message(self, parts)
            if not stranger or not messages:
                return not self.closed
            data = b""  # this message decides what holds for the next one

    def _begins(self, data: bytes) -> bool:
        """Whether the other side speaks HTTP, or is refused. A partner that speaks ZMTP is greeted now."""
        asked = self._events.asked
        if self._request is None:
            if asked is None or not is_http(data):
                self._waits = False
                refuses = self._events.refuses
                if refuses is not None and (reason := refuses()):
                    self._put(codec.GREETING + codec.error_command(reason))
                    self._end(reason)
                    return True
                self._put(self._decoder.greeting)
                return False
            self._request = Request()
        if answer := self._request.take(data):
            self._answer(answer)
        elif self._request.wants_members and asked is not None:
            self._request.wants_members = False
            asked(self)
        return True

    def _answer(self, answer: bytes) -> bool:
        sent = not self.closed and self._put(answer)
        self._loop.call_soon(self._end, CLOSED)
        return sent

    def _late(self) -> None:
        self._handshake = None
        self._end(LATE)

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._events.lost(self, reason)

    def close(self) -> None:
        """Close at once; what the kernel has not taken is dropped."""
        if not self.closed:
            self.closed = True
            self.ready = False
            if self._handshake is not None:
                self._handshake.cancel()
                self._handshake = None
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._backlog.clear()
            self._backlog_bytes = 0
            self._socket.close()
