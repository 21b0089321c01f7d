"""What a proxy says while it knows no member: etcd's 503. Its fronts take the ports once it knows one.

One thread answers everybody, in a loop of its own. A connection is for one request, and has five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from http import HTTPStatus

from proxy.shared.unreached import NO_ENDPOINTS, NOBODY, OWN
from tools.muster.config.settings import Url
from tools.muster.host.ports import bind_address

_MOST_HEAD = 1 << 16
_MOST_READ = 1 << 20
_MOST_DIGITS = 19  # of a length
_MOST_AT_ONCE = 1_000  # connections; one more is closed
_PATIENCE_S = 5.0  # with a client, from its first byte to the last of its answer
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"400 Bad Request"
)


class _Refusals:
    """Listens, and answers."""

    def __init__(self, read_only: bool) -> None:
        self._read_only = read_only
        self._listeners: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None] | None] = set()

    async def listen(self, host: str, port: int) -> None:
        """At one more address. A port that cannot be had is left alone."""
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
        """One connection. A client that goes away, or says nothing, is nobody's trouble."""
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
        except (OSError, EOFError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request, and refuse it."""
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _BAD
        method, path, _ = words
        named = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
        length = named.get("content-length", "")
        if len(length) > _MOST_DIGITS:
            return _BAD
        if length.isdecimal() and "expect" not in named:  # what is not read would have the connection reset
            await _skip(reader, min(int(length), _MOST_READ))
        status, kind, body = 503, "application/json", NOBODY
        if path.partition("?")[0] == OWN and method == "GET":
            status, kind, body = 200, "text/plain; charset=utf-8", NO_ENDPOINTS
        if self._read_only and method != "GET":
            status, kind, body = 501, "", b""
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Date: {formatdate(usegmt=True)}"]
        if kind:
            head.append(f"Content-Type: {kind}")
        head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        return "\r\n".join(head).encode() + (b"" if method == "HEAD" else body)


async def _skip(reader: asyncio.StreamReader, size: int) -> None:
    while size > 0 and (piece := await reader.read(min(size, _MOST_HEAD))):
        size -= len(piece)


@contextlib.contextmanager
def refusing(urls: Sequence[Url], read_only: bool) -> Iterator[None]:
    """Requests at these URLs are refused meanwhile; at those of https nobody answers. A port that cannot be
    had is left alone: the fronts will tell."""
    refusals, loop = _Refusals(read_only), asyncio.new_event_loop()
    for url in urls:
        if url.scheme == "http":
            loop.run_until_complete(refusals.listen(bind_address(url), url.port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(refusals.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
