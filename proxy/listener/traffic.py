"""What a listener serves: gRPC and HTTP, or one of them.

Beside a ``--listen-client-http-urls``, its listeners serve HTTP alone and those of ``--listen-client-urls``
gRPC alone, as in etcd:

- HTTP alone is HTTP/1.1, and HTTP/2 by TLS: a client that begins with HTTP/2 in clear is cut off. A method of
  gRPC is an unknown path.
- gRPC alone is HTTP/2: a client of HTTP/1.1 is cut off, another request than gRPC's is answered 415.
"""

from __future__ import annotations

from typing import Protocol

from proxy.grpc.registry import Registry, Route, is_grpc, not_grpc
from proxy.http.http1_plain import FindPlain, TakeWhole
from proxy.http.http2 import Connection, HeaderBlock, Stream
from proxy.http.http2_requests import HttpStream
from proxy.http.requests import AtOnce, HttpHandler, not_found

ShortWays = tuple[AtOnce | None, FindPlain | None, TakeWhole | None]


class Serves(Protocol):
    """What serves a connection's requests: a registry, or a part of it."""

    @property
    def http1(self) -> bool:
        """Whether a connection may speak HTTP/1.1."""

    @property
    def http2_in_clear(self) -> bool: ...
    @property
    def short_ways(self) -> ShortWays: ...
    def find_http(self, path: str) -> HttpHandler | None: ...
    def open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Stream: ...


class GrpcAlone:
    """gRPC's methods of a registry."""

    http1, http2_in_clear = False, True
    short_ways = (None, None, None)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find_http(self, path: str) -> HttpHandler | None:
        return None

    def open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Stream:
        if headers.route is None and not is_grpc(content_type := headers.field(b"content-type")):
            headers.route = not_grpc(content_type)
        return self._registry.open(connection, stream_id, headers)


class HttpAlone:
    """A registry's HTTP paths."""

    http1, http2_in_clear = True, False

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def short_ways(self) -> ShortWays:
        return self._registry.short_ways

    def find_http(self, path: str) -> HttpHandler | None:
        return self._registry.find_http(path)

    def open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Stream:
        if headers.route is None:
            headers.route = self._registry.http_route(headers) or Route(HttpStream, not_found)
        return HttpStream(connection, stream_id, headers)
