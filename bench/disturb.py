"""Puts at a fixed rate, first alone, then while something long goes on at the same servers.

The result is that of the second run, with the first one's latencies as ``before``: what counts is how much the
long work adds to the others' waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import run, upkeep
from bench.client import Client
from bench.matrix import BIG_PREFIX
from bench.spec import Spec
from bench.streams import CatchUps
from bench.workloads import RANGE
from cluster.pb import rpc_pb2 as pb

_LONG_S = 60.0


async def disturbed_run(spec: Spec, disturbance: str, server_roots: Sequence[int], *, processes: int = 1,
                        part: float = 1.0) -> dict[str, Any]:
    """Both runs. ``part``: of the history that is still there, what a compaction takes away."""
    before = await run.run(spec, processes=processes, server_roots=server_roots)
    client = await upkeep.connect(spec)
    took_s: list[float] = []
    long_work = asyncio.ensure_future(_again(client, disturbance, part, took_s))
    try:
        result = await run.run(replace(spec, seed=spec.seed + 100), processes=processes, server_roots=server_roots)
        failure = long_work.exception() if long_work.done() and not long_work.cancelled() else None
        if failure is not None:
            raise run.RunError(f"{disturbance}: {failure or type(failure).__name__}")
        if disturbance == "compaction" and not long_work.done():  # or the next turn would begin within it
            await asyncio.wait((long_work,), timeout=_LONG_S)
    finally:
        long_work.cancel()
        await asyncio.gather(long_work, return_exceptions=True)
        await client.close()
    result["before"] = {"latency_ms": before["latency_ms"], "operations": before["operations"],
                        "errors": before["errors"]}
    result["disturbance"] = {"kind": disturbance, "finished": len(took_s), "took_s": took_s}
    return result


async def _again(client: Client, disturbance: str, part: float, took_s: list[float]) -> None:
    """The long work, over and over until cancelled; a compaction once."""
    place = 0
    first = await _oldest(client)
    while True:
        place += 1
        began = time.monotonic()
        if disturbance == "catch-up":
            await _catch_up(client, place, first)
        elif disturbance == "full-range":
            request = pb.RangeRequest(key=BIG_PREFIX.encode(), range_end=BIG_PREFIX[:-1].encode() + b"0")
            await client.unary(RANGE, request, pb.RangeResponse, connection=place, timeout_s=_LONG_S)
        else:
            last = await upkeep.revision_of(client)
            await upkeep.compact(client, first + round((last - first) * part), physical=True, timeout_s=_LONG_S)
        took_s.append(time.monotonic() - began)
        if disturbance == "compaction":
            return


async def _catch_up(client: Client, place: int, first: int) -> None:
    """One watcher of everything, from after revision ``first`` to the present one."""
    last = await upkeep.revision_of(client)
    connection = client.connections[place % len(client.connections)]
    lone = Client(client.endpoints)
    lone.connections = [connection]
    watcher = CatchUps(lone, pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=first + 1),
                       max(1, last - first))
    try:
        if not await watcher.wait(_LONG_S):
            raise run.RunError(f"catch-up failed: {dict(watcher.errors)}")
    finally:
        watcher.close()


async def _oldest(client: Client) -> int:
    """The revision that was compacted last: watching goes from the one after it. 1 where nothing was."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def message(body: bytes) -> None:
        answer = pb.WatchResponse.FromString(body)
        if heard.done() or (answer.created and not answer.canceled):
            return
        heard.set_result(max(1, answer.compact_revision))

    def end(error: object) -> None:
        if not heard.done():
            heard.set_result(1)

    stream = client.connections[0].stream("/etcdserverpb.Watch/Watch", message, end)
    # revision 1 is before the first event; if it is compacted, the answer says up to where
    stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(
        key=b"\0", range_end=b"\0", start_revision=1)).SerializeToString())
    try:
        async with asyncio.timeout(10):
            return await heard
    except TimeoutError:
        return 1
    finally:
        stream.cancel()
