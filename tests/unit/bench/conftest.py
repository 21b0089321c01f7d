"""A real etcd for the bench's tests, and a scripted HTTP/2 server for what etcd never does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import psutil
import pytest

from bench.systems.systems import System, start_etcd


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One member of etcd 3.5, shared: tests use keys of their own."""
    system = start_etcd(tmp_path_factory.mktemp("etcd"), members=1)
    yield system
    system.stop()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[System]:
    """One member of etcd for a test that stops or kills it."""
    system = start_etcd(tmp_path / "own", members=1)
    yield system
    system.stop()


def has_ended(process: psutil.Process) -> bool:
    """Within ten seconds; nobody may have waited for it yet."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


class ScriptedServer:
    """An HTTP/2 server on ``h2``; a subclass says what it does with a request. One connection at a time."""

    settings: dict[int, int] = {}

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={**self.h2.local_settings, **self.settings})
        self.bodies: dict[int, bytes] = {}
        self.open = 0
        self.most_open = 0
        self.pings_answered = 0
        self.writer: asyncio.StreamWriter
        self._server: asyncio.Server

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        if hasattr(self, "writer"):
            self.writer.close()
            with suppress(ConnectionError):
                await self.writer.wait_closed()

    def request(self, stream_id: int, body: bytes) -> None:
        """A whole request is there."""
        raise NotImplementedError

    def answer(self, stream_id: int, body: bytes, *, pad: int | None = None,
               trailers: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer OK with one message."""
        self.open -= 1
        self.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        framed = b"\0" + len(body).to_bytes(4, "big") + body
        self.h2.send_data(stream_id, framed, pad_length=pad)
        self.h2.send_headers(stream_id, [("grpc-status", "0"), *trailers], end_stream=True)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.h2.initiate_connection()
        self.flush()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._event(event)
                self.flush()
        writer.close()

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.request(event.stream_id, self.bodies.pop(event.stream_id)[5:])
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings_answered += 1
