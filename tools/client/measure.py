"""Puts and gets a second, and the process's own CPU, by one of Python's clients of etcd.

    python tools/client/measure.py muster_client 127.0.0.1:2379

``etcd3`` and ``aetcd`` are measured in virtual environments of their own, since they need old protobufs. It
prints rows: client, work, tasks at a time, calls a second, microseconds of CPU a call, p50 in milliseconds.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

DURATION_S = 3.0
TASKS = (1, 100, 1000)  # threads: the first two


class Meter:
    """Times of calls, from the begin on."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._began = time.monotonic()
        self._used = resource.getrusage(resource.RUSAGE_SELF)
        self.until = self._began + DURATION_S

    def tell(self, client: str, work: str, tasks: int) -> None:
        took = time.monotonic() - self._began
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime - self._used.ru_utime - self._used.ru_stime
        count = len(self.times)
        print(f"{client}\t{work}\t{tasks}\t{count / took:.0f}\t{cpu / count * 1e6:.0f}\t"
              f"{statistics.median(self.times) * 1e3:.2f}", flush=True)


async def _in_loop(name: str, calls: dict[str, Callable[[int], Awaitable[Any]]]) -> None:
    for work, call in calls.items():
        for tasks in TASKS:
            await asyncio.gather(*(call(i) for i in range(tasks)))
            meter = Meter()

            async def load(i: int, meter: Meter = meter, call: Any = call) -> None:
                while (began := time.monotonic()) < meter.until:
                    await call(i)
                    meter.times.append(time.monotonic() - began)

            await asyncio.gather(*(load(i) for i in range(tasks)))
            meter.tell(name, work, tasks)


def _in_threads(name: str, calls: dict[str, Callable[[int], Any]]) -> None:
    for work, call in calls.items():
        for tasks in TASKS[:2]:
            call(0)
            meter = Meter()

            def load(i: int, meter: Meter = meter, call: Any = call) -> None:
                while (began := time.monotonic()) < meter.until:
                    call(i)
                    meter.times.append(time.monotonic() - began)

            threads = [threading.Thread(target=load, args=(i,)) for i in range(tasks)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            meter.tell(name, work, tasks)


def keys() -> Iterator[str]:
    """One for each task."""
    return (f"/measure/{i:03}" for i in range(max(TASKS)))


async def muster_client(endpoint: str) -> None:
    import muster_client as m

    names = list(keys())
    async with m.Client(endpoint) as client:
        await _in_loop("muster_client", {
            "put": lambda i: client.put(names[i], b"x" * 64), "get": lambda i: client.get(names[i])})


def muster_client_sync(endpoint: str) -> None:
    from muster_client import sync

    names = list(keys())
    with sync.Client(endpoint) as client:
        _in_threads("muster_client.sync", {
            "put": lambda i: client.put(names[i], b"x" * 64), "get": lambda i: client.get(names[i])})


async def aetcd(endpoint: str) -> None:
    import aetcd

    host, _, port = endpoint.partition(":")
    names = [name.encode() for name in keys()]
    async with aetcd.Client(host=host, port=int(port)) as client:
        await _in_loop("aetcd", {
            "put": lambda i: client.put(names[i], b"x" * 64), "get": lambda i: client.get(names[i])})


def etcd3(endpoint: str) -> None:
    import etcd3

    host, _, port = endpoint.partition(":")
    names = list(keys())
    client = etcd3.client(host=host, port=int(port))
    _in_threads("etcd3", {
        "put": lambda i: client.put(names[i], b"x" * 64), "get": lambda i: client.get(names[i])})


if __name__ == "__main__":
    chosen = {"muster_client": muster_client, "muster_client.sync": muster_client_sync, "aetcd": aetcd,
              "etcd3": etcd3}[sys.argv[1]]
    found: Any = chosen(sys.argv[2])
    if found is not None:
        asyncio.run(found)
