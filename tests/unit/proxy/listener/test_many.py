"""What a front looks through by itself stays short in each turn, however many requests, calls and connections
there are."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.backlog import Backlog
from proxy.listener import server as server_module
from proxy.listener.server import Server
from proxy.metrics.exposition import Metrics
from proxy.routing.overdue import AT_ONCE, sweep_link
from proxy.routing.waiting import READ_ANY, MethodStats, Waiting
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.listener.test_http import Figures


class Call:
    def __init__(self) -> None:
        self.ended = 0

    def expired(self) -> None:
        self.ended += 1


def test_calls_that_are_done_leave_nothing_behind_however_far_their_deadlines() -> None:
    """300,000 of them left 84 MB, and 49 ms a pass."""
    deadlines = Deadlines(lambda when: None)
    for number in range(50_000):
        call = Call()
        deadlines.add(call, 1e6 + number).leave(call)
    assert len(deadlines) == 0
    assert max(len(deadlines._order), len(deadlines._slots)) < 5_000


def test_calls_end_at_their_deadlines_in_order_and_the_next_one_is_armed() -> None:
    armed: list[float] = []
    deadlines = Deadlines(armed.append)
    calls = {when: Call() for when in (3.0, 1.0, 2.0)}
    slots = {when: deadlines.add(call, when) for when, call in calls.items()}
    slots[2.0].leave(calls[2.0])
    assert armed == [pytest.approx(3.01), pytest.approx(1.01)]
    deadlines.expire(1.02)
    assert [calls[when].ended for when in (1.0, 2.0, 3.0)] == [1, 0, 0]
    assert armed[-1] == pytest.approx(3.01)
    deadlines.expire(3.02)
    assert [calls[when].ended for when in (1.0, 2.0, 3.0)] == [1, 0, 1]
    assert not deadlines._order
    assert not deadlines._slots


def test_a_call_that_leaves_late_takes_no_newer_slot_along() -> None:
    deadlines = Deadlines(lambda when: None)
    old, new = Call(), Call()
    slot = deadlines.add(old, 1.0)
    deadlines.expire(2.0)
    deadlines.add(new, 1.0)
    slot.leave(old)
    assert len(deadlines) == 1


def test_a_link_of_very_many_requests_is_looked_through_in_parts_and_whole() -> None:
    told: list[Waiting] = []
    router: Any = SimpleNamespace(
        fail=lambda waiting, kind: told.append(waiting), post=lambda *args: None, election_s=1.0
    )
    route: Any = SimpleNamespace(leader_since=0.0)
    link: Any = SimpleNamespace(pending={}, unseen=[], farewell=lambda: None)
    for rid in range(1, 3 * AT_ONCE + 1):
        waiting = Waiting(None, 32, b"", 0, READ_ANY, 0.0, 1.0, MethodStats())
        waiting.rid = rid
        link.pending[rid] = waiting
    counts = []
    for _ in range(4):
        before = len(told)
        sweep_link(router, link, route, 2.0)
        counts.append(len(told) - before)
        link.pending.pop(AT_ONCE + 7, None)  # answered meanwhile
    assert counts == [AT_ONCE, AT_ONCE - 1, AT_ONCE, 0]
    assert [waiting.rid for waiting in told] == [
        rid for rid in range(1, 3 * AT_ONCE + 1) if rid != AT_ONCE + 7
    ]
    assert not link.pending


def test_very_many_connections_are_ticked_in_parts_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_TICKED", 10)
    monkeypatch.setattr(server_module, "_TICK_S", 0.01)

    class Front:
        """As much of a connection as a tick looks at."""

        def __init__(self) -> None:
            self.ticks: list[int] = []
            self.http2 = SimpleNamespace(streams={1: None}, queued=2, buffered=3)
            self.http1 = None
            self.paused_reading = False

        def tick(self, now: float) -> None:
            self.ticks.append(turn)

    turn = 0

    async def scenario() -> Server:
        nonlocal turn
        server = Server(Registry())
        server._loop = asyncio.get_running_loop()
        fronts = [Front() for _ in range(95)]
        server._connections = set(fronts)  # type: ignore[arg-type]
        server._on_tick()
        while server._sums["streams"] < 95:
            turn += 1
            await asyncio.sleep(0)
        assert server._tick is not None
        server._tick.cancel()
        by_turn: dict[int, int] = {}
        for front in fronts:
            assert len(front.ticks) == 1
            by_turn[front.ticks[0]] = by_turn.get(front.ticks[0], 0) + 1
        assert max(by_turn.values()) <= 20  # a part, or two that a turn of asyncio's brings together
        return server

    found = asyncio.run(scenario()).statistics()
    assert (found["streams"], found["queued_bytes"], found["buffered_bytes"], found["connections"]) == (
        95, 190, 285, 95,
    )


@pytest.mark.parametrize("asks", [True, False], ids=["who have asked", "who have said nothing"])
def test_clients_that_leave_all_at_once_go_in_turns(asks: bool) -> None:
    """The ends of 2,000 connections held the loop for 80 ms."""
    clients = 50

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        server = Server(Registry())
        ticks = itertools.count()
        server.backlog = Backlog(loop.call_soon, loop.call_later, lambda: 0.001 * next(ticks))
        await server.start("127.0.0.1", 0)
        host, port = server.addresses[0]
        streams = [await asyncio.open_connection(host, port) for _ in range(clients)]
        for reader, writer in streams if asks else ():
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            await reader.readuntil(b"page not found\n")
        while len(server._connections) < clients:
            await asyncio.sleep(0)
        for _, writer in streams:
            writer.close()
        most = 0
        while server._connections:
            await asyncio.sleep(0)
            most = max(most, len(server.backlog))
        await server.stop()
        return most

    assert uvloop.run(scenario()) > clients // 2  # a turn of the loop reads all of them


def test_the_process_is_looked_at_in_a_thread_and_only_when_somebody_scrapes() -> None:
    metrics = Metrics(Net().context, Figures(), Registry())
    assert "os_fd_used" not in {family.name for family in metrics.own()}
    metrics.look()
    found = {family.name: family for family in metrics.own()}
    assert found["os_fd_used"].samples[0].value > 0
    assert found["muster_front_resident_memory_bytes"].samples[0].value > 0
    # what each front counts: a scrape that meets another one would see it fall
    assert "etcd_server_leader_changes_seen" in found
