"""Many connections to the members of one cluster, kept open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from muster_client.wire.endpoints import Tls

from bench.client.connection import Connection
from bench.client.errors import RpcError
from cluster.pb import rpc_pb2 as pb

_RECONNECT_S = (0.02, 1.0)  # first and longest pause between attempts


@dataclass(slots=True, frozen=True)
class Endpoint:
    """Where one member serves clients."""

    host: str
    port: int
    secure: bool = False  # https

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """``host:port``, or an ``http`` or ``https`` URL; port 2379 by default. ValueError for other text."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{text}: only http and https endpoints are supported")
    if parts.path not in ("", "/"):
        raise ValueError(f"{text}: not an endpoint")
    if not parts.hostname:
        raise ValueError(f"{text}: no host")
    return Endpoint(parts.hostname, parts.port or 2379, parts.scheme == "https")


def tls_context(*, cacert: str = "", cert: str = "", key: str = "", insecure_skip_verify: bool = False
                ) -> ssl.SSLContext:
    """A context by etcd's flags of these names, with the machine's certificate authorities by default.

    OSError names a file that cannot be used.
    """
    context = Tls(cacert, cert, (key or cert) if cert else "").context()
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Message(Protocol):
    """A protobuf message."""

    def SerializeToString(self) -> bytes: ...

    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...


M = TypeVar("M", bound=Message)


class Client:
    """``connections[i]`` goes to ``endpoints[i % len(endpoints)]``, as in etcd's benchmark tool.

    A lost connection is opened again in its place, at the next endpoint if its own refuses. Until then its
    calls end with UNAVAILABLE, so callers look ``connections[i]`` up for each call. A user whose token is no
    longer good is logged in again; the calls refused until then end with :attr:`RpcError.outdated_login`.
    """

    def __init__(self, endpoints: Sequence[Endpoint], metadata: Iterable[tuple[str, str]] = (),
                 tls: ssl.SSLContext | None = None) -> None:
        self.endpoints = tuple(endpoints)
        self.tls = tls or (tls_context() if any(e.secure for e in endpoints) else None)
        self.metadata = tuple(metadata)
        self.connections: list[Connection] = []
        self.reconnects = 0
        self._closed = False
        self._user = ""
        self._renewing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, endpoints: Sequence[Endpoint], connections: int = 1, *, timeout_s: float = 5.0,
                   metadata: Iterable[tuple[str, str]] = (), tls: ssl.SSLContext | None = None,
                   user: str = "") -> Client:
        """Open all connections. OSError or TimeoutError if one fails.

        ``user``, as ``name:password``, logs in first (RpcError if refused).
        """
        client = cls(endpoints, metadata, tls)
        try:
            if user:
                client._user = user
                client.metadata += (await client._log_in(client.endpoints[0], timeout_s),)
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

    async def unary(self, path: str, request: Message, response: type[M], *, connection: int = 0,
                    timeout_s: float = 10.0) -> M:
        """One awaited call, not for measurements. RpcError if it fails, TimeoutError by the limit."""
        chosen = self.connections[connection % len(self.connections)]
        return await self._unary(chosen, path, request, response, timeout_s)

    async def _unary(self, chosen: Connection, path: str, request: Message, response: type[M],
                     timeout_s: float) -> M:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(error: RpcError | None, body: bytes) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(body)

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
        await asyncio.gather(*(connection.wait_closed() for connection in self.connections))

    async def _connect(self, endpoint: Endpoint, timeout_s: float) -> Connection:
        try:
            opened = await Connection.open(
                endpoint.host, endpoint.port, timeout_s=timeout_s, metadata=self.metadata, on_lost=self._lost,
                tls=self.tls if endpoint.secure else None,
            )
            opened.on_outdated = self._renew
            return opened
        except TimeoutError:
            raise TimeoutError(f"{endpoint}: no connection within {timeout_s:g} s") from None
        except OSError as error:
            raise type(error)(f"{endpoint}: {error.strerror or error}") from None

    async def _log_in(self, endpoint: Endpoint, timeout_s: float) -> tuple[str, str]:
        """The user's token, as it goes with calls."""
        name, _, password = self._user.partition(":")
        connection = await self._connect(endpoint, timeout_s)
        request = pb.AuthenticateRequest(name=name, password=password)
        try:
            answer = await self._unary(connection, "/etcdserverpb.Auth/Authenticate", request,
                                       pb.AuthenticateResponse, 10.0)
        finally:
            connection.close()
            await connection.wait_closed()
        return "token", answer.token

    def _renew(self) -> None:
        """Log in again, once for all that is refused meanwhile."""
        if self._user and not self._renewing and not self._closed:
            self._renewing = True
            self._begin(self._log_in_again())

    async def _log_in_again(self) -> None:
        try:
            for endpoint in self.endpoints:
                try:
                    token = await self._log_in(endpoint, 2.0)
                except (OSError, RpcError):
                    continue
                self.metadata = (*self.metadata[:-1], token)
                for connection in self.connections:
                    connection.send_with(self.metadata)
                return
            await asyncio.sleep(_RECONNECT_S[1])
        finally:
            self._renewing = False

    def _lost(self, connection: Connection, error: RpcError) -> None:
        if not self._closed and connection in self.connections:
            self._begin(self._reopen(self.connections.index(connection)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
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
