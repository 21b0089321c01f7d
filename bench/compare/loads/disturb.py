"""Puts at a fixed rate, first alone, then beside long work at the same servers.

The result is that of the second run, with the first run's latencies as ``before``. The client of the long
work is a process of its own (``python -m bench.compare.loads.disturb SPEC KIND PART``) at idle priority, as
if on another machine: parsing an answer of 28 MB takes it 25 ms, which would be most of the puts' latency.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import uvloop

from bench.client import Client, RpcError
from bench.compare.loads import upkeep
from bench.compare.matrix import BIG_PREFIX
from bench.load import run
from bench.load.spec import Spec
from bench.load.traffic.streams import CatchUps
from bench.load.traffic.workloads import RANGE
from bench.parent import say, started
from cluster.pb import rpc_pb2 as pb

SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
_LONG_S = 60.0
_START_S = 30.0
_BACKUP_S = 300.0


@dataclass(slots=True)
class Done:
    """The progress of the long work."""

    took_s: list[float] = field(default_factory=list)  # of each finished piece
    events: int = 0  # delivered to watchers that catch up
    failed: str = ""
    ended: bool = False  # in order


async def disturbed_run(spec: Spec, disturbance: str, server_roots: Sequence[int], *, processes: int = 1,
                        part: float = 1.0) -> dict[str, Any]:
    """Both runs. ``part``: the share of the history that a compaction removes."""
    before = await run.run(spec, processes=processes, server_roots=server_roots)
    async with _long_work(spec, disturbance, part) as (done, ended):
        result = await run.run(replace(spec, seed=spec.seed + 100), processes=processes,
                               server_roots=server_roots)
        if disturbance == "compaction":  # or the next turn would begin within it
            await asyncio.wait((ended,), timeout=_LONG_S)
    if done.failed or not done.ended:
        raise run.RunError(f"{disturbance}: {done.failed or 'the process of the long work died'}")
    result["before"] = {"latency_ms": before["latency_ms"], "operations": before["operations"],
                        "errors": before["errors"]}
    result["disturbance"] = {"kind": disturbance, "finished": len(done.took_s), "took_s": done.took_s,
                             "events": done.events}
    return result


@asynccontextmanager
async def _long_work(
    spec: Spec, disturbance: str, part: float
) -> AsyncIterator[tuple[Done, asyncio.Future[None]]]:
    """The process of the long work, once it is under way."""
    process = await started("bench.compare.loads.disturb", spec.dumps(), disturbance, str(part))
    assert process.stdin is not None
    assert process.stdout is not None
    stdout = process.stdout
    done = Done()
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen() -> None:
        while line := await stdout.readline():
            said = json.loads(line)
            if said["event"] == "done":
                done.took_s.append(said["took_s"])
            elif said["event"] == "failed":
                done.failed = said["reason"]
            elif said["event"] == "end":
                done.events, done.ended = said["events"], True
            if not ready.done():
                ready.set_result(None)

    listening = asyncio.ensure_future(listen())
    try:
        await asyncio.wait((ready, listening), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        if done.failed or not ready.done():
            raise run.RunError(
                f"{disturbance}: {done.failed or 'the process of the long work did not start'}"
            )
        yield done, listening
        with suppress(ConnectionError):
            process.stdin.close()  # which ends it
        await asyncio.wait((listening,), timeout=_START_S)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _give_way() -> None:
    """Take the lowest priority."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


async def _main(spec: Spec, disturbance: str, part: float) -> None:
    """The process of the long work, until its stdin ends."""
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    done = Done()
    try:
        client = await upkeep.connect(spec)
    except (OSError, TimeoutError, RpcError) as error:
        say("failed", reason=str(error) or type(error).__name__)
        return

    def begun() -> None:
        _give_way()
        say("begun")

    work = asyncio.ensure_future(_again(client, disturbance, part, done, begun))
    asked = asyncio.ensure_future(told.read())
    await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
    [outcome] = await asyncio.gather(work, return_exceptions=True)
    if isinstance(outcome, Exception):
        say("failed", reason=str(outcome) or type(outcome).__name__)
    say("end", events=done.events)
    asked.cancel()
    await client.close()


async def _again(
    client: Client, disturbance: str, part: float, done: Done, begun: Callable[[], None]
) -> None:
    """The long work, over and over until cancelled; a compaction once."""
    place = 0
    first = await _oldest(client)
    begun()
    while True:
        place += 1
        began = time.monotonic()
        if disturbance == "catch-up":
            await _catch_up(client, place, first, done)
        elif disturbance == "full-range":
            request = pb.RangeRequest(key=BIG_PREFIX.encode(), range_end=BIG_PREFIX[:-1].encode() + b"0")
            await client.unary(RANGE, request, pb.RangeResponse, connection=place, timeout_s=_LONG_S)
        elif disturbance == "backup":
            await _back_up(client, place)
        else:
            last = await upkeep.revision_of(client)
            await upkeep.compact(
                client, first + round((last - first) * part), physical=True, timeout_s=_LONG_S
            )
        say("done", took_s=time.monotonic() - began)
        if disturbance == "compaction":
            return


async def _back_up(client: Client, place: int) -> None:
    """A backup, by ``Maintenance.Snapshot``. RunError if it ends early."""
    ended: asyncio.Future[RpcError | None] = asyncio.get_running_loop().create_future()
    left = 1

    def message(body: bytes) -> None:
        nonlocal left
        left = pb.SnapshotResponse.FromString(body).remaining_bytes

    def end(error: RpcError | None) -> None:
        if not ended.done():  # which it is where the work was cancelled in the middle
            ended.set_result(error)

    stream = client.connections[place % len(client.connections)].stream(SNAPSHOT, message, end)
    stream.send(pb.SnapshotRequest().SerializeToString())
    stream.close_send()
    try:
        async with asyncio.timeout(_BACKUP_S):
            error = await ended
    except TimeoutError:
        raise run.RunError(f"no backup within {_BACKUP_S:.0f} s") from None
    finally:
        stream.cancel()
    if error is not None or left:
        raise run.RunError(f"a backup ended: {error or f'{left} bytes before its end'}")


async def _catch_up(client: Client, place: int, first: int, done: Done) -> None:
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
        done.events += watcher.received
        watcher.close()


async def _oldest(client: Client) -> int:
    """The last compacted revision, after which watches can begin; 1 without a compaction."""
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


if __name__ == "__main__":
    uvloop.run(_main(Spec.loads(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
