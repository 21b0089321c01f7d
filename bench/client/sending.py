"""What one HTTP/2 connection sends: requests as far as the server's windows allow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bench.client import frames
from bench.client.frames import DATA, FRAME, HEADERS, WORD

_RETIRE_AT_STREAM = 0x7FFFFFFF - 10_000_000  # well before stream ids end: checked once a flush


class Outbound:
    """Request bytes of one stream that flow control holds back."""

    __slots__ = ("buffer", "end", "window")

    def __init__(self, window: int, data: bytes = b"", *, end: bool = False) -> None:
        self.window = window
        self.buffer = bytearray(data)
        self.end = end


class Sender:
    """The sending half of a connection: windows, buffers, one write for each read or turn of the loop."""

    def __init__(self, authority: str, metadata: Iterable[tuple[str, str]], *, secure: bool) -> None:
        self.authority = authority
        self._metadata = tuple(metadata)
        self._secure = secure
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._methods: dict[str, tuple[bytes, bytes]] = {}  # path -> first 5 bytes of HEADERS frame, block
        self._out: list[bytes] = []
        self._corked = False  # within a read, which ends with a flush
        self._flush_scheduled = False
        self._next_id = 1
        self._unsent: dict[int, Outbound] = {}
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame = 16_384
        self._quick = 16_384  # a message up to this size goes out as one frame at once

    def _method(self, path: str) -> tuple[bytes, bytes]:
        block = frames.header_block(path, self.authority, self._metadata, secure=self._secure)
        head = FRAME.pack(len(block) << 8 | HEADERS, frames.END_HEADERS, 0)[:5]
        self._methods[path] = head, block
        return head, block

    def _open_stream(self, path: str) -> int:
        head, block = self._methods.get(path) or self._method(path)
        stream_id = self._next_id
        self._next_id += 2
        self._out += (head, WORD.pack(stream_id), block)
        return stream_id

    def _reset(self, stream_id: int) -> None:
        self._out.append(frames.frame(frames.RST_STREAM, 0, stream_id, WORD.pack(frames.CANCEL)))

    def _pump(self) -> None:
        """Send what the windows allow, oldest stream first."""
        for stream_id in list(self._unsent):
            outbound = self._unsent[stream_id]
            buffer = outbound.buffer
            while True:
                size = max(0, min(len(buffer), self._max_frame, self._window, outbound.window))
                if not size and buffer:
                    break
                last = outbound.end and size == len(buffer)
                if size or last:
                    self._out.append(frames.frame(DATA, frames.END_STREAM if last else 0, stream_id,
                                                  bytes(buffer[:size])))
                    del buffer[:size]
                    self._window -= size
                    outbound.window -= size
                if not buffer:
                    del self._unsent[stream_id]
                    break
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._corked and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        if self._next_id > _RETIRE_AT_STREAM:
            self._ids_used_up()

    def _ids_used_up(self) -> None:
        raise NotImplementedError
