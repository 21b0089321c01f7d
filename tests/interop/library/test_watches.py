"""Watches over kills, cuts and compactions: each event once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

import muster_client as m
import pytest
from muster_client import sync

from tests.interop.hosts import Hosts
from tests.interop.library.cutting import cutting
from tests.soaking import SOAK

Run = Callable[[Coroutine[Any, Any, None]], None]
EVENTS, KILLS = (100_000, 10) if SOAK else (10_000, 2)
AT_ONCE = 20  # puts of one transaction


def told(event: m.Event) -> tuple[int, bytes, bytes]:
    """What names an event."""
    assert isinstance(event, m.Put | m.Delete)
    return event.revision, event.key, event.kv.value if isinstance(event, m.Put) else b""


Told = tuple[int, bytes, bytes]


async def history(client: m.Client, keys: m.KeyRange, revision: int, count: int) -> list[Told]:
    """What the cluster itself tells of so many events, from a revision on."""
    async with client.watch(keys, revision=revision) as watch:
        return [told(await anext(watch)) for _ in range(count)]


@pytest.mark.longer
def test_each_event_comes_once_over_kills(hosts: Hosts, directory: str, run: Run) -> None:
    keys = m.prefix(directory)

    async def write(client: m.Client, killing: asyncio.Task[None]) -> None:
        """Transactions of puts, each until it is known to be done, as long as hosts die; and a last key."""
        begin = 0
        while begin < EVENTS or not killing.done():
            puts = [m.put(f"{directory}{i % 500}", str(i)) for i in range(begin, begin + AT_ONCE)]
            begin += AT_ONCE
            while True:
                try:
                    await client.when().then(*puts)
                    break
                except m.MusterError:
                    await asyncio.sleep(0.05)
        while True:
            try:
                await client.put(f"{directory}end", "x")
                return
            except m.MusterError:
                await asyncio.sleep(0.05)

    async def kill(watch: m.Watch) -> None:
        """The host that serves the watch, while it is written."""
        for _ in range(KILLS):
            at = watch.revision
            stream = watch._feed._stream
            place = hosts.endpoints.index(stream.name) if stream else 0
            await asyncio.to_thread(hosts.end_during_writes, place)
            killed.append(place)
            while watch.revision < at + 20:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(hosts.mend)

    killed: list[int] = []

    async def main() -> None:
        async with m.Client(hosts.all, timeout=10) as client, client.watch(keys) as watch:
            began = watch.revision
            killing = asyncio.create_task(kill(watch))
            writing = asyncio.create_task(write(client, killing))
            seen: list[tuple[int, bytes, bytes]] = []
            async for event in watch:
                seen.append(told(event))
                if event.key == f"{directory}end".encode():
                    break
            await writing
            await killing
            assert (len(killed), len(seen) > EVENTS) == (KILLS, True)
            async with m.Client(hosts.all) as other:
                assert await history(other, keys, began, len(seen)) == seen

    run(main())


def test_each_event_comes_once_over_cuts(hosts: Hosts, directory: str, run: Run) -> None:
    """Connections end after some bytes, inside answers of events."""
    keys, cut = m.prefix(directory), random.Random(7)

    async def main() -> None:
        async with (
            m.Client(hosts.endpoints[1]) as writer,
            # longer and longer, so that an answer with all that waits comes through at last
            cutting(hosts.endpoints[0], lambda n: (None, cut.randrange(300, 3000) + 200 * n)) as proxy,
            m.Client(proxy.address) as client,
        ):
            count = 0
            async with client.watch(keys) as watch:
                began = watch.revision
                seen = []
                for begin in range(0, 240, 3):
                    await writer.when().then(
                        m.put(f"{directory}{begin}", "a" * cut.randrange(200)),
                        m.put(f"{directory}x", str(begin)),
                        m.delete(f"{directory}{begin - 3}"))
                    count += 2 + (begin > 0)
                    seen += [told(await anext(watch)) for _ in range(2 + (begin > 0))] if begin % 2 else []
                while len(seen) < count:
                    seen.append(told(await anext(watch)))
            assert proxy.cuts > 3
            assert await history(writer, keys, began, count) == seen

    run(main())


def test_a_watch_that_is_given_up_at_its_start_leaves_nothing(hosts: Hosts, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            for after_ms in range(30):
                watch = client.watch("a")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(after_ms / 5000), watch:
                        continue
                async with asyncio.timeout(5):
                    while watch._feed._reading is not None or watch._feed._stream is not None:
                        await asyncio.sleep(0.001)

    run(main())


def test_a_watch_begins_behind_what_is_done(hosts: Hosts, directory: str, run: Run) -> None:
    """Also at an endpoint that has not come to it yet."""

    async def main() -> None:
        async with m.Client(hosts.all) as client:
            for i in range(60):
                await client.put(f"{directory}a", f"before {i}")
                async with client.watch(m.prefix(directory)) as watch:
                    await client.put(f"{directory}a", f"behind {i}")
                    assert told(await anext(watch))[2] == f"behind {i}".encode()

    run(main())


def test_a_reader_that_gives_up_loses_nothing(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, client.watch(m.prefix(directory)) as watch:

            async def write() -> None:
                for i in range(100):
                    await client.put(f"{directory}a", str(i))

            writing = asyncio.create_task(write())
            seen: list[int] = []
            gave_up = 0
            while len(seen) < 100:
                try:
                    async with asyncio.timeout(0.001):
                        seen.append(int(told(await anext(watch))[2]))
                except TimeoutError:
                    gave_up += 1
            await writing
            assert seen == list(range(100))
            assert gave_up

    run(main())


def test_a_compaction_is_told(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.endpoints[0]) as client:  # others may come to the compaction later
            first = await client.put(f"{directory}a", "1")
            await client.put(f"{directory}b", "1")
            await client.delete(f"{directory}a")
            last = await client.put(f"{directory}c", "1")
            await client.compact(last.revision)
            with pytest.raises(m.Compacted) as met:
                async for _ in client.watch(m.prefix(directory), revision=first.revision):
                    pass
            assert met.value.revision == last.revision
            async with client.watch(m.prefix(directory), revision=first.revision, snapshots=True) as watch:
                snapshot = await anext(watch)
                assert isinstance(snapshot, m.Snapshot)
                assert [kv.key for kv in snapshot.kvs] == [f"{directory}b".encode(), f"{directory}c".encode()]
                assert snapshot.missed_from == first.revision
                done = await client.put(f"{directory}d", "1")
                assert (await anext(watch)) == m.Put(m.KeyValue(
                    f"{directory}d".encode(), b"1", done.revision, done.revision, 1))
            with pytest.raises(m.Compacted):
                await client.get(f"{directory}a", revision=first.revision)

    run(main())


def test_progress_follows_the_events_before_it(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with (
            m.Client(hosts.endpoints[0]) as client,
            client.watch(m.prefix(directory), progress=True) as watch,
        ):
            done = await client.put(f"{directory}a", "1")
            assert told(await anext(watch))[0] == done.revision
            await watch.request_progress()
            progress = await anext(watch)
            assert isinstance(progress, m.Progress)
            assert progress.revision >= done.revision

    run(main())


def test_a_slow_reader_holds_the_server_back(hosts: Hosts, directory: str, run: Run) -> None:
    """What is not read stays on the server: 64 MB of events take little memory here."""

    async def main() -> None:
        async with m.Client(hosts.all) as client, client.watch(m.prefix(directory)) as watch:
            value = b"x" * 1_000_000
            for _ in range(64):
                await client.put(f"{directory}a", value)
            await anext(watch)
            held = sum(len(event.kv.value) for event in watch._feed.events if isinstance(event, m.Put))
            assert held < 16_000_000
            revisions = [told(await anext(watch))[0] for _ in range(63)]
            assert revisions == sorted(set(revisions))

    run(main())


def test_a_watch_that_is_refused_says_so(hosts: Hosts, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            with pytest.raises(m.ServerError, match="watcher range is empty"):
                async with client.watch(m.KeyRange(b"b", b"a")):
                    pass

    run(main())


def test_a_mirror_keeps_step(hosts: Hosts, directory: str, run: Run) -> None:
    """Also over a connection that is cut, and a compaction meanwhile."""
    heard: list[tuple[bytes, bytes]] = []

    async def main() -> None:
        async with (
            m.Client(hosts.all) as writer,
            cutting(hosts.endpoints[0], lambda n: (None, None)) as proxy,
            m.Client(proxy.address) as client,
        ):
            await writer.put(f"{directory}a", "1")
            await writer.put(f"{directory}gone", "1")
            keys = m.prefix(directory)
            async with client.mirror(keys, lambda change: heard.append(told(change)[1:])) as mirror:
                assert [kv.text for kv in mirror.values()] == ["1", "1"]
                done = await writer.put(f"{directory}b", "2")
                async with asyncio.timeout(10):
                    await mirror.wait_for(done.revision)
                assert mirror[f"{directory}b"].text == "2"
                proxy.refuse(True)
                await writer.delete(f"{directory}gone")
                last = await writer.put(f"{directory}a", "3")
                await writer.compact(last.revision)
                assert f"{directory}gone" in mirror
                proxy.refuse(False)
                async with asyncio.timeout(20):
                    await mirror.wait_for(last.revision)
                assert [(kv.name, kv.text) for kv in mirror.values()] == [
                    (f"{directory}a", "3"), (f"{directory}b", "2")]
            assert [text for _, text in heard] == [b"2", b"", b"3"]

    run(main())


def test_without_asyncio(hosts: Hosts, directory: str) -> None:
    with sync.Client(hosts.all) as client:
        for i in range(25):
            client.put(f"{directory}{i:02}", str(i))
        pages = client.range(m.prefix(directory), page=10)
        assert [kv.text for kv in pages] == [str(i) for i in range(25)]
        assert (pages.count, client.count(m.prefix(directory))) == (25, 25)
        assert client.when(m.key(f"{directory}00").value == "0").then(m.delete(f"{directory}00")).commit()
        assert client.get(f"{directory}00") is None
        with client.watch(m.prefix(directory)) as watch, client.mirror(m.prefix(directory)) as mirror:
            done = client.put(f"{directory}x", "1")
            assert next(watch).key == f"{directory}x".encode()
            with pytest.raises(TimeoutError):
                watch.read(0.05)
            mirror.wait_for(done.revision, timeout=10)
            assert mirror[f"{directory}x"].mod_revision == done.revision
        with client.lock(f"{directory}lock", ttl=5) as lock, client.lease(5) as lease:
            other = client.lock(f"{directory}lock", lease=lease)
            assert not other.try_acquire()
            with pytest.raises(TimeoutError):
                other.acquire(timeout=0.2)
            assert client.when(lock.held).then(m.put(f"{directory}y", "1")).commit()
            assert client.count(m.prefix(f"{directory}lock/")) == 1
        assert lock.lost
        assert lease.lost
        with client.election(f"{directory}leader").campaign("me", ttl=5):
            leader = client.election(f"{directory}leader").leader()
            assert leader is not None
            assert leader.text == "me"
            assert next(client.election(f"{directory}leader").observe()).text == "me"
        with pytest.raises(m.Unreachable):
            sync.Client("127.0.0.1:1", timeout=0.5).get("a")


def test_a_transaction_larger_than_an_answer_comes_whole(hosts: Hosts, directory: str, run: Run) -> None:
    """With the keys as they were before it is told in fragments."""

    async def main() -> None:
        async with m.Client(hosts.all) as client, client.watch(m.prefix(directory), previous=True) as watch:
            for letter in "abc":
                puts = [m.put(f"{directory}{i:02}", letter * 100_000) for i in range(14)]
                done = await client.when().then(*puts)
                first = await anext(watch)
                events = [first, *watch.waiting()]
                assert [told(event)[:2] for event in events] == [
                    (done.revision, f"{directory}{i:02}".encode()) for i in range(14)]
                assert isinstance(first, m.Put)
                assert (first.previous is None) == (letter == "a")

    run(main())
