"""When operations are sent, and what their latency counts from."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import uvloop
from muster_client.pb import rpc_pb2 as pb

from bench.client import Client, RpcError, Status, parse_endpoint
from bench.client.connection import Callback
from bench.load import run
from bench.load.loops import Loop
from bench.load.spec import Spec
from bench.load.ticker import Ticker
from bench.load.traffic.workloads import PUT, put_body
from bench.systems.systems import System
from tests.tries import TooSlow, best_of_three, within
from tests.unit.library.scripted import scripted


class FakeCaller:
    """Answers every call after ``delay_s``; while ``stalled``, it keeps them until released."""

    def __init__(self, delay_s: float = 0.0, error: RpcError | None = None) -> None:
        self.delay_s = delay_s
        self.error = error
        self.calls = 0
        self.most_open = 0
        self.cancelled = 0
        self.silent = False
        self._open: dict[int, Callback] = {}

    def call(self, path: str, body: bytes, callback: Callback) -> int:
        self.calls += 1
        self._open[self.calls] = callback
        self.most_open = max(self.most_open, len(self._open))
        if not self.silent:
            asyncio.get_running_loop().call_later(self.delay_s, self._answer, self.calls)
        return self.calls

    def cancel(self, stream_id: int) -> None:
        self.cancelled += self._open.pop(stream_id, None) is not None

    def answer_all(self) -> None:
        for call in list(self._open):
            self._answer(call)

    def _answer(self, call: int) -> None:
        callback = self._open.pop(call, None)
        if callback is not None:
            callback(self.error, b"")


def run_loop(spec: Spec, caller: FakeCaller,
             during: Callable[[Loop], Awaitable[None]] | None = None) -> Loop:
    async def run() -> Loop:
        loop = Loop(spec, [caller], "/", lambda now: b"")
        other = asyncio.ensure_future(during(loop)) if during else None
        async with asyncio.timeout(20):
            await loop.run()
        if other is not None:
            await other
        return loop

    return uvloop.run(run())


def spec(**changes: object) -> Spec:
    return Spec("put", ("x:1",), **changes)  # type: ignore[arg-type]


def test_a_closed_loop_makes_exactly_its_total_with_each_client_waiting_for_its_answer() -> None:
    caller = FakeCaller()
    loop = run_loop(spec(clients=7, total=100), caller)
    assert (caller.calls, len(loop.samples_us), caller.most_open) == (100, 100, 7)


def test_a_total_below_the_number_of_clients_is_kept() -> None:
    caller = FakeCaller()
    assert len(run_loop(spec(clients=10, total=3), caller).samples_us) == 3


def test_a_closed_loop_with_a_duration_ends_by_itself() -> None:
    started = time.perf_counter()
    loop = run_loop(spec(clients=2, duration_s=0.2), FakeCaller(0.01))
    assert 0.2 <= time.perf_counter() - started < 30
    assert loop.samples_us
    assert min(loop.samples_us) >= 9_000


def test_failures_are_counted_by_kind_and_not_as_latencies() -> None:
    caller = FakeCaller(error=RpcError(Status.RESOURCE_EXHAUSTED, "too many"))
    loop = run_loop(spec(clients=2, total=10), caller)
    assert loop.errors == {"RESOURCE_EXHAUSTED: too many": 10}
    assert loop.samples_us == []


@pytest.mark.parametrize("text", [
    "etcdserver: invalid auth token", "etcdserver: revision of auth store is old"])
def test_a_user_whose_token_ends_is_logged_in_again_and_no_operation_fails(text: str) -> None:
    """From the end of a JWT, five minutes by default, every operation failed."""
    logins: list[str] = []

    def log_in(request: pb.AuthenticateRequest, context: grpc.ServicerContext) -> pb.AuthenticateResponse:
        logins.append(f"{request.name}:{request.password}")
        return pb.AuthenticateResponse(token=f"t{len(logins)}")

    def put(request: pb.PutRequest, context: grpc.ServicerContext) -> pb.PutResponse:
        if dict(context.invocation_metadata())["token"] == "t1":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, text)
        return pb.PutResponse()

    async def run(address: str) -> tuple[Loop, list[tuple[str, str]]]:
        user = "root:a:b"
        client = await Client.open([parse_endpoint(address)], 2, user=user)
        try:
            loop = Loop(spec(clients=4, total=40, user=user), client.connections, PUT, lambda now: b"")
            async with asyncio.timeout(60):
                await loop.run()
            return loop, list(client.metadata)
        finally:
            await client.close()

    with scripted({"Auth/Authenticate": log_in, "KV/Put": put}) as address:
        loop, metadata = uvloop.run(run(address))
    assert (loop.errors, len(loop.samples_us)) == ({}, 40)
    assert logins[:2] == ["root:a:b"] * 2
    assert metadata == [("token", f"t{len(logins)}")]


def test_a_user_who_cannot_log_in_again_is_an_error_in_the_end() -> None:
    caller = FakeCaller(error=RpcError(Status.UNAUTHENTICATED, "etcdserver: invalid auth token"))
    loop = run_loop(spec(clients=2, total=2, timeout_s=0.2, user="root:pw"), caller)
    assert loop.errors == {"UNAUTHENTICATED: etcdserver: invalid auth token": 2}
    assert caller.calls > 2


def test_clients_of_a_server_that_is_away_do_not_spin() -> None:
    caller = FakeCaller(error=RpcError(Status.UNAVAILABLE, "away", sent=False))
    loop = run_loop(spec(clients=2, duration_s=0.2), caller)
    assert 2 <= loop.errors.total() <= 30


def test_calls_without_an_answer_are_given_up_after_the_timeout() -> None:
    caller = FakeCaller()
    caller.silent = True
    loop = run_loop(spec(clients=3, total=3, timeout_s=0.2), caller)
    assert loop.errors == {"DEADLINE_EXCEEDED: no answer within the time limit": 3}
    assert caller.cancelled == 3


def test_an_answer_behind_the_timeout_is_a_failure_also_of_calls_that_cannot_be_cancelled() -> None:
    class Pipelined(FakeCaller):
        def call(self, path: str, body: bytes, callback: Callback) -> int:
            super().call(path, body, callback)
            return 0

    loop = run_loop(spec(clients=3, total=3, timeout_s=0.2), Pipelined(0.3))
    assert loop.errors == {"DEADLINE_EXCEEDED: no answer within the time limit": 3}
    assert loop.samples_us == []
    assert len(run_loop(spec(clients=3, total=3, timeout_s=20.0), Pipelined(0.01)).samples_us) == 3


@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_a_run_on_a_server_that_never_answers_is_given_up(rate: float) -> None:
    caller = FakeCaller()
    caller.silent = True
    started = time.perf_counter()
    loop = run_loop(spec(clients=1, total=100_000, timeout_s=0.1, rate_per_s=rate), caller)
    assert time.perf_counter() - started < 60  # at 0.1 s each it would take three hours
    assert loop.errors["gave up: nothing answered for 3 time limits"] == 1


@pytest.mark.parametrize("rate", [50.0, 2_000.0, 20_000.0])
@best_of_three
def test_an_open_loop_keeps_its_rate(rate: float) -> None:
    started = time.perf_counter()
    loop = run_loop(spec(clients=500, total=int(rate * 0.5), rate_per_s=rate), FakeCaller())
    took = time.perf_counter() - started
    assert len(loop.samples_us) == int(rate * 0.5)
    assert took >= 0.45
    within(took, 2.0)


def test_an_open_loop_charges_a_stall_to_every_operation_that_it_delayed() -> None:
    """One client, 200 operations a second, a stall of 0.4 s: some 80 operations were due meanwhile."""

    async def stall(loop: Loop) -> None:
        await asyncio.sleep(0.2)
        caller.silent = True
        await asyncio.sleep(0.4)
        caller.silent = False
        caller.answer_all()

    caller = FakeCaller()
    loop = run_loop(spec(clients=1, duration_s=1.0, rate_per_s=200.0), caller, stall)
    late = [sample for sample in loop.samples_us if sample > 50_000]
    assert len(loop.samples_us) == 200
    assert len(late) >= 55  # evenly from 400 ms down to 50 ms: 70 on an idle machine
    assert max(late) >= 380_000
    assert caller.most_open == 1


def test_an_open_loop_that_is_stopped_behind_a_stall_still_charges_it() -> None:
    """One client, 200 operations a second: some 80 were due when it was stopped."""

    async def stall(loop: Loop) -> None:
        await asyncio.sleep(0.4)
        loop.stop(drain=True)
        caller.silent = False
        caller.answer_all()

    caller = FakeCaller()
    caller.silent = True
    loop = run_loop(spec(clients=1, duration_s=60.0, rate_per_s=200.0), caller, stall)
    assert len([sample for sample in loop.samples_us if sample > 50_000]) >= 55
    assert not loop.errors


@pytest.mark.parametrize("draining", [False, True])
def test_an_open_loop_that_is_stopped_sends_nothing_of_what_waits_and_says_so(draining: bool) -> None:
    """Ctrl-C where the server is slower than the rate; a second order to stop holds, too."""
    calls = 0

    async def stopped(loop: Loop) -> None:
        nonlocal calls
        await asyncio.sleep(0.3)
        if draining:
            loop.stop(drain=True)
        loop.stop()
        calls = caller.calls

    caller = FakeCaller(0.02)
    loop = run_loop(spec(clients=1, duration_s=60.0, rate_per_s=500.0), caller, stopped)
    assert caller.calls == calls == len(loop.samples_us)
    assert loop.errors == {"not sent before the stop": loop._issued - calls}
    assert loop._issued > calls


@best_of_three
def test_a_closed_loop_sees_the_same_stall_once() -> None:
    async def stall(loop: Loop) -> None:
        await asyncio.sleep(0.1)
        caller.silent = True
        await asyncio.sleep(0.4)
        caller.silent = False
        caller.answer_all()

    caller = FakeCaller(0.001)
    loop = run_loop(spec(clients=1, duration_s=0.6), caller, stall)
    seen = len([sample for sample in loop.samples_us if sample > 300_000])
    if seen != 1:
        raise TooSlow(f"{seen} stalls: the machine has stalls of its own")


def test_what_an_open_loop_could_not_send_is_counted_as_an_error() -> None:
    caller = FakeCaller()
    caller.silent = True
    loop = run_loop(spec(clients=1, total=50, rate_per_s=1000.0, timeout_s=0.3), caller)
    assert loop.errors.total() == 50
    assert loop.errors["not sent before the time limit"] >= 40


def test_a_stopped_etcd_shows_in_the_latencies_of_a_fixed_rate(own_etcd: System) -> None:
    """SIGSTOP for 0.5 s at 200 operations a second: some 100 operations waited, the first one for 0.5 s."""
    work = Spec("put", tuple(own_etcd.endpoints), clients=50, conns=1, duration_s=1.5, rate_per_s=200.0)

    async def run() -> Loop:
        client = await Client.open([parse_endpoint(e) for e in own_etcd.endpoints])
        loop = Loop(work, client.connections, PUT, put_body(work))
        running = asyncio.ensure_future(loop.run())
        await asyncio.sleep(0.4)
        own_etcd.processes[0].send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.5)
        own_etcd.processes[0].send_signal(signal.SIGCONT)
        await running
        await client.close()
        return loop

    loop = uvloop.run(run())
    assert len(loop.samples_us) == 300
    assert max(loop.samples_us) >= 490_000
    assert len([sample for sample in loop.samples_us if sample > 100_000]) >= 75
    assert not loop.errors


@best_of_three
def test_a_ticker_is_finer_than_a_millisecond_and_stops() -> None:
    async def run() -> tuple[list[float], int]:
        ticks: list[float] = []
        ticker = Ticker(0.0002, lambda: ticks.append(time.perf_counter()))
        async with asyncio.timeout(10):
            while len(ticks) < 300:
                await asyncio.sleep(0.01)
        ticker.close()
        at_close = len(ticks)
        await asyncio.sleep(0.01)
        return ticks, at_close

    ticks, at_close = uvloop.run(run())
    assert len(ticks) == at_close
    gaps = sorted(b - a for a, b in itertools.pairwise(ticks))
    within(gaps[len(gaps) // 4], 0.0009, "a turn")  # a timer of whole milliseconds has none


@pytest.mark.parametrize("rate", [0.0, 500.0])
def test_a_run_that_is_stopped_tells_what_was_done_until_then(etcd: System, rate: float) -> None:
    async def stopped() -> dict[str, Any]:
        stop = asyncio.Event()
        spec = Spec("put", tuple(etcd.endpoints), clients=4, duration_s=60.0, rate_per_s=rate)
        async with asyncio.timeout(90):
            return await run.run(spec, processes=2, stop=stop,
                                 progress=lambda operations, errors: stop.set() if operations else None)

    result = uvloop.run(stopped())
    assert 0 < result["operations"] < 60_000
    assert result["errors"].keys() <= {"not sent before the stop"}
    assert result["duration_s"] < 50
