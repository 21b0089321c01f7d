"""What one connection sends: requests as far as the server's windows allow, one write for each turn of the
loop."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Generic, Protocol, TypeVar, cast

from muster_client.wire.http2 import frames, hpack
from muster_client.wire.http2.frames import DATA, HEAD, HEADERS, WORD

Metadata = tuple[tuple[str, str], ...]
LAST_STREAM = frames.MAX_WINDOW - 10_000_000  # well before the numbers of streams end
_MOST_HEADS = 256
_RENEWALS = 2  # streams that calls leave to renewals of leases: these wait for none


class Outbound:
    """Bytes of one stream that flow control holds back."""

    __slots__ = ("buffer", "end", "window")

    def __init__(self, window: int, data: bytes = b"", *, end: bool = False) -> None:
        self.window, self.buffer, self.end = window, bytearray(data), end


class Sends(Protocol):
    """A stream with what flow control holds back of it."""

    @property
    def outbound(self) -> Outbound: ...


Stream = TypeVar("Stream", bound=Sends)


class Sender(asyncio.Protocol, Generic[Stream]):
    """The sending half of a connection."""

    agent = "muster-client"
    credit_bytes = frames.MAX_WINDOW  # of what the server may send of a stream before it is lent more

    def __init__(self, authority: str, *, secure: bool) -> None:
        self._authority, self._secure = authority, secure
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()  # the server's settings have come
        self._calls: dict[int, Any] = {}
        self._streams: dict[int, Stream] = {}
        self._most_streams = self._most_calls = 1 << 32  # and how many of them while a call begins
        self._heads: dict[tuple[str, int, Metadata], tuple[bytes, bytes]] = {}
        self._out: list[bytes] = []
        self._flushes = False  # soon, or at the end of what is read
        self._next_id = 1
        self._unsent: dict[int, Outbound] = {}
        self._window = self._initial_window = frames.WINDOW
        self._max_frame = frames.FRAME_BYTES
        self._quick = frames.FRAME_BYTES  # a message up to this size goes as one frame at once

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by class, only by behaviour
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            frames.PREFACE
            + frames.settings(((frames.ENABLE_PUSH, 0), (frames.INITIAL_WINDOW_SIZE, self.credit_bytes)))
            + frames.window_update(0, frames.MAX_WINDOW - frames.WINDOW))

    def _begin(self, path: str, timeout_s: float | None, metadata: Metadata) -> int:
        """Send a call's headers; its stream."""
        # Tenths, upwards: few forms are to be kept, and this side ends the call in time by itself
        tenths = 0 if timeout_s in (None, math.inf) else max(1, math.ceil(timeout_s * 10))
        head = self._heads.get((path, tenths, metadata)) or self._head(path, tenths, metadata)
        stream = self._next_id
        self._next_id += 2
        self._out += (head[0], WORD.pack(stream), head[1])
        return stream

    def _head(self, path: str, tenths: int, metadata: Metadata) -> tuple[bytes, bytes]:
        """The first bytes of the HEADERS frame, and its payload, around the number of the stream."""
        timeout = (("grpc-timeout", f"{min(tenths * 100, 99_999_999)}m"),) if tenths else ()
        block = hpack.request(
            path, self._authority, (*timeout, *metadata), secure=self._secure, agent=self.agent)
        if len(block) > frames.FRAME_BYTES:
            raise ValueError(f"the metadata of a call take {len(block)} bytes, {frames.FRAME_BYTES} at most")
        head = HEAD.pack(len(block) << 8 | HEADERS, frames.END_HEADERS, 0)[:5], block
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[path, tenths, metadata] = head
        return head

    def _reset(self, stream: int) -> None:
        self._out.append(frames.frame(frames.RST_STREAM, 0, stream, WORD.pack(frames.CANCEL)))
        self._flush_soon()

    def _pump(self) -> None:
        """Send what the windows allow, the oldest stream first."""
        for stream in list(self._unsent):
            outbound = self._unsent[stream]
            buffer = outbound.buffer
            while True:
                size = max(0, min(len(buffer), self._max_frame, self._window, outbound.window))
                if not size and buffer:
                    break
                last = outbound.end and size == len(buffer)
                if size or last:
                    self._out.append(frames.frame(
                        DATA, frames.END_STREAM if last else 0, stream, bytes(buffer[:size])))
                    del buffer[:size]
                    self._window -= size
                    outbound.window -= size
                if not buffer:
                    del self._unsent[stream]
                    break
        self._flush_soon()

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.MAX_CONCURRENT_STREAMS:
                self._most_streams, self._most_calls = value, value - min(_RENEWALS, value // 8)
            elif key == frames.MAX_FRAME_SIZE:
                self._max_frame = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                held = {id(one): one for one in (*(stream.outbound for stream in self._streams.values()),
                                                 *self._unsent.values())}
                for outbound in held.values():
                    outbound.window += value - self._initial_window
                self._initial_window = value
        self._quick = min(self._max_frame, self._initial_window)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._pump()
        self._admit()

    def _window_update(self, stream: int, payload: bytes) -> None:
        increment = WORD.unpack(payload)[0] & frames.MAX_WINDOW
        if stream == 0:
            self._window += increment
        elif (of := self._streams.get(stream)) is not None:
            of.outbound.window += increment
        elif (outbound := self._unsent.get(stream)) is not None:
            outbound.window += increment
        if self._unsent:
            self._pump()

    def _admit(self) -> None:
        """Send calls that waited for others to end."""
        raise NotImplementedError

    def _close_when_idle(self) -> None:
        if not self._calls and not self._streams and self._transport is not None:
            self._flush()
            self._transport.close()

    def _flush_soon(self) -> None:
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()
