"""One HTTP/2 connection that carries gRPC calls: the hot path of the client.

A unary call costs about 5 us of CPU, because it makes nothing but bytes: a callback in a dictionary, ready
header blocks, whole response blocks looked up, one write for each read or turn of the loop. Callbacks run in
the loop's thread and may call again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable

from hpack import HPACKError
from muster_client.wire.http2 import frames
from muster_client.wire.http2.frames import DATA, DATA_AND_PREFIX, HEAD, HEADERS, PREFIX, WORD, ProtocolError
from muster_client.wire.http2.sending import LAST_STREAM, Outbound, Sender

from bench.client.errors import RpcError, Status
from bench.client.headers import Block, HeaderReader
from bench.client.stream import OnRun, Stream

#: ``callback(error, body)``: ``error`` is None for status OK, and ``body`` then is the response message.
Callback = Callable[[RpcError | None, bytes], None]

_REPLENISH = 1 << 28
_ODD_DATA = frames.PADDED
_ODD_HEADERS = frames.PADDED | frames.PRIORITY_FLAG | frames.END_HEADERS

_RST_TO_GRPC = {
    frames.REFUSED_STREAM: Status.UNAVAILABLE,
    frames.CANCEL: Status.CANCELED,
    frames.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
}


_MALFORMED = "malformed response message"


class Connection(Sender[Stream]):
    """An HTTP/2 connection to one endpoint, made by :meth:`open`.

    ``on_lost(connection, error)`` runs once it can carry no more calls, after the callbacks of open calls.
    """

    agent = "muster-bench"

    def __init__(self, authority: str, *, metadata: Iterable[tuple[str, str]] = (),
                 on_lost: Callable[[Connection, RpcError], None] | None = None, secure: bool = False) -> None:
        super().__init__(authority, secure=secure)
        self.authority = authority
        self._metadata = tuple(metadata)
        self._methods: dict[str, tuple[bytes, bytes]] = {}  # path -> first 5 bytes of HEADERS frame, block
        self.lost: RpcError | None = None  # set once no further call can be made
        self._on_lost = on_lost
        self.on_outdated: Callable[[], None] | None = None  # a call is refused for its token
        self.closed = asyncio.Event()  # the transport is gone
        self._calls: dict[int, Callback] = {}
        self._bodies: dict[int, bytes | bytearray] = {}  # response bytes, with the gRPC prefix
        self._http_errors: dict[int, RpcError] = {}
        self._waiting: deque[tuple[str, bytes, Callback]] = deque()  # above the server's stream limit
        self._partial = b""
        self._unacknowledged = 0
        self._headers = HeaderReader()
        self._cache = self._headers.cache
        self._continued: tuple[int, int, bytearray] | None = None  # stream, flags, block so far

    @classmethod
    async def open(cls, host: str, port: int, *, timeout_s: float = 5.0,
                   metadata: Iterable[tuple[str, str]] = (),
                   on_lost: Callable[[Connection, RpcError], None] | None = None,
                   tls: ssl.SSLContext | None = None, source: str | None = None) -> Connection:
        """Connect, and wait for the server's settings. OSError or TimeoutError if that fails.

        ``tls`` offers ``h2`` by ALPN, as :func:`bench.client.tls_context` does. ``source`` is an own address.
        """
        loop = asyncio.get_running_loop()
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        connection = cls(authority, metadata=metadata, on_lost=on_lost, secure=tls is not None)
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(lambda: connection, host, port, ssl=tls,
                                             local_addr=None if source is None else (source, 0))
                await connection.ready
        except BaseException:
            connection._on_lost = None
            connection.close()
            raise
        return connection

    # -- calls

    @property
    def open_calls(self) -> int:
        """Calls and streams that have not ended, with calls that wait for the server's stream limit."""
        return len(self._calls) + len(self._streams) + len(self._waiting)

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        """Make a unary call; ``callback`` runs exactly once, after this returns.

        Returns the id for :meth:`cancel`; 0 where the call waits for a free stream or fails at once.
        """
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._head(path, 0, self._metadata)
        stream_id = self._next_id
        calls = self._calls
        size = len(body) + 5
        if (size > self._quick or size > self._window or len(calls) >= self._most_streams or self.lost
                or self._unsent):
            return self._slow_call(path, body, callback)
        self._next_id = stream_id + 2
        self._window -= size
        calls[stream_id] = callback
        self._out += (method[0], WORD.pack(stream_id), method[1],
                      DATA_AND_PREFIX.pack(size << 8, 1, stream_id, 0, size - 5), body)
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush)
        return stream_id

    def _slow_call(self, path: str, body: bytes, callback: Callback) -> int:
        if self.lost is not None:
            error = RpcError(self.lost.code, self.lost.message, sent=False)
            self._loop.call_soon(callback, error, b"")
            return 0
        if len(self._calls) + len(self._streams) >= self._most_streams:
            self._waiting.append((path, body, callback))
            return 0
        stream_id = self._begin(path, None, self._metadata)
        self._calls[stream_id] = callback
        self._unsent[stream_id] = Outbound(self._initial_window, PREFIX.pack(0, len(body)) + body, end=True)
        self._pump()
        return stream_id

    def stream(self, path: str, on_message: Callable[[bytes], None],
               on_end: Callable[[RpcError | None], None], on_run: OnRun | None = None) -> Stream:
        """Open a streaming call. Raises :class:`RpcError` on a connection that is lost."""
        if self.lost is not None:
            raise RpcError(self.lost.code, self.lost.message, sent=False)
        number = self._begin(path, None, self._metadata)
        stream = Stream(self, number, self._initial_window, on_message, on_end, on_run)
        self._streams[stream.id] = stream
        self._flush_soon()
        return stream

    def send_with(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Send these metadata with later calls."""
        self._metadata = tuple(metadata)
        self._methods.clear()

    def cancel(self, stream_id: int) -> None:
        """Forget an open call and reset it at the server; its callback is not called."""
        if self._calls.pop(stream_id, None) is None and self._streams.pop(stream_id, None) is None:
            return
        self._forget(stream_id)
        self._reset(stream_id)

    def close(self) -> None:
        """Close the connection; open calls end with CANCELLED."""
        self._lose(RpcError(Status.CANCELED, "connection closed by this side"))

    async def wait_closed(self, limit_s: float = 1.0) -> None:
        """After :meth:`close`: wait until the transport is gone; at the limit it is aborted."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(limit_s):
                await self.closed.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
                await asyncio.sleep(0)

    def send_on(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Queue bytes of a stream and send what may go (for :class:`Stream`)."""
        if stream.id not in self._streams or stream.outbound.end:
            return
        outbound = stream.outbound
        outbound.buffer += data
        outbound.end = end
        self._unsent[stream.id] = outbound
        self._pump()

    # -- receiving

    def data_received(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
        flushes, self._flushes = self._flushes, True  # what is sent meanwhile goes in one write
        try:
            pos = self._read_frames(data)
            self._partial = data[pos:] if pos < len(data) else b""
            if self._waiting:
                self._admit()
            if self._unacknowledged > _REPLENISH:
                self._out.append(frames.window_update(0, self._unacknowledged))
                self._unacknowledged = 0
        except ProtocolError as error:
            self._goaway(error.code, str(error))
        except HPACKError as error:
            self._goaway(frames.COMPRESSION_ERROR, f"header block: {error}")
        finally:
            self._flushes = flushes
        if self._out and not flushes:
            self._flush()
        if self._next_id > LAST_STREAM:
            self._retire(RpcError(Status.UNAVAILABLE, "stream ids of the connection used up", sent=False))
        if self.lost is not None:
            self._close_when_idle()

    def _read_frames(self, data: bytes) -> int:
        """Take every whole frame; where the rest begins."""
        pos, size = 0, len(data)
        calls, bodies, cache = self._calls, self._bodies, self._cache
        unpack = HEAD.unpack_from
        while size - pos >= 9:
            head, flags, stream_id = unpack(data, pos)
            end = pos + 9 + (head >> 8)
            if end > size:
                break
            kind = head & 0xFF
            if kind == HEADERS and flags & _ODD_HEADERS == frames.END_HEADERS and self._continued is None:
                found = data[pos + 9 : end]
                block = cache.get(found)
                if block is None:
                    block = self._headers.read(found)
                if flags & 1 and stream_id in calls and stream_id not in self._http_errors:
                    callback = calls.pop(stream_id)
                    body = bodies.pop(stream_id, b"")
                    if block.outcome is not None:
                        self._refused(callback, block.outcome)
                    elif body[:5] == PREFIX.pack(0, len(body) - 5 & 0xFFFFFFFF):
                        callback(None, bytes(body[5:]))
                    else:
                        callback(RpcError(Status.INTERNAL, _MALFORMED), b"")
                elif flags & 1 or block.http_error is not None:
                    self._other_headers(stream_id, flags, block)
            elif kind == DATA and not flags & _ODD_DATA and self._continued is None:
                self._unacknowledged += end - pos - 9
                if stream_id in calls and stream_id not in bodies and not flags:
                    bodies[stream_id] = data[pos + 9 : end]
                else:
                    end = self._other_data(stream_id, flags, data, pos, end)
            else:
                self._other_frame(kind, flags, stream_id & 0x7FFFFFFF, data[pos + 9 : end])
            pos = end
        return pos

    def _refused(self, callback: Callback, error: RpcError) -> None:
        if error.outdated_login and self.on_outdated is not None:
            self.on_outdated()
        callback(error, b"")

    def _other_data(self, stream_id: int, flags: int, data: bytes, pos: int, end: int) -> int:
        """DATA of a stream, or more of a unary answer; where the last frame taken ends.

        A stream may take frames of the same size behind this one too."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.on_run is not None and not flags:
            after = stream.take_runs(data, pos, end)
            if after > pos:
                size = end - pos - 9
                self._unacknowledged += (after - end) // (end - pos) * size
                self._acknowledge(stream, (after - pos) // (end - pos) * size)
                return after
        self._take_data(stream_id, flags, data[pos + 9 : end], end - pos - 9)
        return end

    def _acknowledge(self, stream: Stream, size: int) -> None:
        stream.unacknowledged += size
        if stream.unacknowledged > _REPLENISH:
            self._out.append(frames.window_update(stream.id, stream.unacknowledged))
            stream.unacknowledged = 0

    def _take_data(self, stream_id: int, flags: int, payload: bytes, size: int) -> None:
        """The payload of a DATA frame that took ``size`` bytes of the windows."""
        if stream_id in self._calls:
            body = self._bodies.get(stream_id, b"")
            if not isinstance(body, bytearray):  # the first piece of most answers is their only one
                self._bodies[stream_id] = body = bytearray(body)
            body += payload
        elif (stream := self._streams.get(stream_id)) is not None:
            self._acknowledge(stream, size)
            stream.receive(payload)
        else:
            return  # of a call that was cancelled
        if flags & frames.END_STREAM:
            self._end(stream_id, self._http_errors.get(stream_id)
                      or RpcError(Status.INTERNAL, "stream ended without trailers"))

    def _other_headers(self, stream_id: int, flags: int, block: Block) -> None:
        """Headers that end a stream, and any with an HTTP error."""
        if block.http_error is not None and (stream_id in self._calls or stream_id in self._streams):
            self._http_errors[stream_id] = block.http_error
        if flags & frames.END_STREAM:
            self._end(stream_id, self._http_errors.get(stream_id) or block.outcome)

    def _other_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._continued is not None and kind != frames.CONTINUATION:
            raise ProtocolError("frame inside a header block")
        if kind in (DATA, HEADERS):
            self._padded(kind, flags, stream_id, payload)
        elif kind == frames.CONTINUATION:
            if self._continued is None or self._continued[0] != stream_id:
                raise ProtocolError("CONTINUATION without HEADERS")
            self._continued[2].extend(payload)
            if flags & frames.END_HEADERS:
                _, first_flags, collected = self._continued
                self._continued = None
                self._whole_headers(stream_id, first_flags, bytes(collected))
        elif kind == frames.SETTINGS:
            self._settings(flags, payload)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        elif kind == frames.RST_STREAM:
            code = WORD.unpack(payload)[0]
            error = RpcError(
                _RST_TO_GRPC.get(code, Status.INTERNAL), f"stream reset by the server, HTTP/2 code {code}",
                sent=code != frames.REFUSED_STREAM,
            )
            self._end(stream_id, error)
        elif kind == frames.GOAWAY:
            self._server_goes_away(payload)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("PUSH_PROMISE although push is off")

    def _padded(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """DATA or HEADERS with padding, a priority, or a block that goes on in CONTINUATION."""
        content = frames.content(kind, flags, payload)
        if kind == DATA:
            self._unacknowledged += len(payload)
            self._take_data(stream_id, flags, content, len(payload))
        elif flags & frames.END_HEADERS:
            self._whole_headers(stream_id, flags, content)
        else:
            self._continued = stream_id, flags, bytearray(content)

    def _whole_headers(self, stream_id: int, flags: int, data: bytes) -> None:
        block = self._headers.read(data)
        if flags & frames.END_STREAM or block.http_error is not None:
            self._other_headers(stream_id, flags, block)

    def _server_goes_away(self, payload: bytes) -> None:
        """GOAWAY: calls above its last stream were not seen; others may still be answered."""
        last, code = WORD.unpack_from(payload)[0] & frames.MAX_WINDOW, WORD.unpack_from(payload, 4)[0]
        text = payload[8:].decode("utf-8", "replace")
        message = f"server goes away, HTTP/2 code {code}" + (f": {text}" if text else "")
        unseen = RpcError(Status.UNAVAILABLE, message, sent=False)
        self._retire(unseen)
        for stream_id in [i for i in (*self._calls, *self._streams) if i > last]:
            self._end(stream_id, unseen)
        self._close_when_idle()

    # -- endings

    def _end(self, stream_id: int, error: RpcError | None) -> None:
        """End a call or stream otherwise than by the headers of a unary answer."""
        callback = self._calls.pop(stream_id, None)
        stream = self._streams.pop(stream_id, None)
        body = self._bodies.get(stream_id, b"")
        self._forget(stream_id)
        if callback is not None:
            if error is None and len(body) < 5:
                error = RpcError(Status.INTERNAL, _MALFORMED)
            callback(error, b"" if error is not None else bytes(body[5:]))
        elif stream is not None:
            stream.on_end(error)
        if self._waiting:
            self._admit()

    def _forget(self, stream_id: int) -> None:
        self._bodies.pop(stream_id, None)
        self._http_errors.pop(stream_id, None)
        self._unsent.pop(stream_id, None)

    def fail_stream(self, stream_id: int, error: RpcError) -> None:
        """End a stream that broke the rules (for :class:`Stream`)."""
        self._reset(stream_id)
        self._end(stream_id, error)

    def _admit(self) -> None:
        while (self._waiting and self.lost is None
               and len(self._calls) + len(self._streams) < self._most_streams):
            self._slow_call(*self._waiting.popleft())

    def _retire(self, error: RpcError) -> None:
        """Take no more calls; those under way go on."""
        if self.lost is not None:
            return
        self.lost = error
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(error.message))
        for _, _, callback in self._waiting:
            self._loop.call_soon(callback, error, b"")
        self._waiting.clear()
        if self._on_lost is not None:
            self._loop.call_soon(self._on_lost, self, error)

    def _goaway(self, code: int, message: str) -> None:
        self._out.append(frames.frame(frames.GOAWAY, 0, 0, WORD.pack(0) + WORD.pack(code)))
        self._lose(RpcError(Status.INTERNAL, message))

    def _lose(self, error: RpcError) -> None:
        """Answer every open call and close."""
        first = self.lost is None
        self.lost = error
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(error.message))
            self.ready.exception()  # seen by `open`, which may have given up already
        for callback in [*self._calls.values(), *(entry[2] for entry in self._waiting)]:
            self._loop.call_soon(callback, error, b"")
        for stream in self._streams.values():
            self._loop.call_soon(stream.on_end, error)
        for table in (self._calls, self._streams, self._bodies, self._unsent, self._http_errors,
                      self._waiting):
            table.clear()
        self._flush()
        if self._transport is not None:
            self._transport.close()
        if first and self._on_lost is not None:
            self._loop.call_soon(self._on_lost, self, error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        if self.lost is None or self._calls or self._streams:
            self._lose(RpcError(Status.UNAVAILABLE, f"connection lost: {exc or 'closed by the server'}"))
