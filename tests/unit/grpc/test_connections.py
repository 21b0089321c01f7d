"""How many connections of clients a front takes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import uvloop

from proxy.grpc.registry import Registry
from proxy.http.http2 import Limits
from proxy.listener.server import Server
from proxy.main import Front
from tests.garbage import no_garbage
from tests.unit.grpc.harness import Echo, serving
from tools.muster.machine.process import descriptors
from tools.muster.machine.process.descriptors import for_clients
from tools.muster.machine.silence import keep_alive


@pytest.mark.parametrize(
    ("limit", "clients"), [(300, 150), (1024, 512), (4096, 3072), (1 << 20, (1 << 20) - 1024)]
)
def test_clients_leave_descriptors_to_the_disk_and_to_peers(limit: int, clients: int) -> None:
    assert for_clients(limit) == clients


@pytest.mark.parametrize(("soft", "hard", "system", "known", "found"), [
    (1024, 4096, 1 << 20, True, 4096), (4096, 4096, 1 << 20, True, 4096),
    (1024, (1 << 30) - 8, 1 << 20, True, 1 << 20),  # the system's was lowered after the boot
    (1024, -1, 1 << 20, True, 1 << 20), ((1 << 30) - 8, (1 << 30) - 8, 1 << 20, True, 1 << 20),
    (1024, 4096, 1 << 20, False, 4096), (1024, (1 << 30) - 8, 1 << 20, False, 1024)])
def test_a_limit_of_open_files_above_the_systems_is_no_reason_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, soft: int, hard: int, system: int, known: bool,
    found: int,
) -> None:
    """The kernel refuses each limit above the system's, also one that is there."""
    limits = [soft, hard]

    def setrlimit(which: int, wanted: tuple[int, int]) -> None:
        if not -1 < wanted[1] <= system:
            raise ValueError("not allowed to raise maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    if known:
        (tmp_path / "nr_open").write_text(f"{system}\n")
    monkeypatch.setattr(descriptors, "NR_OPEN", tmp_path / "nr_open", raising=False)
    assert descriptors.raise_limit() == found
    assert found in (limits[0], system)


def get(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(4096)
    return b""


def test_one_connection_too_many_is_closed_and_the_others_go_on() -> None:
    registry = Registry()
    registry.http("/ok", lambda request: request.respond(200, b"fine"))
    with serving(registry, Limits(max_connections=2)) as running, contextlib.ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=60))
            for _ in range(3))
        assert get(third) == b""
        assert get(first).startswith(b"HTTP/1.1 200 ")
        assert get(second).startswith(b"HTTP/1.1 200 ")
        assert running.call(running.server.statistics)["connections_refused"] == 1
        first.close()
        deadline = time.monotonic() + 60
        while running.call(running.server.statistics)["connections"] > 1:
            assert time.monotonic() < deadline
        fourth = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=60))
        assert get(fourth).startswith(b"HTTP/1.1 200 ")


def test_the_kernel_asks_whether_a_silent_client_is_there_yet() -> None:
    """One that lost its power or its network says no end, and a wait of it has no other."""
    uvloop.run(_asked())


async def _asked() -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
               (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)]
    front: Any = SimpleNamespace(
        _tell_handshake=None, _keep_alive=keep_alive, settings=SimpleNamespace(reuse_port=False))
    server = Server(Registry())
    await Front._listen(front, server, ["http://127.0.0.1:0"], None)
    _, writer = await asyncio.open_connection(*server.addresses[0])
    async with asyncio.timeout(60):
        while not server._connections:
            await asyncio.sleep(0.01)
    (client,) = server._connections
    accepted = client.transport.get_extra_info("socket")
    assert [accepted.getsockopt(*option) for option in options] == [1, 30, 30], "as etcd's"
    writer.close()
    await server.stop()


def test_nothing_of_a_connection_that_has_ended_is_left_to_the_garbage_collector() -> None:
    registry = Registry()
    registry.http("/ok", lambda request: request.respond(200, b"fine"))
    registry.stream("/echo", Echo())
    with serving(registry) as running, no_garbage("proxy", "uvloop"):
        for _ in range(5):
            with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                echo = channel.stream_stream("/echo")
                assert list(echo(iter([b"a", b"b"]), timeout=60)) == [b"a", b"b"]
                cancelled = echo(itertools.repeat(b"c", 10), timeout=60)
                assert next(cancelled) == b"c"
            with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
                assert get(connection).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + 60
        while running.call(running.server.statistics)["connections"]:
            assert time.monotonic() < deadline
