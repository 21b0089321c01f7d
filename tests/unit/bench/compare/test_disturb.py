"""Puts beside long work: what the work does, and that it is a process of its own that gives way."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.compare.loads import disturb, upkeep
from bench.load import run
from bench.load.spec import Spec
from bench.systems.systems import System, free_ports

KEYS = 20


def spec_of(etcd: System) -> Spec:
    return Spec(
        "put",
        tuple(etcd.endpoints),
        key_prefix="/big/",
        key_size_bytes=13,
        key_space=KEYS,
        clients=2,
        conns=1,
        rate_per_s=50.0,
        duration_s=0.5,
    )


async def long_work(spec: Spec, kind: str, done: disturb.Done, until: asyncio.Event) -> None:
    client = await upkeep.connect(spec)
    work = asyncio.ensure_future(disturb._again(client, kind, 1.0, done, lambda: None))
    await until.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await client.close()


@pytest.mark.parametrize("kind", ["catch-up", "full-range", "backup"])
def test_the_long_work_goes_on_over_and_over(
    etcd: System, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, done = spec_of(etcd), disturb.Done()
    finished = 0

    async def both() -> None:
        nonlocal finished
        await run.populate(spec)
        until = asyncio.Event()

        def say(event: str, **fields: object) -> None:
            nonlocal finished
            finished += event == "done"
            if finished == 3:
                until.set()

        monkeypatch.setattr(disturb, "say", say)
        await long_work(spec, kind, done, until)

    asyncio.run(both())
    assert finished >= 3
    assert done.events >= (3 * KEYS if kind == "catch-up" else 0)


def test_a_disturbed_run_has_both_runs_and_what_the_long_work_came_to(own_etcd: System) -> None:
    spec = spec_of(own_etcd)

    async def oldest() -> int:
        client = await upkeep.connect(spec)
        try:
            return await disturb._oldest(client)
        finally:
            await client.close()

    asyncio.run(run.populate(spec))
    result = asyncio.run(disturb.disturbed_run(spec, "compaction", own_etcd.pids))
    assert result["disturbance"]["finished"] == 1
    assert result["operations"] == result["before"]["operations"] == 25
    assert not result["errors"]
    assert asyncio.run(oldest()) > KEYS  # it is compacted


def test_the_process_of_the_long_work_gives_way_and_ends_with_its_run(etcd: System) -> None:
    spec = spec_of(etcd)

    async def begun() -> list[psutil.Process]:
        await run.populate(spec)
        async with disturb._long_work(spec, "full-range", 1.0):
            found = [p for p in psutil.Process().children() if "bench.compare.loads.disturb" in p.cmdline()]
            if sys.platform == "linux":
                policies = [
                    int(Path(f"/proc/{p.pid}/stat").read_text().rpartition(")")[2].split()[38]) for p in found
                ]
                assert policies == [5]  # SCHED_IDLE
            return found

    [process] = asyncio.run(begun())
    assert not process.is_running()


def test_long_work_that_cannot_begin_fails_the_run() -> None:
    async def refused() -> None:
        spec = Spec("put", (f"127.0.0.1:{free_ports(1)[0]}",))
        async with disturb._long_work(spec, "full-range", 1.0):
            pass

    with pytest.raises(run.RunError, match="full-range"):
        asyncio.run(refused())


def test_long_work_that_dies_fails_the_run(etcd: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the puts beside it would be undisturbed ones."""
    spec, real = spec_of(etcd), run.run
    killed: list[int] = []

    async def run_and_kill(*args: Any, **options: Any) -> dict[str, Any]:
        for process in psutil.Process().children():
            if "bench.compare.loads.disturb" in process.cmdline():
                process.kill()
                killed.append(process.pid)
        return await real(*args, **options)

    asyncio.run(run.populate(spec))
    monkeypatch.setattr(run, "run", run_and_kill)
    with pytest.raises(run.RunError, match="died"):
        asyncio.run(disturb.disturbed_run(spec, "full-range", etcd.pids))
    assert len(killed) == 1
