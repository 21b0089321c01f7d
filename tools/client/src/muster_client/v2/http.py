"""One request of HTTP, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import h11

from muster_client.v2.errors import BY_CODE, NotServed, Unauthorized, V2Error, too_deep
from muster_client.wire.endpoints import Tls

_READ_BYTES = 65536
_LIVED_S = 1.0  # a wait that breaks sooner is as one that could not begin
_LOOKS_S = 60.0  # behind a wait that has begun: as long as a host may be gone, see _kept_alive


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` by names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def index(self) -> int:
        """Of the store; 0: it is not told."""
        return int(self.headers.get("x-etcd-index", 0))

    def told(self) -> dict[str, Any]:
        """The body, of JSON. V2Error: it is a refusal, or something else."""
        try:
            told = json.loads(self.body or b"{}")
        except ValueError:
            told = None
        except RecursionError:
            raise too_deep() from None
        if isinstance(told, dict) and self.status < 300:
            return told
        given = told if isinstance(told, dict) else {}
        text, code = given.get("message", ""), given.get("errorCode", 0)
        kind = BY_CODE.get(code, V2Error)
        if self.status == 401:
            kind = Unauthorized
        elif self.status == 404 and not text:
            kind = NotServed
        raise kind(code, text or f"status {self.status}: {self.body[:200]!r}", given.get("cause", ""),
                   given.get("index", 0), maybe_done=self.status >= 500)


@dataclass(slots=True)
class Request:
    """``sent``: perhaps in part. ``waits``: its answer may take any time. ``from_now``: it waits for the next
    event. ``since``: when its last attempt began to wait."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    waits: bool = False
    sent: bool = False
    from_now: bool = False
    since: float = math.inf

    def begun(self, head: Answer) -> None:
        """Another attempt waits from the index where this one began, so it misses no event."""
        if self.waits and head.status == 200:
            self.since = time.monotonic()
        if self.from_now and head.status == 200 and head.index:
            self.target += f"&waitIndex={head.index + 1}"
            self.from_now = False

    def waited(self) -> bool:
        """Whether the last attempt waited for a while."""
        since, self.since = self.since, math.inf
        return time.monotonic() - since >= _LIVED_S


async def asked(url: str, request: Request, tls: Tls, share_s: float) -> Answer:
    """The answer. OSError, h11.RemoteProtocolError. ``share_s``: until there is a connection, and for all of
    what can be tried again; a read that waits ends where the host stands still, too."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):  # a mistyped https is not asked in clear
        raise OSError("its scheme is neither http nor https")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    async with asyncio.timeout(share_s) as limit:
        secure = await asyncio.to_thread(_context, tls) if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=secure,
            server_hostname=(tls.server_name or parts.hostname or "").removesuffix(".") if secure else None)
        _kept_alive(writer.get_extra_info("socket"))
        request.sent = True
        looking = None
        if request.waits or request.method != "GET":
            limit.reschedule(None)
            if request.method == "GET":
                looking = asyncio.create_task(_look(url, request, tls, share_s / 2, limit))
        try:
            return await _exchanged(request, reader, writer, [
                h11.Request(method=request.method, target=request.target, headers=[
                    ("Host", parts.netloc), ("Connection", "close"),
                    ("Content-Length", str(len(request.body))), *request.headers]),
                *([h11.Data(data=request.body)] if request.body else []), h11.EndOfMessage()])
        finally:
            if looking is not None:
                looking.cancel()
            writer.transport.abort()  # TLS would wait for the server's farewell
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _look(url: str, request: Request, tls: Tls, share_s: float, limit: asyncio.Timeout) -> None:
    """End a wait whose host answers nothing else, either: its kernel takes connections. That the head of the
    answer has not come says little: a proxy may keep it until there is an event."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(share_s)
        try:
            await asked(url, Request("GET", "/version", (), b""), tls, share_s)
            request.since, share_s = min(request.since, began), _LOOKS_S
        except TimeoutError:
            limit.reschedule(0)
            return
        except (OSError, h11.RemoteProtocolError):
            continue  # the wait's own connection tells whether that ends it


def _context(tls: Tls) -> ssl.SSLContext:
    """By the files as they are now. To load them takes milliseconds; the system's authorities, a hundred."""
    found = [os.stat(path) for path in (tls.ca, tls.cert, tls.key) if path]
    return _loaded(tls, *((one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found))


@lru_cache(maxsize=16)
def _loaded(tls: Tls, *_: tuple[int, ...]) -> ssl.SSLContext:
    context = tls.context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _kept_alive(connection: socket.socket) -> None:
    """A wait has no time limit: it ends where the host is gone for a minute."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):  # fmt: skip
        connection.setsockopt(level, option, value)


async def _exchanged(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: Sequence[h11.Event]
) -> Answer:
    state = h11.Connection(h11.CLIENT)
    for event in events:
        writer.write(state.send(event) or b"")
    await writer.drain()
    status, body = 0, bytearray()
    headers: dict[str, str] = {}
    while True:
        told = state.next_event()
        if told is h11.NEED_DATA:
            state.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(told, h11.Response):
            status = told.status_code
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in told.headers}
            request.begun(Answer(status, headers, b""))
        elif isinstance(told, h11.Data):
            body += told.data
        elif isinstance(told, h11.EndOfMessage):
            return Answer(status, headers, bytes(body))
        elif isinstance(told, h11.ConnectionClosed):
            raise ConnectionResetError("the server closed the connection")
