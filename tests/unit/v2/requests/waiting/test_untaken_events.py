"""An event of a long value wakes waits whose clients read nothing, or slowly: the front keeps one line of it
for all of them, and counts it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.features.v2.events import encode_news
from cluster.features.v2.requests import Answer
from cluster.wire.messages import HEAD
from proxy.grpc.registry import Registry
from proxy.http.requests import HttpRequest
from proxy.listener.server import Limits
from proxy.v2.waiting.feed import Feed, Fired
from proxy.v2.waiting.waits import Waits
from tests.unit.grpc.harness import Running, connected, serving, wait_for
from tests.unit.v2.requests.waiting.feeding import Router, events_of

VALUE_BYTES = 12_000_000
VALUES = [b"a" * VALUE_BYTES, b"b", b"c" * 100_000]
KERNEL_BYTES = 65_536  # of an untaken answer, on each side
PLAIN = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
BY_H11 = b"GET /wait HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n"


class Host:
    """Waits of a front, and the node's part of them."""

    def __init__(self, stream: bool) -> None:
        self.router: Any = Router()
        self.registry = Registry(timed=True)
        self.waits = Waits(Feed(self.router), 100, 64 << 20)
        self.registry.http("/wait", lambda request: self.waits.add(
            request, b"/1/k", False, stream, 1, self.begin(request), None, False))

    @staticmethod
    def begin(request: HttpRequest) -> Callable[[Answer | None], bool]:
        def begin(answer: Answer | None) -> bool:
            request.start(200)
            return True

        return begin

    def begun(self) -> None:
        sent, self.router.sent = self.router.sent, []
        for _, waiting in sent:
            waiting.then(waiting, 0, bytes(HEAD.size) + Answer(0, b"").encode())

    def tell(self, rows: list[bytes]) -> None:
        news = encode_news(len(rows), False, [(row, ()) for row in rows])
        self.router.v2_news(self.router.routes[0].replica, news)
        while self.router.soon:
            self.router.turn()


LIMITS = Limits(max_memory_bytes=4 * VALUE_BYTES, stalled_s=2.0)


@contextmanager
def waiting(clients: int, asked: bytes, stream: bool, limits: Limits = LIMITS,
            values: list[bytes] = VALUES) -> Iterator[tuple[Host, Running, list[socket.socket]]]:
    host, socks = Host(stream), list[socket.socket]()
    with serving(host.registry, limits) as running:
        try:
            for _ in range(clients):
                socks.append(sock := connected(running))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
                sock.sendall(asked)
            wait_for(lambda: len(host.router.sent) == clients)
            running.call(bound, running)
            running.call(host.begun)
            running.call(host.tell, events_of(values))
            yield host, running, socks
        finally:
            for sock in socks:
                sock.close()


def bound(running: Running) -> None:
    """How much a kernel holds of an answer is a setting of each machine."""
    for connection in running.server._connections:
        with socket.socket(fileno=os.dup(connection.fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


def body(sock: socket.socket, size: int) -> bytes:
    """So many bytes of an answer in chunks, at least."""
    data, found = sock.makefile("rb"), b""
    while data.readline() != b"\r\n":
        pass
    parts = []
    while sum(map(len, parts)) < size and (found := data.read(int(data.readline(), 16))):
        parts.append(found)
        assert data.readline() == b"\r\n"
    return b"".join(parts)


def buffered(running: Running) -> list[int]:
    return [connection.transport.get_write_buffer_size() for connection in running.server._connections]


@pytest.mark.parametrize("asked", [PLAIN, BY_H11], ids=["plain", "by h11"])
def test_a_slow_client_gets_a_long_line_whole(asked: bytes) -> None:
    line = lines()[0]
    with waiting(3, asked, False) as (host, running, socks):
        wait_for(lambda: not len(host.waits))
        assert max(running.call(buffered, running)) < 300_000
        for sock in socks:
            assert body(sock, len(line) + 1) == line


@pytest.mark.parametrize("asked", [PLAIN, BY_H11], ids=["plain", "by h11"])
def test_lines_of_a_stream_stay_in_order_behind_a_long_one(asked: bytes) -> None:
    with waiting(2, asked, True) as (host, running, socks):
        running.call(host.waits.end)  # in the middle of a line
        for sock in socks:
            assert body(sock, 1 << 30) == b"".join(lines())


def test_lines_that_nobody_takes_are_counted_and_given_back() -> None:
    with waiting(8, PLAIN, False) as (_, running, _):
        memory = running.server.memory
        wait_for(lambda: memory.used > 8 * (VALUE_BYTES - 1_000_000))
        assert max(running.call(buffered, running)) < 300_000
        wait_for(lambda: memory.used <= memory.limit_bytes)
        assert running.server.ended_stalled


def test_a_line_that_is_taken_counts_no_more_before_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.listener.server._TICK_S", 1000.0)
    with waiting(1, PLAIN, False) as (_, running, (sock,)):
        (connection,) = running.server._connections
        running.call(connection.tick, time.monotonic())
        assert running.server.memory.used > VALUE_BYTES - 1_000_000
        body(sock, 1 << 30)
        assert running.call(lambda: running.server.memory.used) < 300_000


@pytest.mark.parametrize("half", [True, False], ids=["its side ended", "idle"])
def test_a_client_that_takes_nothing_of_the_end_is_let_go(half: bool) -> None:
    """It kept its connection for as long as it liked: an answer that nobody takes did not end."""
    times = Limits(
        linger_s=0.5, **{"stalled_s": 0.5, "http1_idle_timeout_s": 99.0} if half else {
            "stalled_s": 99.0, "http1_idle_timeout_s": 0.5})
    with waiting(1, PLAIN, False, times) as (_, running, (sock,)):
        if half:
            sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: not running.server._connections)


def test_a_stop_does_not_wait_for_a_client_that_takes_nothing() -> None:
    with waiting(1, PLAIN, False) as (_, running, _):
        began = time.monotonic()
        running.stop(30)
        assert time.monotonic() - began < 15


def test_a_stop_leaves_time_for_the_end_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.listener.server._LINGER_S", 60.0)
    with waiting(1, PLAIN, False, values=[b"a" * 1_000_000]) as (_, running, (sock,)):
        stopped = asyncio.run_coroutine_threadsafe(running.server.stop(30), running.loop)
        wait_for(lambda: running.server.stopping)
        assert len(body(sock, 1 << 30)) > 1_000_000
        stopped.result(60)


def lines() -> list[bytes]:
    found = []
    for row in events_of(VALUES):
        fired = Fired(row)
        while not fired.made():
            pass
        found.append(fired.json)
    return found
