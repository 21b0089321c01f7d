"""Requests of version 2 over kept HTTP/1.1 connections.

A connection answers like a gRPC one (``bench.load.loops.Caller``) whose "body" is a whole request. Requests
of one connection are pipelined. Hot path: 5 us a request.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from typing import cast

from bench.client import Endpoint, RpcError, Status
from bench.client.connection import Callback
from bench.load.spec import Spec
from bench.load.traffic.workloads import Body, key_format, numbers

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_POPULATED = 256  # keys that are set at once


class V2Connection(asyncio.Protocol):
    """One connection. A lost one fails its calls and stays lost."""

    def __init__(self) -> None:
        self._waiting: deque[Callback] = deque()
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback(RpcError(Status.UNAVAILABLE, "connection lost"), b"")

    def call(self, path: str, body: bytes, callback: Callback, /) -> int:
        """Send a request. Its answer comes after those of all before it."""
        if self._transport is None:
            callback(RpcError(Status.UNAVAILABLE, "connection lost", sent=False), b"")
            return -1
        self._waiting.append(callback)
        self._transport.write(body)
        return 0

    def cancel(self, stream_id: int, /) -> None:
        """A request of HTTP/1.1 cannot be taken back."""

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        while self._waiting:
            end = data.find(b"\r\n\r\n")
            found = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
            if found is None:
                if end >= 0 and self._transport is not None:
                    self._transport.abort()  # an answer without a length is none of these requests'
                break
            whole = end + 4 + int(found[1])
            if len(data) < whole:
                break
            answer, data = data[:whole], data[whole:]
            wrong = None if answer[9:10] == b"2" else RpcError(Status.UNKNOWN, answer[9:12].decode("latin-1"))
            self._waiting.popleft()(wrong, answer[end + 4 :])
        self._data = data

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class V2Client:
    """Many connections; ``connections[i]`` goes to ``endpoints[i % len(endpoints)]``."""

    def __init__(self) -> None:
        self.connections: list[V2Connection] = []

    @classmethod
    async def open(cls, endpoints: Sequence[Endpoint], connections: int, timeout_s: float) -> V2Client:
        """Open all. OSError or TimeoutError if one cannot be."""
        client, loop = cls(), asyncio.get_running_loop()
        for i in range(connections):
            endpoint = endpoints[i % len(endpoints)]
            async with asyncio.timeout(timeout_s):
                _, opened = await loop.create_connection(V2Connection, endpoint.host, endpoint.port)
            client.connections.append(opened)
        return client

    async def populate(self, spec: Spec) -> None:
        """Set every key of the key space. RpcError if one cannot be."""
        key, loop = key_format(spec), asyncio.get_running_loop()
        for first in range(0, spec.key_space, _POPULATED):
            done = []
            for number in range(first, min(first + _POPULATED, spec.key_space)):
                answered: asyncio.Future[None] = loop.create_future()
                done.append(answered)

                def take(error: RpcError | None, body: bytes,
                         answered: asyncio.Future[None] = answered) -> None:
                    if not answered.done():
                        answered.set_result(None) if error is None else answered.set_exception(error)

                place = number % len(self.connections)
                self.connections[place].call("", set_request(spec, key(number)), take)
            await asyncio.gather(*done)

    async def close(self) -> None:
        for connection in self.connections:
            connection.close()


def set_request(spec: Spec, key: bytes) -> bytes:
    form = b"value=" + b"v" * spec.val_size_bytes
    return (
        b"PUT /v2/keys/%b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (key, len(form), form)
    )


def v2_body(spec: Spec) -> Body:
    number, key = numbers(spec), key_format(spec)
    if spec.command == "v2-set":
        head, _, tail = set_request(spec, b"\0").partition(b"\0")
        return lambda now: head + key(number()) + tail
    suffix = b"" if spec.serializable else b"?quorum=true"
    return lambda now: b"GET /v2/keys/%b%b HTTP/1.1\r\nHost: bench\r\n\r\n" % (key(number()), suffix)
