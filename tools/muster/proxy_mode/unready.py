"""A proxy's answer while it knows no member: etcd's 503, and its own figures. Its fronts take the ports
afterwards.

One thread answers all clients, in a loop of its own. A connection is for one request, and has five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from http import HTTPStatus

import h11

from proxy.http.requests import JSON, TEXT
from proxy.shared.cors import cors_fields
from proxy.shared.unreached import NO_ENDPOINTS, NOBODY, OWN
from tools.muster.config.urls import Url
from tools.muster.host.ports import client_address

_MOST_HEAD = 1 << 16
_MOST_READ = 1 << 20
_MOST_AT_ONCE = 1_000  # connections; one more is closed
_PATIENCE_S = 5.0  # from a client's first byte to the last of its answer
_BAD = (
    f"HTTP/1.1 400 Bad Request\r\nContent-Type: {TEXT}\r\nConnection: close\r\n\r\n400 Bad Request".encode())


class _Refusals:
    def __init__(self, read_only: bool, cors: Sequence[str]) -> None:
        self._read_only = read_only
        self._cors = cors
        self._listeners: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None] | None] = set()

    async def listen(self, host: str, port: int) -> None:
        """An address that cannot be bound is left out."""
        with contextlib.suppress(OSError):
            self._listeners.append(await asyncio.start_server(self._serve, host, port, limit=_MOST_HEAD))

    async def close(self) -> None:
        """The ports are free when this returns."""
        for listener in self._listeners:
            listener.close()
        left = [task for task in self._open if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if len(self._open) >= _MOST_AT_ONCE:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                writer.write(await self._answer(reader))
                writer.write_eof()
                await writer.drain()
        except (OSError, EOFError):  # TimeoutError is an OSError
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request, and refuse it."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEAD)
        try:
            request = await _read(reader, connection)
        except h11.RemoteProtocolError:
            return _BAD
        status, kind, body = 503, JSON, NOBODY
        more: list[tuple[str, str]] = []
        path = request.target.partition(b"?")[0]
        if path == OWN.encode():
            status, kind, body = 200, TEXT, NO_ENDPOINTS
            if request.method != b"GET":
                status, body = 405, b"Method Not Allowed\n"
                more = [("Allow", "GET"), ("X-Content-Type-Options", "nosniff")]
        elif path == b"/metrics":
            # a supervisor needs it for nothing else
            from prometheus_client.core import REGISTRY
            from prometheus_client.exposition import choose_encoder

            encoder, kind = choose_encoder("")
            status, body = 200, encoder(REGISTRY)
        origin = next((value.decode("latin-1") for name, value in request.headers if name == b"origin"), "")
        cors = cors_fields(self._cors, origin)
        if self._read_only and request.method != b"GET":
            status, kind, body, cors, more = 501, "", b"", [], []
        elif request.method == b"OPTIONS":
            status, kind, body, more = 200, "", b"", []
        more += [("Content-Type", kind)] if kind else []
        fields = [*cors, *more, ("Date", formatdate(usegmt=True)), ("Content-Length", str(len(body))),
                  ("Connection", "close")]
        events: list[h11.Event] = [
            h11.Response(status_code=status, headers=fields, reason=HTTPStatus(status).phrase.encode())]
        if request.method != b"HEAD":
            events.append(h11.Data(data=body))
        return b"".join([connection.send(event) or b"" for event in events])


async def _read(reader: asyncio.StreamReader, connection: h11.Connection) -> h11.Request:
    """A request's head, and a part of its body: unread data would reset the connection."""
    request: h11.Request | None = None
    left = _MOST_READ
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            left -= len(event.data)
        elif event is h11.NEED_DATA and (request is None or (
                left > 0 and not connection.they_are_waiting_for_100_continue)):
            connection.receive_data(await reader.read(_MOST_HEAD))
        else:
            break
    if request is None:
        raise EOFError
    return request


@contextlib.contextmanager
def refusing(urls: Sequence[Url], read_only: bool, cors: Sequence[str] = ()) -> Iterator[None]:
    """Refuse requests at these URLs meanwhile, https ones without an answer. A port that cannot be bound is
    left out: the fronts will report it. ``cors``: origins of web pages that may read the answers."""
    refusals, loop = _Refusals(read_only, cors), asyncio.new_event_loop()
    for url in urls:
        if url.scheme == "http":
            loop.run_until_complete(refusals.listen(client_address(url, urls), url.port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(refusals.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
