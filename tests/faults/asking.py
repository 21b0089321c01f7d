"""Requests through every host all the time, whatever became of those before: how long a host does not answer.

A request that waits for something that is over is not counted against those that begin later: a stall is the
time from a moment to the first answer to what was asked after it. The writes delete what is not there: they
are logged, committed and put in order like any, without an event that a check of somebody else's history
would find.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from bench.client import Client, Endpoint, RpcError
from cluster.pb import rpc_pb2 as pb

_KEYS = (b"/s0/k", b"/s1/k", b"/s2/k", b"/s3/k")  # on both of two shards
_LIMIT_S = 20.0  # a front gives up by itself before


class Asking:
    """Writes and linearizable reads of keys on every shard through one host, one more of each every
    ``pause_s``."""

    def __init__(self, endpoint: tuple[str, int], pause_s: float) -> None:
        self._endpoint = Endpoint(*endpoint)
        self._pause_s = pause_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.answered: dict[str, list[tuple[float, float]]] = {"write": [], "get": []}  # (asked, answered)
        self._main = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        client: Client | None = None
        try:
            while True:
                if client is not None and client.connections[0].closed.is_set():
                    await client.close()
                    client = None
                if client is None:
                    with contextlib.suppress(OSError, TimeoutError):
                        client = await Client.open([self._endpoint], 1, timeout_s=2.0)
                if client is not None:
                    for kind in ("write", "get"):
                        task = asyncio.get_running_loop().create_task(self._ask(client, kind))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(self._pause_s)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if client is not None:
                await client.close()

    async def _ask(self, client: Client, kind: str) -> None:
        asked = time.monotonic()
        with contextlib.suppress(RpcError, TimeoutError):
            for key in _KEYS:
                if kind == "write":
                    await client.unary(
                        "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=key),
                        pb.DeleteRangeResponse, timeout_s=_LIMIT_S,
                    )
                else:
                    await client.unary(
                        "/etcdserverpb.KV/Range", pb.RangeRequest(key=key), pb.RangeResponse,
                        timeout_s=_LIMIT_S,
                    )
            self.answered[kind].append((asked, time.monotonic()))

    def first_since(self, moment: float) -> dict[str, float]:
        """Of each kind, how long after a moment all of it was answered that was asked after it; what was not
        is missing."""
        found = {}
        for kind, pairs in self.answered.items():
            if after := [answered for asked, answered in pairs if asked >= moment]:
                found[kind] = min(after) - moment
        return found

    async def close(self) -> None:
        self._main.cancel()
        await asyncio.gather(self._main, return_exceptions=True)


async def resumed(asking: list[Asking], moment: float, limit_s: float = 300.0) -> list[dict[str, float]]:
    """How long after a moment each host answered both kinds, waited for."""
    async with asyncio.timeout(limit_s):
        while any(len(a.first_since(moment)) < 2 for a in asking):
            await asyncio.sleep(0.05)
    return [a.first_since(moment) for a in asking]


@contextlib.asynccontextmanager
async def everybody_asking(
    endpoints: Sequence[tuple[str, int]], pause_s: float = 0.1
) -> AsyncIterator[list[Asking]]:
    """Ask through every host around the body, which begins when all answer."""
    asking = [Asking(e, pause_s) for e in endpoints]
    try:
        await resumed(asking, time.monotonic(), 60.0)
        yield asking
    finally:
        for a in asking:
            await a.close()


def told(found: list[dict[str, float]]) -> str:
    return ", ".join(f"host {i}: write {f['write']:.2f} s, get {f['get']:.2f} s" for i, f in enumerate(found))


def longest(found: list[dict[str, float]]) -> float:
    return max(max(f.values()) for f in found)
