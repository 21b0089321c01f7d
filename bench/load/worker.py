"""One client process: ``python -m bench.load.worker``, started by ``bench.load.run``.

It reads its spec as the first line of stdin: every user of a machine sees command lines, and a spec has a
password. Lines of JSON on stdout: ``ready``; after ``go`` on stdin ``progress`` four times a second, and
``sent`` at the last answer (``stop`` and ``drain`` on stdin plan no more operations); after ``end PUTS`` (the
puts of all processes) ``result``. Then it revokes its leases and ends. It ends with its stdin, too: before
its result it does not outlive its parent by more than some seconds, in which it revokes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections import Counter
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import uvloop

from bench.client import Client, RpcError, parse_endpoint
from bench.load.loops import Loop
from bench.load.spec import ACTED, V2, WATCHES, Spec
from bench.load.stats import Latencies
from bench.load.traffic.actors import Actors, actors
from bench.load.traffic.kubernetes import Mix
from bench.load.traffic.streams import CatchUps
from bench.load.traffic.v2 import V2Client, v2_body
from bench.load.traffic.v2_waits import Waiters
from bench.load.traffic.watchers import Watchers
from bench.load.traffic.workloads import PUT, RANGE, key_format, put_body, unary
from bench.parent import say
from cluster.pb import rpc_pb2 as pb

_PROGRESS_S = 0.25
_STOPS = (b"stop\n", b"drain\n")
_LINE_BYTES = 1 << 20  # of a spec with thousands of endpoints
_LET_GO_S = 3.0  # for leases, where the parent is gone, or has given the run up: it kills after 5 s


class Worker:
    """One process's share of a run: :meth:`prepare`, :meth:`send`, :meth:`finish`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.latencies = Latencies()  # of the operations; of a watch, the puts
        self.delivery = Latencies()
        self.timeline: list[tuple[float, int]] = []  # seconds since the start, operations since the last one
        self._client: Client
        self._loop: Loop | Mix
        self._mix: Mix | None = None
        self._watchers: Watchers | Waiters | None = None
        self._actors: Actors | None = None
        self._catch_up: pb.WatchCreateRequest | None = None
        self._catch_ups: CatchUps | None = None
        self._cpu_before = _cpu_s()
        self._made = contextlib.AsyncExitStack()  # what :meth:`close` ends

    async def prepare(self) -> None:
        """Connect; create watchers or leases."""
        spec = self.spec
        if spec.command in V2:
            await self._prepare_v2()
            return
        self._client = await Client.open([parse_endpoint(e) for e in spec.endpoints], spec.conns,
                                         tls=spec.tls(), user=spec.user, timeout_s=spec.dial_timeout_s)
        self._made.push_async_callback(self._client.close)
        connections = self._client.connections
        if spec.command in WATCHES:
            self._watchers = watchers = Watchers(spec, self._client)
            await watchers.create()
            self._made.callback(watchers.close)
            puts = spec
            if spec.watched_keys:
                puts = replace(spec, key_space=spec.watched_keys, distribution="sequential")
            self._loop = Loop(spec, connections, PUT, put_body(puts, stamped=True))
        elif spec.command == "kubernetes":
            self._loop = self._mix = Mix(spec, self._client)
            self._made.push_async_callback(self._mix.close)
            await self._mix.create()
        elif spec.command == "watch-get":
            await self._put_history()
            get = pb.RangeRequest(key=b"abc", serializable=True).SerializeToString()
            self._loop = Loop(spec, connections, RANGE, lambda now: get)
        elif spec.command in ACTED:
            path, self._actors = actors(spec, self._client)
            self._made.push_async_callback(self._actors.close)
            await self._actors.create()
            self._loop = Loop(spec, self._actors.callers, path, lambda now: now.to_bytes(8, "big"))
        else:
            path, body = unary(spec)
            self._loop = Loop(spec, connections, path, body)
        gc.collect()
        gc.freeze()

    async def _prepare_v2(self) -> None:
        spec, endpoints = self.spec, [parse_endpoint(e) for e in self.spec.endpoints]
        if spec.user or any(endpoint.secure for endpoint in endpoints):
            raise RuntimeError("loads of version 2 are without TLS and users")
        self._client = Client(endpoints)
        if spec.command == "v2-wait":
            self._watchers = waiters = Waiters(spec, key_format(spec)(0))
            await waiters.open(endpoints)
            self._made.callback(waiters.close)
            self._loop = Loop(spec, [waiters], "", lambda now: b"")
            return
        made = await V2Client.open(endpoints, spec.conns, spec.dial_timeout_s)
        self._made.push_async_callback(made.close)
        if spec.command == "v2-get":
            await made.populate(spec)
        self._loop = Loop(spec, made.connections, "", v2_body(spec))

    async def send(self) -> None:
        self._cpu_before = _cpu_s()
        reporter = asyncio.get_running_loop().create_task(self._report())
        try:
            if self._catch_up is None:
                await self._loop.run()
            else:
                await self._run_beside(self._catch_up)
        finally:
            reporter.cancel()
        self._drain()

    def stop(self, *, drain: bool) -> None:
        """Plan no more operations; :meth:`send` returns once the open ones are answered.

        With ``drain`` those that were due are still sent.
        """
        self._loop.stop(drain=drain)

    @property
    def puts(self) -> int:
        """Operations whose events the watches wait for."""
        return len(self.latencies) if self._mix is None else self._mix.committed

    async def _put_history(self) -> None:
        """Put the events of ``watch-get``, on a key of this process."""
        key = b"watchkey/%d" % os.getpid()
        first = 0
        for i in range(self.spec.events):
            put = pb.PutRequest(key=key, value=b"%d" % i)
            answer = await self._client.unary(PUT, put, pb.PutResponse, timeout_s=self.spec.timeout_s)
            first = first or answer.header.revision
        self._catch_up = pb.WatchCreateRequest(key=key, start_revision=first)

    async def _run_beside(self, request: pb.WatchCreateRequest) -> None:
        """Read until the watchers have caught up, and total or duration, if given, is reached."""
        spec = self.spec
        limit_s = (spec.duration_s or 60.0) + spec.timeout_s
        running = asyncio.ensure_future(self._loop.run())
        self._catch_ups = CatchUps(self._client, request, spec.events, streams=spec.streams,
                                   watchers=spec.watchers)
        self._made.callback(self._catch_ups.close)
        await self._catch_ups.wait(limit_s)
        if not spec.total and not spec.duration_s:
            self._loop.stop(drain=True)
        await running

    async def finish(self, puts: int) -> dict[str, Any]:
        """Wait for events, and return the ``result``."""
        loop = self._loop
        if self._mix is not None:
            await self._mix.wait_for(puts)
        errors = Counter(loop.errors)
        extra: dict[str, list[tuple[int, int]]] = {}
        to_all_us: dict[int, int] = {}
        ended_ns = loop.ended_ns
        if self._watchers is not None:
            await self._watchers.wait_for(puts)
            self._drain()
            ended_ns = max(ended_ns, self._watchers.last_event_ns)
            errors.update(self._watchers.errors)
            extra["watch_created"] = _pairs(self._watchers.created_us)
            extra["round" if self.spec.command == "v2-wait" else "put"] = self.latencies.pairs()
            to_all_us = self._watchers.to_all_us
        if self._catch_ups is not None:
            errors.update(self._catch_ups.errors)
            extra["caught_up"] = _pairs(self._catch_ups.caught_up_us)
        for part in (self._actors, self._mix):
            if part is not None:
                extra.update({name: _pairs(values) for name, values in part.extra_us.items()})
        cpu_s = [after - before for after, before in zip(_cpu_s(), self._cpu_before, strict=True)]
        return {
            "pid": os.getpid(), "started_ns": loop.started_ns, "ended_ns": ended_ns,
            "latencies": (self.latencies if self._watchers is None else self.delivery).pairs(),
            "errors": dict(errors), "timeline": self.timeline, "extra": extra,
            "to_all_us": list(to_all_us.items()),
            "reconnects": self._client.reconnects,
            "kinds_s": self._mix.took_s if self._mix is not None else {},
            "user_s": cpu_s[0], "system_s": cpu_s[1],
            "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    async def close(self) -> None:
        """Revoke the leases, and close the connections. A run that did not come to its end ends here."""
        if hasattr(self, "_loop"):
            self._loop.stop()
        await self._made.aclose()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._drain()
            say("progress", operations=len(self.latencies), errors=self._loop.errors.total())

    def _drain(self) -> None:
        samples = self._loop.samples_us
        self.latencies.add(samples)
        self.timeline.append(((perf_counter_ns() - self._loop.started_ns) / 1e9, len(samples)))
        samples.clear()
        if self._watchers is not None:
            self.delivery.add_counted(self._watchers.samples_us)
            self._watchers.samples_us.clear()


def _cpu_s() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def _pairs(samples_us: list[int]) -> list[tuple[int, int]]:
    latencies = Latencies()
    latencies.add(samples_us)
    return latencies.pairs()


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _serve() -> None:
    orders = await _orders()
    if not (line := await orders.readline()):  # the parent is gone
        return
    worker, whole = Worker(Spec.loads(line.decode())), False
    try:
        whole = await _run(worker, orders)
    finally:
        with contextlib.suppress(OSError, TimeoutError, RpcError):  # what is left ends by itself
            async with asyncio.timeout(None if whole else _LET_GO_S):
                await worker.close()


async def _run(worker: Worker, orders: asyncio.StreamReader) -> bool:
    """Obey. False: not to the end."""
    try:
        await worker.prepare()
    except (OSError, TimeoutError, RpcError, RuntimeError) as error:
        say("failed", reason=str(error) or type(error).__name__)
        return False
    say("ready")
    if await orders.readline() != b"go\n":
        return False
    sending = asyncio.ensure_future(worker.send())
    order = asyncio.ensure_future(orders.readline())
    while not sending.done():
        await asyncio.wait((sending, order), return_when=asyncio.FIRST_COMPLETED)
        if not order.done():
            continue
        if order.result() not in _STOPS:  # the parent is gone
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            return False
        worker.stop(drain=order.result() == b"drain\n")
        order = asyncio.ensure_future(orders.readline())
    sending.result()
    say("sent", operations=worker.puts)
    while (line := await order) in _STOPS:  # it came as the last operation was answered
        order = asyncio.ensure_future(orders.readline())
    words = line.split()
    if words[:1] != [b"end"]:
        return False
    say("result", **await worker.finish(int(words[1])))
    return True


if __name__ == "__main__":
    # Ctrl-C reaches the whole group; the parent ends us in order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve())
