"""One request of HTTP, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

_READ_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class NotSent(Exception):
    """The connection could not be opened."""


async def asked(
    url: str, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes,
    tls: ssl.SSLContext | None, server_name: str,
) -> Answer:
    """The answer. NotSent; OSError or h11.RemoteProtocolError where it breaks later."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    secure = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
    try:
        reader, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=secure,
            server_hostname=(server_name or parts.hostname) if secure else None)
    except OSError as error:
        raise NotSent(str(error)) from None
    try:
        return await _exchanged(reader, writer, h11.Connection(h11.CLIENT), [
            h11.Request(method=method, target=target, headers=[
                ("Host", parts.netloc), ("Connection", "close"), ("Content-Length", str(len(body))),
                *headers]),
            *([h11.Data(data=body)] if body else []), h11.EndOfMessage()])
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


async def _exchanged(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: h11.Connection,
    events: Sequence[h11.Event],
) -> Answer:
    for event in events:
        writer.write(state.send(event) or b"")
    await writer.drain()
    status, body = 0, b""
    headers: dict[bytes, bytes] = {}
    while True:
        told = state.next_event()
        if told is h11.NEED_DATA:
            state.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(told, h11.Response):
            status, headers = told.status_code, dict(told.headers)
        elif isinstance(told, h11.Data):
            body += told.data
        elif isinstance(told, h11.EndOfMessage):
            return Answer(status, headers, body)
        elif isinstance(told, h11.ConnectionClosed):
            raise ConnectionResetError("the server closed the connection")
