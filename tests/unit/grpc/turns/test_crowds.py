"""Requests of very many connections that come at once share turns of the loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from time import perf_counter

import pytest

from proxy.grpc.registry import Registry
from proxy.http.backlog import SHARED_S, Backlog
from proxy.http.http1 import TURN_REQUESTS
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from proxy.http.http2.connection import BRIEF_WORK, TURN_WORK
from proxy.http.requests import HttpRequest
from tests.unit.grpc.harness import Running, serving, wait_for

CROWD = 300  # connections
WORK_S = SHARED_S / 2  # of a request
# in a turn: some that are taken without a look at it, what all that is read shares, and all that waits
MOST = 4 + 2 * (2 + 1)
LIMIT_S = 60.0


class Worker:
    """Answers requests, each with some work, and writes down in which turn of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.served: list[tuple[int, str]] = []
        self.parked: list[HttpRequest] = []
        self.registry = Registry()
        self.registry.http("/a", self.serve)
        self.registry.http("/park", self.parked.append)

    def serve(self, request: HttpRequest) -> None:
        self.served.append((self.turn, request.query))
        began = perf_counter()
        while perf_counter() < began + WORK_S:
            pass
        request.respond(200, request.query.encode())

    def count(self, running: Running) -> None:
        """Count turns of the loop from now on."""
        self.turn += 1
        running.loop.call_soon(self.count, running)


class AlwaysBusy(Backlog):
    """Others have always had the time of a turn."""

    __slots__ = ()

    def spent(self, turns: int = 0) -> bool:
        return not self._going_on


class Listening(Backlog):
    """Writes down what connections may do in their turns."""

    __slots__ = ("allowed",)

    def work(self, turns: int, size: int) -> int:
        self.allowed.append(super().work(turns, size))
        return self.allowed[-1]


class Stopped(AlwaysBusy):
    """Nobody has a turn until :meth:`go_on`."""

    __slots__ = ("stopped",)

    def add(self, go_on: Callable[[], None], turns: int = 0) -> int:
        self.stopped.append(go_on)
        return turns

    def go_on(self) -> None:
        for one in self.stopped:
            super().add(one)


def busy(running: Running) -> None:
    """Whatever is read waits for its turn."""
    running.server.backlog = AlwaysBusy(running.loop.call_soon, running.loop.call_later)


def connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=LIMIT_S)


def asked(query: str, path: str = "/a") -> bytes:
    return f"GET {path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def bodies(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of so many answers."""
    file, found = sock.makefile("rb"), []
    for _ in range(count):
        assert file.readline().startswith(b"HTTP/1.1 200 ")
        size = 0
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        found.append(file.read(size))
    return found


@contextlib.contextmanager
def held(running: Running) -> Iterator[None]:
    """The loop is held meanwhile: what is sent comes at once."""
    holds, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        holds.set()
        goes_on.wait(LIMIT_S)

    running.loop.call_soon_threadsafe(hold)
    assert holds.wait(LIMIT_S)
    try:
        yield
    finally:
        goes_on.set()


@pytest.mark.parametrize("new", [False, True], ids=["on connections in use", "on new connections"])
def test_no_turn_of_the_loop_answers_a_crowd(new: bool) -> None:
    worker = Worker()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(worker.registry))
        crowd = [stack.enter_context(connected(running)) for _ in range(CROWD)]
        if not new:
            for sock in crowd:
                sock.sendall(asked("first"))
                assert bodies(sock, 1) == [b"first"]
        worker.served.clear()
        running.call(worker.count, running)
        with held(running):
            for number, sock in enumerate(crowd):
                sock.sendall(asked(str(number)))
        assert [bodies(sock, 1) for sock in crowd] == [[b"%d" % number] for number in range(CROWD)]
    in_turns = Counter(turn for turn, _ in worker.served)
    assert len(worker.served) == CROWD
    assert max(in_turns.values()) <= MOST, in_turns
    assert len(in_turns) >= CROWD / MOST


def test_a_lone_request_is_answered_in_the_turn_that_reads_it() -> None:
    worker = Worker()
    with serving(worker.registry) as running, connected(running) as sock:
        for number in range(TURN_REQUESTS - 1):
            sock.sendall(asked(str(number)))
            assert bodies(sock, 1) == [b"%d" % number]
            assert len(running.server.backlog) == 0


def test_requests_that_wait_are_answered_in_order_and_after_what_came_before() -> None:
    worker = Worker()
    with serving(worker.registry) as running, connected(running) as sock:
        busy(running)
        for first in (0, 30, 60):
            sock.sendall(b"".join(asked(str(number)) for number in range(first, first + 30)))
        assert bodies(sock, 90) == [b"%d" % number for number in range(90)]


def test_a_client_that_ends_its_side_behind_a_request_that_waits_is_answered() -> None:
    worker = Worker()
    with serving(worker.registry) as running, connected(running) as sock:
        busy(running)
        sock.sendall(asked("only"))
        sock.shutdown(socket.SHUT_WR)
        assert bodies(sock, 1) == [b"only"]
        assert sock.recv(1) == b""


@pytest.mark.parametrize("new", [False, True], ids=["on connections in use", "on new connections"])
def test_what_waits_when_a_server_stops_is_answered(new: bool) -> None:
    worker = Worker()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(worker.registry))
        crowd = [stack.enter_context(connected(running)) for _ in range(20)]
        if not new:
            for sock in crowd:
                sock.sendall(asked("first"))
                assert bodies(sock, 1) == [b"first"]
        running.server.backlog = backlog = Stopped(running.loop.call_soon, running.loop.call_later)
        backlog.stopped = []
        for number, sock in enumerate(crowd):
            sock.sendall(asked(str(number)))
        wait_for(lambda: len(backlog.stopped) == len(crowd), LIMIT_S)
        stopping = threading.Thread(target=running.stop, args=(LIMIT_S,))
        stopping.start()
        wait_for(lambda: running.server.stopping, LIMIT_S)
        running.loop.call_soon_threadsafe(backlog.go_on)
        assert [bodies(sock, 1) for sock in crowd] == [[b"%d" % number] for number in range(len(crowd))]
        assert all(sock.recv(1) == b"" for sock in crowd)
        stopping.join(LIMIT_S)


def test_a_new_connection_of_http2_that_waits_begins_in_its_turn() -> None:
    worker = Worker()
    with serving(worker.registry) as running, connected(running) as sock:
        busy(running)
        sock.sendall(PREFACE + f.frame(f.SETTINGS, 0, 0, b"") + f.ping(b"01234567"))
        seen = b""
        while b"01234567" not in seen:
            data = sock.recv(65_536)
            assert data
            seen += data


@pytest.mark.parametrize("protocol", ["HTTP/2", "HTTP/1.1"])
def test_a_new_connection_whose_first_bytes_come_in_two_reads_begins_in_its_turn(protocol: str) -> None:
    """In each turn it only asked for the next one, until it was closed."""
    first, rest, answer = asked("only")[:9], asked("only")[9:], b"\r\n\r\nonly"
    if protocol == "HTTP/2":
        first, rest, answer = PREFACE, f.frame(f.SETTINGS, 0, 0, b"") + f.ping(b"01234567"), b"01234567"
    with serving(Worker().registry) as running, connected(running) as sock:
        running.server.backlog = backlog = Stopped(running.loop.call_soon, running.loop.call_later)
        backlog.stopped = []
        sock.sendall(first)
        wait_for(lambda: len(backlog.stopped) == 1, LIMIT_S)
        (front,) = running.server._connections
        sock.sendall(rest)
        wait_for(lambda: front.paused_reading, LIMIT_S)
        busy(running)
        running.call(backlog.go_on)
        seen = b""
        while answer not in seen:
            data = sock.recv(65_536)
            assert data, "it was closed"
            seen += data
        wait_for(lambda: not (front.paused_reading or len(running.server.backlog)), LIMIT_S)


def test_a_flood_has_short_turns_and_who_sends_little_is_not_asked() -> None:
    """A request of somebody else's takes several turns of the loop, each as long as what is done for a
    flood."""
    worker = Worker()
    with serving(worker.registry) as running, connected(running) as sock:
        sock.sendall(PREFACE + f.frame(f.SETTINGS, 0, 0, b"") + f.ping(b"01234567"))
        wait_for(lambda: any(front.http2 is not None for front in running.server._connections), LIMIT_S)
        (front,) = running.server._connections

        def done() -> bool:  # asked between two turns: in the middle of one nothing waits
            return not running.call(lambda: front.behind)

        running.server.backlog = backlog = Listening(running.loop.call_soon, running.loop.call_later)
        backlog.allowed = []
        running.call(front.data_received, f.window_update(0, 1) * 50 * TURN_WORK)
        wait_for(done, LIMIT_S)
        assert set(backlog.allowed[:8]) == {TURN_WORK}
        assert backlog.allowed[-1] == BRIEF_WORK
        asked_before = len(backlog.allowed)
        for number in range(8):  # each ends with nothing left to do
            running.call(front.data_received, f.window_update(0, 1) * (TURN_WORK + 1))
            wait_for(done, LIMIT_S)
            assert number < 3 or backlog.allowed[-1] == TURN_WORK
        assert len(backlog.allowed) > asked_before
        with connected(running) as quiet:
            asked_before = len(backlog.allowed)
            quiet.sendall(PREFACE + f.frame(f.SETTINGS, 0, 0, b"") + f.ping(b"01234567"))
            seen = b""
            while b"01234567" not in seen:
                seen += quiet.recv(65_536)
            assert len(backlog.allowed) == asked_before


def test_who_goes_while_his_request_waits_has_none() -> None:
    worker = Worker()
    with serving(worker.registry) as running:
        with held(running):
            gone = connected(running)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            running.loop.call_soon_threadsafe(busy, running)
            gone.sendall(asked("never", "/park"))
            gone.close()
        with connected(running) as sock:
            sock.sendall(asked("later"))
            assert bodies(sock, 1) == [b"later"]
        assert all(request.closed for request in worker.parked)
