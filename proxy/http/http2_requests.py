"""Plain HTTP requests over HTTP/2 (browsers and curl after ALPN): the same handlers as over HTTP/1.1."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from proxy.http.http2 import Connection, ErrorCode, HeaderBlock, Stream, encode_block
from proxy.http.memory import SMALL_BYTES, TOO_MANY
from proxy.http.requests import TEXT, Headers, HttpRequest, by_name, cut

# Fields of HTTP/1.1 that must not appear in HTTP/2 (RFC 9113 section 8.2.2).
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))
_GO_ON = encode_block([(b":status", b"100")])
_TAKEN_SHIFT = 3  # a unit of work (``proxy.http.http2.connection``) takes in 8 bytes of brackets
Take = Callable[[bytes, bool], int]


class HttpStream(Stream):
    """A stream that collects a request's body, then calls the route's handler. Of a route that is ``early``
    the handler is called at once, and follows the body."""

    __slots__ = ("_body", "_held", "_request", "take")
    connection: Connection

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._body: bytearray | None = bytearray()
        self._request: Http2Request | None = None
        self.take: Take | None = None  # has the rest of an early request's body
        self._held = 0  # bytes of that it cannot use yet

    def turned_away(self) -> None:
        self._drop_body()
        Http2Request(self, b"").respond(429, TOO_MANY.encode() + b"\n", content_type=TEXT)

    def opened(self, ended: bool) -> None:
        if ended:
            self.received(b"", True)
            return
        if self.headers.field(b"expect").lower() == b"100-continue":
            self.send_headers(_GO_ON)
        if self.headers.route.early and self.headers.method == b"POST":
            self._drop_body()
            self._request = Http2Request(self, b"")
            self._request.serve(self.headers.route.handler)

    def received(self, data: bytes, ended: bool) -> None:
        body = self._body
        if body is None:
            if self.take is not None:
                self.connection.work += len(data) >> _TAKEN_SHIFT
                self._hold(self.take(data, ended))
            return
        body += data
        self.connection.buffered += len(data)
        limits = self.connection.limits
        if len(body) > limits.max_body_bytes and cut(self.headers.path):
            self.connection.buffered -= len(body) - limits.max_body_bytes
            del body[limits.max_body_bytes :]
        if len(body) > limits.max_body_bytes or self.connection.buffered > limits.max_buffered_bytes:
            self._drop_body()
            request = Http2Request(self, b"")
            request.respond(
                413, b"413 Request Entity Too Large: request body too large\n",
                content_type=TEXT,
            )
        elif not ended and self.connection.refuses(len(body)):
            self.turned_away()
        elif ended:
            whole = bytes(body)
            self._drop_body()
            self._request = request = Http2Request(self, whole)
            request.serve(self.headers.route.handler)
            # of a call that the gateway counts, nothing is left
            if self._request is not None and len(request.body) > SMALL_BYTES:
                self.connection.taken_on(self, len(request.body))

    def _hold(self, size: int) -> None:
        if self.take is None:  # the request has ended meanwhile
            return
        connection, limits = self.connection, self.connection.limits
        connection.buffered += size - self._held
        self._held = size
        if (size > limits.max_body_bytes or connection.buffered > limits.max_buffered_bytes
                or connection.refuses(size)):
            self.reset(ErrorCode.ENHANCE_YOUR_CALM)
            self.cancelled(ErrorCode.ENHANCE_YOUR_CALM)

    def cancelled(self, code: int) -> None:
        self._drop_body()
        request = self._request
        self.leave()
        if request is not None and not request.closed:
            request.closed = True
            if request.on_close is not None:
                request.on_close(request)

    def leave(self) -> None:
        """The request is over: it and this refer to each other no more."""
        self._request = self.take = None
        if self.held:
            self.connection.answered(self)
        self.connection.buffered -= self._held
        self._held = 0

    def drained(self) -> None:
        if self._request is not None and self._request.on_drain is not None:
            self._request.on_drain()

    def _drop_body(self) -> None:
        if self._body is not None:
            self.connection.buffered -= len(self._body)
            self._body = None


class Http2Request(HttpRequest):
    __slots__ = ("_stream",)

    def __init__(self, stream: HttpStream, body: bytes) -> None:
        block = stream.headers
        headers = by_name(block.fields)
        headers.setdefault("host", block.authority.decode("latin-1"))
        path, _, query = block.path.decode("latin-1").partition("?")
        owner: Any = stream.connection.owner
        super().__init__(block.method.decode("latin-1"), path, query, headers, body, owner.address)
        self.secure, self.peer_name = owner.secure, owner.name
        self._stream = stream

    @property
    def unfinished(self) -> bool:
        return not self._stream.remote_closed

    def follow(self, take: Take | None) -> None:
        self._stream.take = take

    def start(self, status: int, headers: Headers = ()) -> None:
        if self.closed or self.started:
            return
        self.started = True
        if self.on_start is not None:
            self.on_start(status)
        fields = [(b":status", b"%d" % status)]
        for name, value in (*self.added, *headers):
            if name.lower() not in _HOP_BY_HOP:
                fields.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        fields.append((b"date", formatdate(usegmt=True).encode()))
        self._stream.send_headers(encode_block(fields))

    def write(self, chunk: bytes) -> None:
        if not self.closed and self.method != "HEAD":
            self._stream.send_data(chunk)

    def end(self) -> None:
        if not self.closed:
            self.closed = True
            self._stream.leave()
            self._stream.end()

    def pending_bytes(self) -> int:
        return self._stream.queued
