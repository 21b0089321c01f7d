"""One HTTP/2 connection that carries gRPC calls, in the engine's loop.

A call of one answer costs about 5 µs of CPU here: a callback in a dictionary, headers that are ready, blocks
of headers that are looked up, one write for all that a turn of the loop sends.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from muster_client.wire.endpoints import Limits
from muster_client.wire.http2 import frames
from muster_client.wire.http2.answers import NOT_SENT, Block, Blocks, CallError, reset
from muster_client.wire.http2.call import CREDIT, Call
from muster_client.wire.http2.frames import DATA, DATA_AND_PREFIX, HEAD, HEADERS, PREFIX, WORD, ProtocolError
from muster_client.wire.http2.hpack import HeaderError
from muster_client.wire.http2.sending import LAST_STREAM, Metadata, Outbound, Sender

Code = grpc.StatusCode
Done = Callable[[CallError | None, bytes], None]  # None: it ended well, with this answer
PING_S, PONG_S = 10.0, 5.0  # etcd's servers end connections that ping more often than every 5 s
_REPLENISH = 1 << 28  # of the connection's window, which holds nobody back: each stream has its own
_ODD_HEADERS = frames.PADDED | frames.PRIORITY_FLAG | frames.END_HEADERS
_SPARE = 8  # streams that watches leave, which last: calls and renewals of leases would find none
_NEVER = float("inf")
_MALFORMED = "the answer is no message, or more than one"


class _Waiting:
    """A call that is not sent yet, because the server takes no more at a time."""

    __slots__ = ("body", "deadline", "done", "metadata", "path", "stream")

    def __init__(self, path: str, body: bytes, deadline: float, metadata: Metadata, done: Done) -> None:
        self.path, self.body, self.deadline, self.metadata, self.done = path, body, deadline, metadata, done
        self.stream = 0  # once it is sent


Handle = int | _Waiting  # of a call: its stream, or what waits for one; 0: it has failed already


class Connection(Sender[Call]):
    """``ready`` is resolved by the server's settings; ``lost`` is why no more calls can be made. ``on_lost``
    is called then; calls under way may still be answered."""

    credit_bytes = CREDIT

    def __init__(
        self, authority: str, *, secure: bool, on_lost: Callable[[], None], limits: Limits | None = None
    ) -> None:
        super().__init__(authority, secure=secure)
        self._ping_s, self._pong_s = (limits.ping_s, limits.pong_s) if limits else (PING_S, PONG_S)
        self.loop = self._loop
        self.lost = ""
        self.gone = asyncio.Event()  # its socket is closed
        self._on_lost = on_lost
        self._calls: dict[int, tuple[Done, float]] = {}  # with deadlines, by the loop's clock
        self._bodies: dict[int, bytes | bytearray] = {}  # of answers, with gRPC's prefix
        self._refused: dict[int, CallError] = {}  # by their first headers
        self._waiting: deque[_Waiting] = deque()
        self._partial = b""
        self._owed = 0  # of the connection's window
        self._blocks = Blocks()
        self._continued: tuple[int, int, bytearray] | None = None  # stream, flags, and the block so far
        self._heard = self._loop.time()
        self._pinged = False
        self._pings = self._loop.call_later(self._ping_s, self._look)
        self._sweep_at = _NEVER
        self._sweeps: asyncio.TimerHandle | None = None

    @property
    def served(self) -> bool:
        """Whether the server has answered a call."""
        return self._blocks.served

    # -- calls

    def unary(
        self, path: str, body: bytes, timeout_s: float | None, metadata: Metadata, done: Done
    ) -> Handle:
        """Ask; ``done`` is called once, after this returns. The handle is for :meth:`cancel`. No
        ``timeout_s``: it waits until the connection ends."""
        deadline = _NEVER if timeout_s is None else self._loop.time() + timeout_s
        size = PREFIX.size + len(body)
        if (size > self._quick or size > self._window or self._unsent or self.lost
                or len(self._calls) + len(self._streams) >= self._most_calls):
            return self._unary_slowly(_Waiting(path, body, deadline, metadata, done))
        stream = self._begin(path, timeout_s, metadata)
        self._window -= size
        self._calls[stream] = done, deadline
        self._out += (DATA_AND_PREFIX.pack(size << 8, 1, stream, 0, size - 5), body)
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush)
        if deadline < self._sweep_at:
            self._sweep_by(deadline)
        return stream

    def _unary_slowly(self, call: _Waiting) -> Handle:
        if self.lost:
            self._loop.call_soon(call.done, CallError(Code.UNAVAILABLE, NOT_SENT + self.lost), b"")
            return 0
        if call.deadline < self._sweep_at:
            self._sweep_by(call.deadline)
        if len(self._calls) + len(self._streams) >= self._most_calls:
            self._waiting.append(call)
            return call
        timeout_s = None if call.deadline == _NEVER else max(0.0, call.deadline - self._loop.time())
        call.stream = stream = self._begin(call.path, timeout_s, call.metadata)
        self._calls[stream] = call.done, call.deadline
        data = PREFIX.pack(0, len(call.body)) + call.body
        self._unsent[stream] = Outbound(self._initial_window, data, end=True)
        self._pump()
        return stream

    def stream(self, path: str, answer: Any, metadata: Metadata) -> Call:
        """Begin a call of many messages. CallError."""
        if self.lost:
            raise CallError(Code.UNAVAILABLE, NOT_SENT + self.lost)
        if len(self._calls) + len(self._streams) >= self._most_streams:
            raise CallError(Code.UNAVAILABLE, NOT_SENT + "the server takes no more calls of this connection")
        if path.endswith("/Watch") \
                and len(self._streams) >= self._most_streams - min(_SPARE, self._most_streams // 2):
            raise CallError(Code.UNAVAILABLE, NOT_SENT + "it takes no more watches of this connection")
        number = self._begin(path, None, metadata)
        call = self._streams[number] = Call(self, number, self._initial_window, answer)
        self._flush_soon()
        return call

    def cancel(self, call: Handle) -> None:
        """Forget a call, and tell the server, if it was sent."""
        if isinstance(call, _Waiting) and call in self._waiting:
            self._waiting.remove(call)
            return
        stream = call.stream if isinstance(call, _Waiting) else call
        if self._calls.pop(stream, None) is None and self._streams.pop(stream, None) is None:
            return
        self._forget(stream)
        self._reset(stream)
        self._admit()
        if self.lost:
            self._close_when_idle()

    def send_on(self, call: Call, data: bytes, *, end: bool) -> None:
        """Bytes of a stream, as far as they may go (for :class:`Call`)."""
        outbound = call.outbound
        if call.stream in self._streams and not outbound.end:
            outbound.buffer += data
            outbound.end = end
            self._unsent[call.stream] = outbound
            self._pump()

    def lend(self, stream: int, size: int) -> None:
        """Let the server send so much more of a stream (for :class:`Call`)."""
        self._out.append(frames.window_update(stream, size))
        self._flush_soon()

    def close(self, why: str) -> None:
        """End it; calls under way fail."""
        if not self.lost or self._calls or self._streams or self._transport is not None:
            self._lose(why, Code.CANCELLED)

    # -- time

    def _sweep_by(self, deadline: float) -> None:
        if self._sweeps is not None:
            self._sweeps.cancel()
        self._sweep_at = deadline
        self._sweeps = self._loop.call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        """End the calls whose time is over. One timer serves all: most calls end long before."""
        self._sweep_at, self._sweeps = _NEVER, None
        now = self._loop.time()
        late = CallError(Code.DEADLINE_EXCEEDED, "no answer in time")
        for stream, (done, deadline) in list(self._calls.items()):
            if deadline <= now:
                self.cancel(stream)
                done(late, b"")
        for call in [call for call in self._waiting if call.deadline <= now]:
            self._waiting.remove(call)
            call.done(CallError(Code.UNAVAILABLE, NOT_SENT + "the server takes no more calls"), b"")
        deadlines = [deadline for _, deadline in self._calls.values()]
        deadlines += [call.deadline for call in self._waiting]
        if deadlines and min(deadlines) < self._sweep_at:
            self._sweep_by(min(deadlines))

    def _look(self) -> None:
        """Ask a server that has said nothing for long whether it is there, while calls wait for it."""
        self._use_up()  # five million calls fit behind that bound
        if self.lost:
            self._close_when_idle()
        silent_s = self._loop.time() - self._heard
        if self._pinged and silent_s >= self._pong_s:
            self._lose("it does not answer", Code.UNAVAILABLE)
            return
        self._pinged = False
        if not self._calls and not self._streams:
            self._pings = self._loop.call_later(self._ping_s, self._look)
        elif silent_s < self._ping_s:
            self._pings = self._loop.call_later(self._ping_s - silent_s, self._look)
        else:
            self._pinged, self._heard = True, self._loop.time()
            self._out.append(frames.frame(frames.PING, 0, 0, b"muster?!"))
            self._flush_soon()
            self._pings = self._loop.call_later(self._pong_s, self._look)

    # -- receiving

    def data_received(self, data: bytes) -> None:
        self._heard, self._pinged = self._loop.time(), False
        if self._partial:
            data = self._partial + data
        flushes, self._flushes = self._flushes, True  # what is answered meanwhile goes in one write
        try:
            pos = self._read(data)
            self._partial = data[pos:] if pos < len(data) else b""
            if self._owed > _REPLENISH:
                self._out.append(frames.window_update(0, self._owed))
                self._owed = 0
        except ProtocolError as error:
            self._go_away(error.code, str(error))
        except HeaderError as error:
            self._go_away(frames.COMPRESSION_ERROR, str(error))
        finally:
            self._flushes = flushes
        if self._out and not flushes:
            self._flush()
        if self.lost:
            self._close_when_idle()

    def _read(self, data: bytes) -> int:
        """Take each whole frame; where the rest begins."""
        pos, size = 0, len(data)
        calls, bodies, cache = self._calls, self._bodies, self._blocks.cache
        unpack = HEAD.unpack_from
        while size - pos >= HEAD.size:
            head, flags, stream = unpack(data, pos)
            begin = pos + HEAD.size
            length = head >> 8
            if length > frames.FRAME_BYTES:
                raise ProtocolError("a frame larger than was allowed", frames.FRAME_SIZE_ERROR)
            pos = begin + length
            if pos > size:
                return begin - HEAD.size
            kind = head & 0xFF
            if kind == HEADERS and flags & _ODD_HEADERS == frames.END_HEADERS and self._continued is None:
                found = data[begin:pos]
                block = cache.get(found) or self._blocks.read(found)
                if flags & 1 and block.outcome is None and stream in calls and stream not in self._refused:
                    _answer(calls.pop(stream)[0], bodies.pop(stream, b""))
                    self._answered(stream)
                elif flags & 1 or block.refused is not None:
                    self._headers(stream, flags, block)
            elif kind == DATA and not flags and stream in calls and stream not in bodies \
                    and self._continued is None:
                self._owed += length
                bodies[stream] = data[begin:pos]
            else:
                self._frame(kind, flags, stream & frames.MAX_WINDOW, data[begin:pos])
        return pos

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Any frame, at its leisure."""
        if self._continued is not None and (kind != frames.CONTINUATION or self._continued[0] != stream):
            raise ProtocolError("a frame inside a header block")
        try:
            if kind == DATA:
                self._owed += len(payload)
                self._data(stream, flags, frames.content(DATA, flags, payload), len(payload))
            elif kind == HEADERS:
                self._more_headers(stream, flags, frames.content(HEADERS, flags, payload))
            elif kind == frames.CONTINUATION:
                if self._continued is None:
                    raise ProtocolError("CONTINUATION without HEADERS")
                _, first, block = self._continued
                self._continued = None
                self._more_headers(stream, first | flags & frames.END_HEADERS, bytes(block) + payload)
            elif kind == frames.SETTINGS:
                self._settings(flags, payload)
            elif kind == frames.PING:
                if not flags & frames.ACK:
                    self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
                    self._flush_soon()
            elif kind == frames.WINDOW_UPDATE:
                self._window_update(stream, payload)
            elif kind == frames.RST_STREAM:
                self._end(stream, reset(WORD.unpack(payload)[0]))
            elif kind == frames.GOAWAY:
                self._server_goes_away(payload)
            elif kind == frames.PUSH_PROMISE:
                raise ProtocolError("PUSH_PROMISE, although push is off")
        except struct.error:
            raise ProtocolError("a frame of the wrong size", frames.FRAME_SIZE_ERROR) from None

    def _more_headers(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            if len(block) > 1 << 18:
                raise ProtocolError("too many headers")
            self._continued = stream, flags, bytearray(block)
            return
        self._headers(stream, flags, self._blocks.read(block))

    def _headers(self, stream: int, flags: int, block: Block) -> None:
        if stream not in self._calls and stream not in self._streams:
            return  # it was cancelled
        if block.refused is not None:
            self._refused[stream] = block.refused
        if flags & frames.END_STREAM:
            self._end(stream, self._refused.get(stream) or block.outcome)

    def _data(self, stream: int, flags: int, payload: bytes, size: int) -> None:
        if stream in self._calls:
            body = self._bodies.get(stream, b"")
            if not isinstance(body, bytearray):  # the first piece of most answers is their only one
                self._bodies[stream] = body = bytearray(body)
            before = len(body) // (CREDIT // 4)
            body += payload
            if len(body) // (CREDIT // 4) > before:  # its padding is not lent again: it slows itself
                self.lend(stream, CREDIT // 4)
        elif (call := self._streams.get(stream)) is not None and stream not in self._refused:
            call.take(payload, size)
        if flags & frames.END_STREAM:
            self._end(stream, self._refused.get(stream)
                      or CallError(Code.INTERNAL, "the answer ended without a status"))

    def _server_goes_away(self, payload: bytes) -> None:
        """It has not looked at calls above its last stream; others may still be answered."""
        last, code = frames.LAST_AND_CODE.unpack_from(payload)
        text = payload[8:].decode("utf-8", "replace")
        why = f"the server goes away, HTTP/2 code {code}" + (f": {text}" if text else "")
        self._retire(why)
        unseen = CallError(Code.UNAVAILABLE, NOT_SENT + why)
        for stream in [one for one in (*self._calls, *self._streams) if one > last & frames.MAX_WINDOW]:
            self._end(stream, unseen)
        self._close_when_idle()

    # -- endings

    def _end(self, stream: int, error: CallError | None) -> None:
        """End a call otherwise than by the trailers of its one answer."""
        told = self._calls.pop(stream, None)
        call = self._streams.pop(stream, None)
        body = self._bodies.get(stream, b"")
        self._forget(stream)
        if told is not None:
            if error is None:
                _answer(told[0], body)
            else:
                told[0](error, b"")
        elif call is not None:
            call.end(error)
        self._admit()

    def _answered(self, stream: int) -> None:
        """A call is over, and ended well."""
        if self._unsent and self._unsent.pop(stream, None) is not None:
            self._reset(stream)  # the server needs no more of the request
        if self._waiting:
            self._admit()

    def _forget(self, stream: int) -> None:
        self._bodies.pop(stream, None)
        self._refused.pop(stream, None)
        self._unsent.pop(stream, None)

    def _admit(self) -> None:
        while self._waiting and not self.lost \
                and len(self._calls) + len(self._streams) < self._most_calls:
            call = self._waiting.popleft()
            try:
                self._unary_slowly(call)
            except ValueError as error:  # it cannot be sent: others' calls are, all the same
                self._loop.call_soon(call.done, CallError(Code.INTERNAL, NOT_SENT + str(error)), b"")
        self._use_up()

    def _use_up(self) -> None:
        if self._next_id > LAST_STREAM:
            self._retire("the numbers of its streams are used up")

    def _retire(self, why: str) -> None:
        """Take no more calls; those under way go on."""
        if self.lost:
            return
        self.lost = why
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))
            self.ready.exception()  # the task that dialled may have given up
        for call in self._waiting:
            self._loop.call_soon(call.done, CallError(Code.UNAVAILABLE, NOT_SENT + why), b"")
        self._waiting.clear()
        self._loop.call_soon(self._on_lost)

    def _go_away(self, code: int, why: str) -> None:
        self._out.append(frames.frame(frames.GOAWAY, 0, 0, WORD.pack(0) + WORD.pack(code)))
        self._lose(f"it broke HTTP/2: {why}", Code.INTERNAL)

    def _lose(self, why: str, code: grpc.StatusCode) -> None:
        """Answer all calls, and close."""
        self._retire(why)
        error = CallError(code, why)
        for done, _ in self._calls.values():
            self._loop.call_soon(done, error, b"")
        for call in self._streams.values():
            self._loop.call_soon(call.end, error)
        for table in (self._calls, self._streams, self._bodies, self._unsent, self._refused):
            table.clear()
        self._flush()
        self._pings.cancel()
        if self._sweeps is not None:
            self._sweeps.cancel()
        if self._transport is not None:
            if code is Code.UNAVAILABLE:
                self._transport.abort()  # nobody takes what is still to be sent
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.gone.set()
        why = f"the connection ended: {exc or 'closed by the server'}"
        self._lose(why, Code.UNAVAILABLE)


def _answer(done: Done, body: bytes | bytearray) -> None:
    """A call that ended well."""
    if body[:5] == PREFIX.pack(0, max(0, len(body) - 5)):
        done(None, bytes(body[5:]))
    else:
        done(CallError(Code.INTERNAL, _MALFORMED), b"")
