"""clientv3 and the library contend for the same recipes: one holder at a time, no item lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import muster_client as m
import pytest

from tests.interop.hosts import Hosts
from tests.interop.toolchain import Program, skip_without

skip_without("go")
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

Run = Callable[[Coroutine[Any, Any, None]], None]
ROUNDS = 12


@pytest.fixture
def go(programs: dict[str, Path], hosts: Hosts, directory: str) -> Iterator[Program]:
    """Takes part below the directory, by clientv3 3.6."""
    line: list[str | Path] = [programs["3.6"], "contend", "-endpoints", hosts.all, "-base", directory]
    with Program(line) as program:
        yield program


async def told(go: Program, line: str) -> str:
    """What it says at the end of a command."""
    await asyncio.to_thread(go.wait_for, f"^done {line}:", 60)
    [found] = [text for _, text in go.lines if text.startswith(f"done {line}:")]
    return found.partition(": ")[2]


@contextlib.asynccontextmanager
async def alone(client: m.Client, base: str) -> AsyncIterator[None]:
    """Fails if somebody holds what nobody else may hold."""
    inside = f"{base}inside"
    entered = await client.when(
        m.key(inside).absent, m.key(m.prefix(f"{base}readers/")).version == 0).then(m.put(inside, "library"))
    assert entered, "two hold it"
    yield
    await client.delete(inside)


@pytest.mark.parametrize("kind", ["lock", "election"])
def test_one_holds(kind: str, go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        go.say(f"{'mutex' if kind == 'lock' else kind} {ROUNDS}")
        async with m.Client(hosts.all) as client:
            last = 0
            for _ in range(ROUNDS):
                place = (client.lock(f"{directory}lock", ttl=10) if kind == "lock" else
                         client.election(f"{directory}election").campaign("library", ttl=10))
                async with place, alone(client, directory):
                    assert place.token > last
                    last = place.token
            await told(go, f"{'mutex' if kind == 'lock' else kind} {ROUNDS}")

    run(main())


def test_readers_and_writers(go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        go.say(f"read {ROUNDS}")
        go.say(f"write {ROUNDS}")
        async with m.Client(hosts.all) as client:
            rw = client.rwlock(f"{directory}rw")

            async def read() -> None:
                for i in range(ROUNDS):
                    async with rw.read(ttl=10):
                        own = f"{directory}readers/library-{i}"
                        assert await client.when(m.key(f"{directory}inside").absent).then(m.put(own, ""))
                        await client.delete(own)

            async def write() -> None:
                for _ in range(ROUNDS):
                    async with rw.write(ttl=10), alone(client, directory):
                        pass

            async with asyncio.timeout(60):
                await asyncio.gather(read(), write())
            await told(go, f"read {ROUNDS}")
            await told(go, f"write {ROUNDS}")

    run(main())


def test_queues(go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            queue, line = client.queue(f"{directory}queue"), client.priority_queue(f"{directory}priority")
            go.say("queue-put 4")
            assert [(await queue.get()).text for _ in range(4)] == [f"go-{i}" for i in range(4)]
            go.say("queue-take 3")  # waits
            for i in range(3):
                await queue.put(f"library-{i}")
            assert await told(go, "queue-take 3") == "library-0 library-1 library-2"
            go.say("priority-put 3")  # of priorities 20, 10 and 0
            await told(go, "priority-put 3")
            await line.put("library-5", 5)
            await line.put("library-10", 10)
            go.say("priority-take 2")
            assert await told(go, "priority-take 2") == "go-0 library-5"
            assert [(await line.get()).text for _ in range(3)] == ["go-1", "library-10", "go-2"]
            # all together: each item once
            go.say("queue-put 10")
            go.say("queue-take 10")
            await asyncio.gather(*(queue.put(f"library-{i}") for i in range(10)))
            taken = [(await queue.get()).text for _ in range(10)]
            taken += (await told(go, "queue-take 10")).split()
            assert sorted(taken) == sorted(f"{name}-{i}" for name in ("go", "library") for i in range(10))

    run(main())


def test_barriers(go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            async with client.barrier(f"{directory}barrier"):
                go.say("barrier 0")
                await asyncio.sleep(0.2)  # a barrier that does not hold would let it pass meanwhile
                assert not go.times("^done barrier")
            await told(go, "barrier 0")
            go.say("double 3")
            first, second = (client.double_barrier(f"{directory}double", 3, ttl=10) for _ in range(2))
            entering = asyncio.create_task(first.enter())
            assert not (await asyncio.wait((entering,), timeout=0.2))[0]
            async with asyncio.timeout(20):
                await asyncio.gather(second.enter(), entering)
                await asyncio.to_thread(go.wait_for, "^entered$", 20)
                leaving = asyncio.create_task(first.leave())
                assert not (await asyncio.wait((leaving,), timeout=0.2))[0]
                assert not go.times("^done double")
                await asyncio.gather(second.leave(), leaving)
            await told(go, "double 3")
            assert await client.count(m.prefix(f"{directory}double/")) == 0

    run(main())


def test_memory(go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            go.say("stm 30")

            async def count(stm: m.Stm) -> None:
                stm.put(f"{directory}count", str(int(await stm.text(f"{directory}count") or 0) + 1))

            for _ in range(30):
                await client.stm(count)
            await told(go, "stm 30")
            kv = await client.get(f"{directory}count")
            assert kv is not None
            assert kv.text == "60"

    run(main())


def test_services(go: Program, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        service = f"{directory}service"
        async with (
            m.Client(hosts.all) as client,
            client.register(service, "10.0.0.1:80", zone="a", metadata={"weight": 2}),
            client.register(service, "10.0.0.2:80"),
            client.discover(service) as found,
        ):
            for endpoint in hosts.endpoints:  # Go's list is one member's view
                async with m.Client(endpoint) as one, asyncio.timeout(20):
                    while not await one.get(f"{service}/10.0.0.2:80", serializable=True):
                        await asyncio.sleep(0.01)
            go.say("list 0")
            assert await told(go, "list 0") == "10.0.0.1:80=map[weight:2 zone:a] 10.0.0.2:80=<nil>"
            go.say("register 70")
            async with asyncio.timeout(20):
                instances = await found.wait_for(3)
            assert [(one.address, one.zone) for one in instances] == [
                ("10.0.0.1:80", "a"), ("10.0.0.2:80", ""), ("10.0.0.9:70", "go")]

    run(main())
