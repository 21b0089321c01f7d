"""Locks that several hold, barriers, queues and transactions in memory: promises kept beside others."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import muster_client as m
import pytest
from muster_client import sync

from tests.interop.hosts import Hosts

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_readers_share_and_a_writer_is_alone(hosts: Hosts, directory: str, run: Run) -> None:
    inside: dict[str, int] = {"read": 0, "write": 0}
    together: list[int] = []
    tokens: list[int] = []

    async def hold(i: int) -> None:
        kind = "write" if i % 4 == 0 else "read"
        async with m.Client(hosts.endpoints[i % 3]) as client:
            rw = client.rwlock(f"{directory}rw")
            async with rw.write(ttl=10) if kind == "write" else rw.read(ttl=10) as lock:
                inside[kind] += 1
                together.append(inside["read"])
                assert inside["write"] + bool(inside["read"]) == 1
                if kind == "write":
                    tokens.append(lock.token)
                    assert await client.when(lock.held).then(m.put(f"{directory}by", str(i)))
                await asyncio.sleep(0.02)
                inside[kind] -= 1

    async def main() -> None:
        await asyncio.gather(*map(hold, range(12)))
        assert max(together) > 1, "no readers were inside together"
        assert tokens == sorted(tokens)
        async with m.Client(hosts.all) as client:
            assert await client.count(m.prefix(f"{directory}rw/")) == 0

    run(main())


def test_readers_behind_a_writer_wait(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, await client.lease(20) as lease:
            rw = client.rwlock(f"{directory}rw")
            first, writer, second = rw.read(lease=lease), rw.write(lease=lease), rw.read(lease=lease)
            await first.acquire()
            waiting = asyncio.create_task(writer.acquire())
            while await client.count(m.prefix(f"{directory}rw/write")) == 0:
                await asyncio.sleep(0.01)
            assert not await second.try_acquire(), "a writer waits before it"
            await first.release()
            await asyncio.wait_for(waiting, 5)
            await writer.release()
            assert await second.try_acquire()
            await second.release()

    run(main())


def test_a_semaphore_holds_so_many(hosts: Hosts, directory: str, run: Run) -> None:
    inside = 0
    most = 0

    async def main() -> None:
        async with m.Client(hosts.all) as client, await client.lease(20) as lease:

            async def hold() -> None:
                nonlocal inside, most
                async with client.semaphore(f"{directory}s", 3, lease=lease):
                    inside += 1
                    most = max(most, inside)
                    while most < 3:
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.02)  # a fourth would come meanwhile
                    inside -= 1

            async with asyncio.timeout(30):
                await asyncio.gather(*(hold() for _ in range(10)))
            assert most == 3
            with pytest.raises(ValueError, match="at least"):
                client.semaphore(f"{directory}s", 0)

    run(main())


def test_a_barrier_opens_once(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:
            await other.barrier(f"{directory}b").wait()
            async with client.barrier(f"{directory}b") as barrier:
                with pytest.raises(m.Taken):
                    await other.barrier(f"{directory}b").hold()
                waiting = [asyncio.create_task(other.barrier(f"{directory}b").wait()) for _ in range(3)]
                assert not (await asyncio.wait(waiting, timeout=0.2))[0]
                assert await client.when(barrier.held).then(m.put(f"{directory}x", "1"))
            await asyncio.wait_for(asyncio.gather(*waiting), 5)

    run(main())


def test_a_double_barrier_begins_and_ends_together(hosts: Hosts, directory: str, run: Run) -> None:
    log: list[str] = []
    tokens: set[int] = set()

    async def main() -> None:
        async with m.Client(hosts.all) as client:

            async def take_part(turn: int) -> None:
                log.append("came")
                async with client.double_barrier(f"{directory}d", 5, ttl=10) as barrier:
                    log.append("began")
                    tokens.add(barrier.token)
                log.append("left")

            for turn in range(2):
                log.clear()
                async with asyncio.timeout(20):
                    await asyncio.gather(*(take_part(turn) for _ in range(5)))
                assert log == ["came"] * 5 + ["began"] * 5 + ["left"] * 5
            assert len(tokens) == 2
            assert await client.count(m.prefix(f"{directory}d")) == 0
            # one that takes part and dies is counted out
            alone = client.double_barrier(f"{directory}d", 2, ttl=2)
            waiting = asyncio.create_task(alone.enter())
            while not await client.count(m.prefix(f"{directory}d/waiters")):
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert await client.count(m.prefix(f"{directory}d")) == 0

    run(main())


def test_queues_give_each_item_once_and_in_order(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:
            queue = client.queue(f"{directory}q")
            for i in range(5):
                await queue.put(str(i))
            assert [(await queue.get()).text for _ in range(5)] == list("01234")
            assert await queue.get_nowait() is None
            takers = [asyncio.create_task(_taken(other, f"{directory}q", 8)) for _ in range(3)]
            for i in range(24):
                await queue.put(f"{i:02}")
            taken = await asyncio.wait_for(asyncio.gather(*takers), 20)
            assert sorted(itertools.chain(*taken)) == [f"{i:02}" for i in range(24)]
            line = client.priority_queue(f"{directory}p")
            for value, priority in (("c", 7), ("a", 2), ("b", 2), ("d", 65535)):
                await line.put(value, priority)
            assert [(await line.get()).text for _ in range(4)] == list("abcd")
            await asyncio.gather(*(line.put(str(i), 1) for i in range(6)))
            assert await line.size() == 6
            assert {(await line.get()).text for _ in range(6)} == set("012345")

    run(main())


async def _fails(queue: m.Queue) -> None:
    async with queue.take() as item:
        assert item.text == "first"
        _ = 1 / 0


async def _taken(client: m.Client, name: str, count: int) -> list[str]:
    return [(await client.queue(name).get()).text for _ in range(count)]


def test_an_item_whose_taker_fails_is_taken_again(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:
            queue, theirs = client.queue(f"{directory}q"), other.queue(f"{directory}q")
            await queue.put("first")
            await queue.put("second")
            with pytest.raises(ZeroDivisionError):
                await _fails(queue)
            async with queue.take(ttl=2) as item, theirs.take() as behind:
                assert (item.text, behind.text) == ("first", "second")
                assert await theirs.get_nowait() is None
                assert await client.when(item.held).then(m.put(f"{directory}x", "1"))
            assert await queue.size() == 0
            # a taker that is gone: its lease ends, and the next one has the item
            await queue.put("third")
            lost = await queue.take(ttl=2).__aenter__()
            held = lost.held
            client._keeper._tasks[lost.lease._kept].cancel()  # as if this process stood still
            async with asyncio.timeout(15), theirs.take() as again:
                assert again.text == "third"
                assert not await client.when(held).then(m.put(f"{directory}x", "late"))

    run(main())


def test_items_are_done_once_while_a_host_dies(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            names = [f"{i:02}" for i in range(30)]
            for name in names:
                await client.queue(f"{directory}q").put(name)
            taken = 0

            async def taker(own: m.Client) -> None:
                nonlocal taken
                queue = own.queue(f"{directory}q")
                while await queue.size():
                    try:
                        async with asyncio.timeout(5), queue.take(ttl=10) as item:
                            taken += 1
                            await item.finish(m.put(f"{directory}done/{item.text}", str(item.token)))
                    except (m.MusterError, TimeoutError):
                        continue

            clients = [m.Client(hosts.all, timeout=10) for _ in range(3)]
            work = asyncio.gather(*map(taker, clients))
            while taken < 8:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(hosts.kill, hosts.leader())
            await asyncio.wait_for(work, 60)
            done = [kv async for kv in client.range(m.prefix(f"{directory}done/"))]
            assert [kv.name.rpartition("/")[2] for kv in done] == names, "an item was lost"
            assert {kv.version for kv in done} == {1}, "an item was done twice"
            await asyncio.gather(*(one.close() for one in clients))

    run(main())


@pytest.mark.parametrize("isolation", ["serializable_snapshot", "serializable", "repeatable_reads"])
def test_a_function_in_memory_loses_no_update(
    isolation: m.Isolation, hosts: Hosts, directory: str, run: Run
) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            a, b = f"{directory}a", f"{directory}b"
            await client.put(a, "100")
            attempts: list[int] = []

            async def move(stm: m.Stm) -> int:
                left = int(await stm.text(a) or 0) - 1
                stm.put(a, str(left))
                stm.put(b, str(int(await stm.text(b) or 0) + 1))
                assert await stm.text(a) == str(left), "it sees its own writes"
                return left

            async def mover() -> None:
                for _ in range(5):
                    attempts.append((await client.stm(move, isolation=isolation)).attempts)

            await asyncio.gather(*(mover() for _ in range(4)))
            found = await client.when().then(m.get(a), m.get(b))
            assert [found.found(i).kv.text for i in (0, 1)] == ["80", "20"]  # type: ignore[union-attr]
            assert sum(attempts) > 20, "nothing has met"

    run(main())


def test_levels_of_isolation_differ(hosts: Hosts, directory: str, run: Run) -> None:
    """Each level is refused, or not, by what changes meanwhile."""
    refused = {
        "serializable_snapshot": (True, True), "serializable": (True, False),
        "repeatable_reads": (True, False), "read_committed": (False, False)}

    async def main() -> None:
        async with m.Client(hosts.all) as client:
            read, written, later = f"{directory}r", f"{directory}w", f"{directory}l"
            for isolation, expected in refused.items():
                for changed, again in zip((read, written), expected, strict=True):
                    await client.delete(m.prefix(directory))
                    ran: list[str] = []

                    async def step(stm: m.Stm, changed: str = changed, ran: list[str] = ran) -> None:
                        await stm.text(read)
                        if not ran:
                            await client.put(changed, "1")
                        ran.append(changed)
                        stm.put(written, "2")

                    done = await client.stm(step, isolation=isolation)  # type: ignore[arg-type]
                    assert done.attempts == len(ran) == 1 + again, (isolation, changed)
                    kv = await client.get(written)
                    assert kv is not None
                    assert kv.text == "2"
                saw: list[str | None] = []

                async def read_two(stm: m.Stm, saw: list[str | None] = saw) -> None:
                    await stm.get(read)
                    if not saw:
                        await client.put(later, "0")
                    saw.append(await stm.text(later))

                await client.delete(m.prefix(directory))
                await client.stm(read_two, isolation=isolation)  # type: ignore[arg-type]
                assert saw[0] == (None if isolation.startswith("serializable") else "0"), isolation
            with pytest.raises(ValueError, match="isolation"):
                await client.stm(step, isolation="none")  # type: ignore[arg-type]

    run(main())


def test_recipes_without_asyncio(hosts: Hosts, directory: str) -> None:
    with sync.Client(hosts.all) as client, client.lease(20) as lease:
        with client.rwlock(f"{directory}rw").write(lease=lease) as lock:
            assert client.when(lock.held).then(m.put(f"{directory}x", "1")).commit()
            with pytest.raises(TimeoutError):
                client.rwlock(f"{directory}rw").read(lease=lease).acquire(timeout=0.2)
        first, second, third = (client.semaphore(f"{directory}s", 2, lease=lease) for _ in range(3))
        with first, second:
            assert not third.try_acquire()
        with client.barrier(f"{directory}b") as barrier:
            assert barrier.token
            with pytest.raises(TimeoutError):
                client.barrier(f"{directory}b").wait(timeout=0.2)
        client.barrier(f"{directory}b").wait(timeout=5)
        began: list[int] = []

        def take_part() -> None:
            with client.double_barrier(f"{directory}d", 2, ttl=10) as both:
                began.append(both.token)

        other = threading.Thread(target=take_part)
        other.start()
        take_part()
        other.join(10)
        assert len(began) == 2
        assert len(set(began)) == 1
        queue, line = client.queue(f"{directory}q"), client.priority_queue(f"{directory}p")
        queue.put("1")
        with queue.take() as item:
            assert item.text == "1"
        assert queue.get_nowait() is None
        with pytest.raises(TimeoutError):
            queue.get(timeout=0.2)
        line.put("b", 2)
        line.put("a", 1)
        assert (line.size(), line.get().text) == (2, "a")

        def count(stm: sync.Stm) -> int:
            found = int(stm.text(f"{directory}n") or 0) + 1
            stm.put(f"{directory}n", str(found))
            return found

        assert [client.stm(count, prefetch=[f"{directory}n"]).value for _ in range(3)] == [1, 2, 3]
        space = client.namespace(directory)
        kv = space.get("n")
        assert kv is not None
        assert kv.text == "3"
