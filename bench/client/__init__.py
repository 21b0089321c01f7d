"""A lean asynchronous etcd v3 client: gRPC over one purpose-written HTTP/2 connection type.

``Connection`` is the protocol (unary calls by callback, streams), ``Client`` keeps many of them open.
Read ``frames`` (bytes out), ``headers`` (header blocks in), ``connection``, ``stream``, ``client``.
"""

from bench.client.client import Client, Endpoint, parse_endpoint, tls_context
from bench.client.connection import Connection
from bench.client.errors import RpcError, Status
from bench.client.stream import Stream

__all__ = [
    "Client", "Connection", "Endpoint", "RpcError", "Status", "Stream", "parse_endpoint", "tls_context",
]
