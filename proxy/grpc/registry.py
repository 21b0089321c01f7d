"""Handlers by path: gRPC's methods, and plain HTTP's. A header block keeps what it was found to ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.errors import INVALID_CLIENT_API_VERSION, UNKNOWN_METHOD, UNKNOWN_SERVICE, EtcdError
from cluster.histogram import Histogram
from cluster.machine import Tracer
from proxy.grpc import wire
from proxy.grpc.calls import Call, StreamHandler, UnaryHandler
from proxy.grpc.kinds import RefusedCall, StreamCall, UnaryCall
from proxy.grpc.timed_calls import KINDS, Ended, Timing, new_times
from proxy.grpc.traced_calls import traced
from proxy.http.http1_plain import FindPlain, TakeWhole
from proxy.http.http2 import Connection, HeaderBlock, Stream
from proxy.http.http2_requests import HttpStream
from proxy.http.requests import AtOnce, HttpHandler

_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9A-Za-z.+-]{1,24})?")
CLIENT_VERSION = b"client-api-version"
_GATEWAY = b"grpcgateway-accept"
_MOST_CLIENTS = 32  # kinds and versions that are counted apart


@dataclass(slots=True, eq=False)
class Route:
    """What a header block was found to ask for; kept on the block (``HeaderBlock.route``)."""

    kind: type[Stream]
    handler: Any = None
    timeout: float | None = None  # seconds
    client: Clients | None = None  # the asking ones; None: no known method
    times: Histogram | None = None  # of its method, where they are measured
    principal: Any = None  # what the client shows of itself (proxy.auth.shown), or None
    slow: Ended | None = None  # is told of each that has ended
    behind: Route | None = None  # what was asked for, where the gate refuses it
    http_status: int = 200
    status: int = wire.OK
    message: str = ""
    early: bool = False  # an HTTP handler gets its request over HTTP/2 before the body


@dataclass(slots=True, eq=False)
class Clients:
    """What clients of one version have asked for."""

    calls: int = 0


class Registry:
    http1 = http2_in_clear = True  # what a connection may speak (proxy.listener.traffic)

    def __init__(
        self, *, timed: bool = False, tracer: Tracer | None = None, slow: Ended | None = None
    ) -> None:
        """``timed``: measure how long calls take, into ``times``. ``slow`` gets each unary call that has
        ended."""
        self.times: dict[str, Histogram] = {}  # by path, in seconds
        # by kind of call, unary or stream, and API version of the client
        self.clients: dict[tuple[str, str], Clients] = {}
        # refuses gRPC methods by their path, where this host may not; the other is the client's version
        self.gate: Callable[[bytes, bytes], EtcdError | None] | None = None
        self._timed = timed
        self._slow = slow
        self.tracer = tracer
        self.shown: Callable[[bytes | None, str | None], Any] = lambda token, common_name: None
        self._methods: dict[bytes, tuple[type[Call], Any, str]] = {}  # the last: as what its calls count
        self._services: set[bytes] = set()
        self._http: dict[str, HttpHandler] = {}
        self._http_prefixes: list[tuple[str, HttpHandler]] = []
        self.find_other: Callable[[str], HttpHandler | None] | None = None  # of paths that are not listed
        self.early: frozenset[str] = frozenset()  # paths whose handlers follow the body over HTTP/2
        self.at_once: AtOnce | None = None  # answers requests of HTTP/1.1 as they are read
        self.find_plain: FindPlain | None = None  # finds what serves plain ones of HTTP/1.1, before http
        self.take_whole: TakeWhole | None = None  # takes some of these as they are read, before that

    @property
    def short_ways(self) -> tuple[AtOnce | None, FindPlain | None, TakeWhole | None]:
        return self.at_once, self.find_plain, self.take_whole

    def unary(self, path: str, handler: UnaryHandler, counted: str = "unary") -> None:
        """Serve ``/package.Service/Method`` by a function; it may stream answers, and is ``counted`` so."""
        self._add(path, UnaryCall, handler, counted)

    def stream(self, path: str, handler: StreamHandler) -> None:
        """Serve ``/package.Service/Method`` by an object that gets every request message."""
        self._add(path, StreamCall, handler, "stream")

    def http(self, path: str, handler: HttpHandler) -> None:
        """Serve an exact HTTP path, or, where ``path`` ends with "/", all below it (the longest wins)."""
        if path.endswith("/"):
            self._http_prefixes.append((path, handler))
            self._http_prefixes.sort(key=lambda item: -len(item[0]))
        else:
            self._http[path] = handler

    def served(self, path: str) -> UnaryHandler | StreamHandler | None:
        found = self._methods.get(path.encode())
        return None if found is None else found[1]

    def count(self, path: bytes, version: bytes) -> Timing | None:
        """Count a client's call that no HTTP/2 stream carries; what wants to know how long it takes, if
        anything does."""
        if (found := self._methods.get(path)) is None:
            return None
        self._client(found[2], version.decode("latin-1")).calls += 1
        if not self._timed and self._slow is None:
            return None
        text = wire.text_of(path)
        return Timing(text, self.times.get(text), self._slow if found[2] == "unary" else None)

    def find_http(self, path: str) -> HttpHandler | None:
        found = self._http.get(path)
        if found is None:
            for prefix, handler in self._http_prefixes:
                if path.startswith(prefix):
                    return handler
            if self.find_other is not None:
                return self.find_other(path)
        return found

    def plain_path(self, path: str) -> str | None:
        """The path by which a handler is found; None: it is malformed."""
        return path

    def http_route(self, headers: HeaderBlock) -> Route | None:
        path = headers.path.partition(b"?")[0].decode("latin-1")
        handler, early = self.find_http(path), self.plain_path(path) in self.early
        return None if handler is None else Route(HttpStream, handler, early=early)

    def open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Stream:
        """The stream for a new request (``Connection``'s ``open_stream``)."""
        route = headers.route
        if route is None:
            base = headers.base
            if base is None:
                route = self._resolve(headers, connection)
            else:
                if base.route is None:
                    base.route = self._resolve(base, connection)
                route = _with_timeout(base.route, headers.volatile)
            headers.route = route
        if self.gate is not None or route.behind is not None:
            route = headers.route = self._at_gate(headers, route)
        if route.client is not None:
            route.client.calls += 1
        return route.kind(connection, stream_id, headers)  # type: ignore[no-any-return]

    def _add(self, path: str, kind: type[Call], handler: Any, counted: str) -> None:
        name = path.encode()
        assert name not in self._methods, path
        if self._timed or self._slow is not None:
            kind = KINDS[kind]
        if self._timed:
            self.times[path] = new_times()
        if self.tracer is not None:
            kind = traced(kind, self.tracer)
        self._methods[name] = (kind, handler, counted)
        self._services.add(name[1:].split(b"/")[0])

    def _at_gate(self, headers: HeaderBlock, route: Route) -> Route:
        asked = route.behind or route
        refusal = None
        # what no host serves is refused as such
        served = asked.status != wire.UNIMPLEMENTED and asked.http_status == 200
        if self.gate is not None and served and asked.kind is not HttpStream:
            refusal = self.gate(headers.path, headers.field(CLIENT_VERSION))
        if refusal is None:
            return asked
        refused = _refused(refusal.code, refusal.text)
        refused.behind = asked
        return refused

    def _resolve(self, headers: HeaderBlock, connection: Connection) -> Route:
        content_type = headers.field(b"content-type")
        if not is_grpc(content_type):
            return self.http_route(headers) or not_grpc(content_type)
        if headers.method != b"POST":
            return _refused(
                wire.INTERNAL,
                f"Received a HEADERS frame with :method {wire.quote(headers.method)} which should be POST",
                405,
            )
        found = self._methods.get(headers.path)
        if found is None:
            service, slash, method = headers.path[1:].rpartition(b"/")
            if headers.path[:1] != b"/" or not slash:
                return _refused(wire.UNIMPLEMENTED, f"malformed method name: {wire.quote(headers.path)}")
            if service in self._services:
                return _refused(wire.UNIMPLEMENTED, UNKNOWN_METHOD.text.format(
                    method=wire.text_of(method), service=wire.text_of(service)))
            return _refused(
                wire.UNIMPLEMENTED, UNKNOWN_SERVICE.text.format(service=wire.text_of(service)))
        encoding = headers.field(b"grpc-encoding")
        if encoding not in (b"identity", b"gzip", b""):
            return _refused(
                wire.UNIMPLEMENTED,
                f"grpc: Decompressor is not installed for grpc-encoding {wire.quote(encoding)}",
            )
        try:
            version = headers.field(CLIENT_VERSION).decode()
        except UnicodeDecodeError:
            return _refused(INVALID_CLIENT_API_VERSION.code, INVALID_CLIENT_API_VERSION.text)
        kind, handler, counted = found
        fields = headers.metadata
        route = Route(
            kind,
            handler,
            None,
            self._client(counted, version),
            self.times.get(wire.text_of(headers.path)),
            self.shown(
                fields.get(b"token", fields.get(b"authorization")),
                # a gateway's certificate says nothing of the client that it asks for, as in etcd
                None if _GATEWAY in fields else getattr(getattr(connection, "owner", None), "name", None),
            ),
            self._slow if counted == "unary" else None,
        )
        if any(name == b"grpc-timeout" for name, _ in headers.fields):
            # of several the last one counts, as in grpc-go
            return _with_timeout(route, headers.field(b"grpc-timeout").rpartition(b",")[2])
        return route

    def _client(self, kind: str, version: str) -> Clients:
        text = version if _VERSION.fullmatch(version) else "unknown"
        if (kind, text) not in self.clients and len(self.clients) >= _MOST_CLIENTS:
            text = "unknown"
        return self.clients.setdefault((kind, text), Clients())


def is_grpc(content_type: bytes) -> bool:
    kind = content_type.lower()
    return kind.startswith(b"application/grpc") and kind[16:17] in (b"", b"+", b";")


def not_grpc(content_type: bytes) -> Route:
    """The answer to a request without a handler that is not gRPC."""
    words = f"invalid gRPC request content-type: {wire.quote(content_type)}"
    return _refused(wire.INVALID_ARGUMENT, words, 415)


def _with_timeout(route: Route, text: bytes) -> Route:
    if route.http_status != 200 or route.kind is HttpStream:  # the gateway reads the field by itself
        return route
    try:
        timeout = wire.parse_timeout(text)
    except ValueError as error:
        return _refused(wire.INTERNAL, f"malformed grpc-timeout: {error}", 400)
    if route.status:
        return route
    if timeout <= 0:
        return _refused(wire.DEADLINE_EXCEEDED, "context deadline exceeded")
    return Route(route.kind, route.handler, timeout, route.client, route.times, route.principal, route.slow)


def _refused(status: int, message: str, http_status: int = 200) -> Route:
    return Route(RefusedCall, status=status, message=message, http_status=http_status)
