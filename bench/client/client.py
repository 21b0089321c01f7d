"""Many connections to the members of one cluster, kept open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar
from urllib.parse import urlsplit

from bench.client.connection import Connection
from bench.client.errors import RpcError

_RECONNECT_S = (0.02, 1.0)  # first and longest pause between attempts


@dataclass(slots=True, frozen=True)
class Endpoint:
    """Where one member serves clients."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """``host:port`` or ``http://host:port``, the port 2379 if none is given. ValueError on anything else."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http":
        raise ValueError(f"{text}: only http endpoints are supported")
    if parts.path not in ("", "/"):
        raise ValueError(f"{text}: not an endpoint")
    if not parts.hostname:
        raise ValueError(f"{text}: no host")
    return Endpoint(parts.hostname, parts.port or 2379)


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...

    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...


M = TypeVar("M", bound=_Message)


class Client:
    """``connections[i]`` goes to ``endpoints[i % len(endpoints)]``, as etcd's benchmark tool spreads them.

    A lost connection is opened again in the same place, at the next endpoint if its own refuses; calls made
    on it meanwhile end at once with UNAVAILABLE, so callers look ``connections[i]`` up for each call.
    """

    def __init__(self, endpoints: Sequence[Endpoint], metadata: Iterable[tuple[str, str]] = ()) -> None:
        self.endpoints = tuple(endpoints)
        self.metadata = tuple(metadata)
        self.connections: list[Connection] = []
        self.reconnects = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, endpoints: Sequence[Endpoint], connections: int = 1, *, timeout_s: float = 5.0,
                   metadata: Iterable[tuple[str, str]] = ()) -> Client:
        """Open all connections. OSError or TimeoutError if one cannot be opened at its endpoint."""
        client = cls(endpoints, metadata)
        try:
            for first in range(0, connections, 64):  # not all at once: a listen queue is short
                opened = await asyncio.gather(
                    *(client._connect(client.endpoints[i % len(client.endpoints)], timeout_s)
                      for i in range(first, min(first + 64, connections))),
                    return_exceptions=True,
                )
                client.connections += [c for c in opened if isinstance(c, Connection)]
                for failure in opened:
                    if isinstance(failure, BaseException):
                        raise failure
        except BaseException:
            await client.close()
            raise
        return client

    async def unary(self, path: str, request: _Message, response: type[M], *, connection: int = 0,
                    timeout_s: float = 10.0) -> M:
        """One call, awaited: for what is not measured. RpcError if it fails, TimeoutError if it takes too long."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(error: RpcError | None, body: bytes) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(body)

        chosen = self.connections[connection % len(self.connections)]
        call = chosen.call(path, request.SerializeToString(), done)
        try:
            async with asyncio.timeout(timeout_s):
                return response.FromString(await answer)
        except TimeoutError:
            chosen.cancel(call)
            raise

    async def close(self) -> None:
        """Close every connection and stop reconnecting."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)

    async def _connect(self, endpoint: Endpoint, timeout_s: float) -> Connection:
        return await Connection.open(endpoint.host, endpoint.port, timeout_s=timeout_s, metadata=self.metadata,
                                     on_lost=self._lost)

    def _lost(self, connection: Connection, error: RpcError) -> None:
        if not self._closed and connection in self.connections:
            task = asyncio.get_running_loop().create_task(self._reopen(self.connections.index(connection)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reopen(self, place: int) -> None:
        pause = _RECONNECT_S[0]
        attempt = 0
        while not self._closed:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT_S[1])
            try:
                opened = await self._connect(self.endpoints[(place + attempt) % len(self.endpoints)], 2.0)
            except (OSError, TimeoutError):
                attempt += 1
                continue
            self.connections[place] = opened
            self.reconnects += 1
            return
