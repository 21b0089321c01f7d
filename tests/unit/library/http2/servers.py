"""Servers for the library's connection: one by ``h2``, one that sends whatever bytes it likes."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
from muster_client.wire.endpoints import Endpoint
from muster_client.wire.http2 import frames
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.connection import Connection
from muster_client.wire.http2.dialing import dial

Code = grpc.StatusCode
PATH = "/etcdserverpb.KV/Put"
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
WELL = [("grpc-status", "0")]
LIMIT_S = 20.0


class Server:
    """``on(server, event)`` for each of h2's events."""

    def __init__(self, on: Callable[[Server, Any], None], settings: dict[int, int]) -> None:
        self._on, self._settings = on, settings
        self.events: list[Any] = []
        self.bodies: dict[int, bytes] = {}  # of requests
        self.answers: dict[int, bytes] = {}  # what is left to be sent
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.writer: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()
        self.moved = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=self._settings)
        self.h2.initiate_connection()
        self.flush()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.events.append(event)
                    self._on(self, event)
                self.pump()
                async with self.moved:
                    self.moved.notify_all()
                self.flush()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.ended.set()

    def flush(self) -> None:
        assert self.writer is not None
        self.writer.write(self.h2.data_to_send())

    def answer(self, stream: int, message: bytes) -> None:
        """As far as the client's windows allow, the rest later."""
        self.h2.send_headers(stream, HEAD)
        self.answers[stream] = struct.pack(">BI", 0, len(message)) + message
        self.pump()

    def pump(self) -> None:
        for stream, data in list(self.answers.items()):
            while data and (room := min(16_384, self.h2.local_flow_control_window(stream))):
                self.h2.send_data(stream, data[:room])
                data = data[room:]
            self.answers[stream] = data
            if not data:
                del self.answers[stream]
                self.h2.send_headers(stream, WELL, end_stream=True)

    def seen(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(LIMIT_S), self.moved:
            await self.moved.wait_for(holds)


def echo(server: Server, event: Any) -> None:
    """Answers each request by its own bytes."""
    if isinstance(event, h2.events.DataReceived):
        server.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        server.bodies[event.stream_id] = server.bodies.get(event.stream_id, b"") + event.data
    elif isinstance(event, h2.events.StreamEnded):
        server.answer(event.stream_id, server.bodies[event.stream_id][5:])


@contextlib.asynccontextmanager
async def connected(
    on: Callable[[Server, Any], None], settings: dict[int, int] | None = None
) -> AsyncIterator[tuple[Connection, Server]]:
    server = Server(on, settings or {})
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    line = await dial(Endpoint("", "127.0.0.1", port), lambda: None)
    try:
        yield line, server
    finally:
        line.close("closed")
        listener.close()
        await line.gone.wait()
        await server.ended.wait()


async def asked(line: Connection, body: bytes, timeout_s: float = LIMIT_S) -> bytes:
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def done(error: CallError | None, answer: bytes) -> None:
        assert not told.done(), "told twice"
        if error is None:
            told.set_result(answer)
        else:
            told.set_exception(error)

    line.unary(PATH, body, timeout_s, (), done)
    return await told


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(2 * LIMIT_S):
            await main()

    asyncio.run(whole())


def head(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return frames.frame(kind, flags, stream, payload)


SETTINGS = head(frames.SETTINGS, 0, 0, b"")


@contextlib.asynccontextmanager
async def listening(*pieces: bytes, asked: bool) -> AsyncIterator[Endpoint]:
    """A server that says this, ``asked``: once it was asked, whatever that was."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            heard = b"" if asked else b"application/grpc"
            if asked:
                writer.write(SETTINGS)
            while b"application/grpc" not in heard:
                heard += await reader.read(65536)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while asked and await reader.read(65536):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint("", "127.0.0.1", listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        await ended.wait()


@contextlib.asynccontextmanager
async def saying(*pieces: bytes) -> AsyncIterator[Connection]:
    async with listening(*pieces, asked=True) as endpoint:
        line = await dial(endpoint, lambda: None)
        try:
            yield line
        finally:
            line.close("closed")
            await line.gone.wait()
