"""Leases, locks and elections: kept alive, lost in time, and fenced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import muster_client as m
import pytest

from cluster.pb import lock_pb2
from tests.interop.hosts import Hosts
from tests.soaking import SOAK

Run = Callable[[Coroutine[Any, Any, None]], None]
ETCDCTL = Path(sys.executable).parent / "etcdctl"


@pytest.mark.longer
def test_a_busy_loop_keeps_its_lease(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            # a soak fills the machine: the busy thread waits for a CPU while it holds the interpreter's lock
            lease = await client.lease(6 if SOAK else 3)
            await client.put(f"{directory}a", "1", lease=lease)
            end = time.monotonic() + (10 if SOAK else 4)
            while time.monotonic() < end:
                pass
            assert not lease.lost
            assert await client.get(f"{directory}a")
            assert (await client.lease_info(lease)).keys == (f"{directory}a".encode(),)
            await lease.revoke()
            assert lease.lost
            assert await client.get(f"{directory}a") is None
            with pytest.raises(m.LeaseNotFound):
                await client.lease_info(lease)
            with pytest.raises(m.LeaseLost):
                lease.check()

    run(main())


def test_a_lease_outlives_the_host_that_renews_it(hosts: Hosts, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client, await client.lease(4) as lease:
            hosts.kill(hosts.leader())
            told = asyncio.create_task(lease.wait_lost())
            done, _ = await asyncio.wait((told,), timeout=5)
            assert not done
            assert lease.left_s() > 0
            told.cancel()

    run(main())


def test_a_lost_lease_is_told(hosts: Hosts, run: Run) -> None:
    """Revoked by another; and where no renewal is answered, no later than the cluster may end it."""

    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:
            lease = await client.lease(3)
            whys: list[str] = []
            lease.on_lost(whys.append)
            line = [str(ETCDCTL), "--endpoints", hosts.all, "lease", "revoke", f"{lease.id:x}"]
            await asyncio.to_thread(subprocess.run, line, check=True, capture_output=True, timeout=30)
            assert "revoked" in await asyncio.wait_for(lease.wait_lost(), 5)
            assert len(whys) == 1
            alone = await other.lease(2)
            began = time.monotonic()
            await other._caller.close()  # nothing is renewed any more
            assert "in time" in await asyncio.wait_for(alone.wait_lost(), 5)
            assert time.monotonic() - began < 3.5
            with pytest.raises(m.LeaseLost):
                alone.check()

    run(main())


def test_one_holds_a_lock_in_the_order_of_arrival(hosts: Hosts, directory: str, run: Run) -> None:
    order: list[int] = []
    inside: set[int] = set()

    async def hold(i: int) -> int:
        async with m.Client(hosts.all) as client, client.lock(f"{directory}lock", ttl=10) as lock:
            inside.add(i)
            assert inside == {i}
            order.append(i)
            assert await client.when(lock.held).then(m.put(f"{directory}by", str(i)))
            await asyncio.sleep(0.01)
            inside.discard(i)
            return lock.token

    async def main() -> None:
        tokens = dict(zip(range(8), await asyncio.gather(*map(hold, range(8))), strict=True))
        assert order == sorted(tokens, key=lambda i: tokens[i]), "later holders have greater tokens"
        async with m.Client(hosts.all) as client:
            assert await client.count(m.prefix(f"{directory}lock/")) == 0

    run(main())


def test_who_gives_up_leaves_the_line(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            first, second, third = (client.lock(f"{directory}lock", ttl=10) for _ in range(3))
            assert await first.try_acquire()
            assert not await second.try_acquire()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await second.acquire()
            assert await client.count(m.prefix(f"{directory}lock/")) == 1
            waiting = asyncio.create_task(third.acquire())
            await first.release()
            await asyncio.wait_for(waiting, 5)
            assert not third.lost
            assert first.lost
            with pytest.raises(m.NotHeld):
                _ = first.held
            await third.lease.revoke()
            assert third.lost
            await third.release()

    run(main())


def test_who_gives_up_at_any_moment_leaves_the_line(hosts: Hosts, directory: str, run: Run) -> None:
    """Under a lease that stays: a key that were left would keep all others out."""

    async def main() -> None:
        async with m.Client(hosts.all) as client, await client.lease(30) as lease:
            gave_up = 0
            for after in range(40):
                lock = client.lock(f"{directory}lock", lease=lease)
                try:
                    async with asyncio.timeout(after / 5000):
                        await lock.acquire()
                except TimeoutError:
                    gave_up += 1
                else:
                    await lock.release()
                assert await client.count(m.prefix(f"{directory}lock/")) == 0
            assert gave_up
            async with asyncio.timeout(5), client.lock(f"{directory}lock", ttl=10):
                pass

    run(main())


HOLDER = """
import asyncio, sys, muster_client as m
async def main():
    async with m.Client(sys.argv[1]) as client, client.lock(sys.argv[2], ttl=2) as lock:
        held = lock.held
        print("held", flush=True)
        sys.stdin.readline()
        print("lost", lock.lost, flush=True)
        print("wrote", bool(await client.when(held).then(m.put(sys.argv[3], "late"))), flush=True)
asyncio.run(main())
"""


def test_a_frozen_holder_s_write_is_refused(hosts: Hosts, directory: str, run: Run) -> None:
    """Frozen past its lease: another holds the lock, and the first knows when it wakes."""

    async def main() -> None:
        line = [sys.executable, "-c", HOLDER, hosts.all, f"{directory}lock", f"{directory}data"]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as frozen:
            assert frozen.stdin is not None
            assert frozen.stdout is not None
            try:
                assert await asyncio.to_thread(frozen.stdout.readline) == "held\n"
                os.kill(frozen.pid, signal.SIGSTOP)
                async with (
                    m.Client(hosts.all) as client,
                    asyncio.timeout(20),
                    client.lock(f"{directory}lock", ttl=10) as lock,
                ):
                    assert await client.when(lock.held).then(m.put(f"{directory}data", "second"))
                    os.kill(frozen.pid, signal.SIGCONT)
                    frozen.stdin.write("\n")
                    frozen.stdin.flush()
                    assert await asyncio.to_thread(frozen.stdout.readline) == "lost True\n"
                    assert await asyncio.to_thread(frozen.stdout.readline) == "wrote False\n"
                    kv = await client.get(f"{directory}data")
                    assert kv is not None
                    assert kv.text == "second"
            finally:
                frozen.kill()

    run(main())


def test_etcdctl_and_the_lock_service_share_its_locks(hosts: Hosts, directory: str, run: Run) -> None:
    name = f"{directory}lock"

    async def main() -> None:
        async with m.Client(hosts.all) as client:
            line = [str(ETCDCTL), "--endpoints", hosts.endpoints[0], "lock", "--ttl=5", name]
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as ctl:
                assert ctl.stdout is not None
                held = await asyncio.to_thread(ctl.stdout.readline)
                assert held.startswith(f"{name}/")
                lock = client.lock(name, ttl=5)
                waiting = asyncio.create_task(lock.acquire())
                assert not (await asyncio.wait((waiting,), timeout=0.3))[0]
                ctl.send_signal(signal.SIGINT)
                await asyncio.wait_for(waiting, 10)
            async with grpc.aio.insecure_channel(hosts.endpoints[0]) as channel:
                call = channel.unary_unary(
                    "/v3lockpb.Lock/Lock", request_serializer=lock_pb2.LockRequest.SerializeToString,
                    response_deserializer=lock_pb2.LockResponse.FromString)
                other = await client.lease(5)
                asked = asyncio.ensure_future(call(lock_pb2.LockRequest(name=name.encode(), lease=other.id)))
                assert not (await asyncio.wait((asked,), timeout=0.3))[0]
                await lock.release()
                answer = await asyncio.wait_for(asked, 10)
                assert answer.key == f"{name}/{other.id:x}".encode()
                await other.revoke()

    run(main())


def test_an_election(hosts: Hosts, directory: str, run: Run) -> None:
    name = f"{directory}leader"

    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:
            election = client.election(name)
            assert await election.leader() is None
            seen: list[str] = []

            async def observe() -> None:
                async for kv in other.election(name).observe():
                    seen.append(kv.text)

            async def until_seen(*texts: str) -> None:
                async with asyncio.timeout(10):
                    while seen != list(texts):
                        await asyncio.sleep(0.01)

            observing = asyncio.create_task(observe())
            async with election.campaign("a", ttl=5) as first:
                await until_seen("a")
                second = other.election(name).campaign("b", ttl=5)
                waiting = asyncio.create_task(second.campaign())
                await first.proclaim("a2")
                await until_seen("a", "a2")
                leader = await election.leader()
                assert leader is not None
                assert (leader.text, leader.create_revision) == ("a2", first.token)
                line = [str(ETCDCTL), "--endpoints", hosts.endpoints[0], "elect", "--listen", name]
                with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as ctl:
                    assert ctl.stdout is not None
                    assert await asyncio.to_thread(ctl.stdout.readline) == f"{leader.name}\n"
                    assert await asyncio.to_thread(ctl.stdout.readline) == "a2\n"
                    ctl.kill()
                old = first.held
            await asyncio.wait_for(waiting, 10)
            await until_seen("a", "a2", "b")
            assert second.token > leader.create_revision
            assert not await client.when(old).then(m.put(f"{directory}x", "late"))
            await second.lease.revoke()
            with pytest.raises(m.NotHeld):
                await second.proclaim("b2")
            observing.cancel()

    run(main())
