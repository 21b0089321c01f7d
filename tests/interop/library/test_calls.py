"""Calls over broken connections: what is done is told, and nothing is done twice."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import muster_client as m
import pytest

from tests.interop.hosts import Hosts
from tests.interop.library.cutting import cutting
from tests.ports import free_ports
from tests.soaking import SOAK

ETCDCTL = Path(sys.executable).parent / "etcdctl"
Run = Callable[[Coroutine[Any, Any, None]], None]
STEP = 1 if SOAK else 9  # bytes between two cuts
MOST = 640  # of a connection with one put


async def tried_put(client: m.Client, key: str, value: str) -> tuple[m.Done | None, bool]:
    """What it gave, or whether it may have been done."""
    try:
        return await client.put(key, value), False
    except m.MusterError as error:
        return None, error.maybe_done


@pytest.mark.longer
def test_a_put_is_done_once_wherever_its_connection_is_cut(hosts: Hosts, directory: str, run: Run) -> None:
    told: Counter[str] = Counter()

    async def put(reader: m.Client, name: str, there: int | None, back: int | None) -> None:
        whole = (None, None)
        async with (
            cutting(hosts.endpoints[0], lambda n: whole if n else (there, back)) as proxy,
            m.Client(proxy.address, timeout=20) as client,
        ):
            done, maybe_done = await tried_put(client, name, "x")
            kv = await reader.get(name)
            if done is not None:
                told["done, second connection" if proxy.connections > 1 else "done"] += 1
                assert kv is not None
                assert (kv.version, kv.mod_revision) == (1, done.revision)
            else:
                assert maybe_done
                told["unknown, done" if kv else "unknown, not done"] += 1
                assert kv is None or kv.version == 1

    async def main() -> None:
        async with m.Client(hosts.endpoints[0]) as reader:
            cuts = [(n, None) for n in range(1, MOST, STEP)] + [(None, n) for n in range(1, MOST, STEP)]
            for begin in range(0, len(cuts), 16):
                await asyncio.gather(*(
                    put(reader, f"{directory}{there}-{back}", there, back)
                    for there, back in cuts[begin : begin + 16]))

    run(main())
    assert told["done, second connection"], "cut before it was sent: tried again"
    assert told["unknown, done"], "its answer was cut: another try would have done it twice"
    assert told["done"]


def test_a_read_is_repeated_elsewhere(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        # each connection to the first endpoint ends with the first answer of a request
        async with (
            cutting(hosts.endpoints[0], lambda n: (None, 60)) as proxy,
            m.Client(hosts.endpoints[1]) as writer,
        ):
            await writer.put(f"{directory}a", "1")
            for _ in range(10):  # a client stays where it was connected first, which may be elsewhere
                async with m.Client([proxy.address, hosts.endpoints[1]], timeout=20) as client:
                    for _ in range(20):
                        kv = await client.get(f"{directory}a")
                        assert kv is not None
                        assert kv.value == b"1"
                if proxy.cuts:
                    break
            assert proxy.cuts

    run(main())


def test_calls_go_on_without_a_dead_host(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all, timeout=20) as client:
            for i in range(6):
                await client.put(f"{directory}{i}", "1")
            hosts.kill((hosts.leader() + 1) % 3)
            began = time.monotonic()
            lost = 0
            for i in range(30):
                done, maybe_done = await tried_put(client, f"{directory}{i}", "2")
                assert done or maybe_done
                lost += done is None
            assert lost <= 2, "calls under way when it died"
            assert time.monotonic() - began < 10

    run(main())


def test_an_endpoint_that_stands_still_is_left(hosts: Hosts, directory: str, run: Run) -> None:
    """It keeps its connections, and says nothing: reads, a watch and a lease go on elsewhere."""

    async def main() -> None:
        async with (
            cutting(hosts.endpoints[0], lambda n: (None, None)) as proxy,
            m.Client([proxy.address, hosts.endpoints[1]]) as client,
            await client.lease(6) as lease,
            m.Client(hosts.endpoints[1]) as writer,
        ):
            while True:
                watch = client.watch(m.prefix(directory))
                async with watch:
                    stream = watch._feed._stream
                    if stream is None or stream.name != proxy.address:
                        continue
                    proxy.stall()
                    began = time.monotonic()
                    for _ in range(5):
                        await client.get(f"{directory}a")
                    assert time.monotonic() - began < 8
                    await writer.put(f"{directory}a", "1")
                    async with asyncio.timeout(20):
                        assert await anext(watch)
                    assert not lease.lost
                    return

    run(main())


def test_why_no_endpoint_can_be_reached(run: Run) -> None:
    async def main() -> None:
        port, silent = free_ports(2)
        endpoints = [f"127.0.0.1:{port}", f"127.0.0.1:{silent}", "nothing.invalid:1"]
        with socket.create_server(("127.0.0.1", silent)):  # the kernel connects, and nobody says a word
            async with m.Client(endpoints, timeout=2) as client:
                began = time.monotonic()
                with pytest.raises(m.Unreachable) as told:
                    await client.put("a", "b")
                assert time.monotonic() - began < 3
                assert not told.value.maybe_done
                assert "refused" in told.value.reasons[f"127.0.0.1:{port}"]
                why = told.value.reasons[f"127.0.0.1:{silent}"]
                assert "no answer" in why or "before receiving SETTINGS" in why
                assert "nothing.invalid" in str(told.value)

    run(main())


def test_a_deadline_holds(hosts: Hosts, run: Run) -> None:
    async def main() -> None:
        # the server's settings come through, its answers do not
        async with (
            cutting(hosts.endpoints[0], lambda n: (None, 60)) as proxy,
            m.Client(proxy.address, timeout=1) as client,
        ):
            began = time.monotonic()
            with pytest.raises(m.MusterError):
                await client.get("a")
            assert 0.4 < time.monotonic() - began < 2  # no pause begins that would pass it

    run(main())


def test_it_logs_in_again(hosts: Hosts, directory: str, run: Run) -> None:
    """A token that the cluster no longer takes is replaced: for reads, writes and watches."""

    async def main() -> None:
        async with m.Client(hosts.all, user="root", password="secret") as client:
            assert await client.get(f"{directory}a") is None, "the cluster has no users: no token"
            async with client.watch(m.prefix(directory)) as watch:
                await _auth(hosts, True)
                try:
                    done = await client.put(f"{directory}a", "1")
                    assert await asyncio.wait_for(anext(watch), 10)
                    for path in ("reader", "other"):
                        _ctl(hosts, "role", "add", path, user=True)  # the store of users has a new revision
                        kv = await client.get(f"{directory}a")
                        assert kv is not None
                    client._caller._token = "gone.1"  # as one that ended
                    async with client.watch(m.prefix(directory), revision=done.revision) as again:
                        assert await anext(again)
                    client._caller._token = "gone.2"
                    await client.put(f"{directory}a", "2")
                    with pytest.raises(m.PermissionDenied):
                        async with m.Client(hosts.all) as nobody:
                            await nobody.get("a")
                    with pytest.raises(m.AuthenticationFailed):
                        async with m.Client(hosts.all, user="root", password="wrong") as wrong:
                            await wrong.get("a")
                finally:
                    await _auth(hosts, False)

    run(main())


def _ctl(hosts: Hosts, *words: str, user: bool = False) -> None:
    line = [str(ETCDCTL), "--endpoints", hosts.endpoints[0], *words]
    line += ["--user=root:secret"] if user else []
    subprocess.run(line, check=True, capture_output=True, timeout=30)


async def _auth(hosts: Hosts, on: bool) -> None:
    if not on:
        await asyncio.to_thread(_ctl, hosts, "auth", "disable", user=True)
        await asyncio.to_thread(_ctl, hosts, "user", "delete", "root")
        return
    for words in (("user", "add", "root:secret"), ("user", "grant-role", "root", "root"), ("auth", "enable")):
        await asyncio.to_thread(_ctl, hosts, *words)


_FORKS = """
import os, sys
from dataclasses import dataclass
import muster_client as m
from muster_client import sync

def held(client):
    return client.lock(sys.argv[2] + "/lock", lease=lease)

@dataclass
class Conf:
    unused: str = ""

with (sync.Client(sys.argv[1], timeout=30) as client, client.lease(60) as lease, held(client),
        client.lock(sys.argv[2] + "/own")):
    ours = m.prefix(sys.argv[2] + "/")
    client.queue(sys.argv[2] + "/queue").put("item")
    client.put(sys.argv[2], "of the parent", lease=lease)
    if (child := os.fork()) == 0:
        print(client.get(sys.argv[2]).value.decode(), flush=True)
        try:
            lease.revoke()
        except RuntimeError as error:
            print(str(error).replace(f"{lease.id:x}", "ID"), flush=True)
        with client.lock(sys.argv[2] + "/childs", lease=lease):
            pass
        sys.exit(0)  # and so leaves the blocks
    print(os.waitpid(child, 0)[1], client.count(ours))
    with (client.barrier(sys.argv[2] + "/barrier"), client.double_barrier(sys.argv[2] + "/double", 1),
          client.queue(sys.argv[2] + "/queue").take(), client.register(sys.argv[2] + "/service", "a:1"),
          client.election(sys.argv[2] + "/election").campaign("x"), client.watch(ours),
          client.mirror(ours) as mirror, client.discover(sys.argv[2] + "/service") as found,
          client.config(sys.argv[2], Conf) as config):
        before = client.count(ours)
        if (child := os.fork()) == 0:
            for ask in (lambda: len(mirror), lambda: found.instances(), lambda: config.value):
                try:
                    ask()
                except m.MusterError as error:
                    print(error, flush=True)
            sys.exit(0)
        print(os.waitpid(child, 0)[1], client.count(ours) - before, len(mirror) - before)
    print(client.count(ours))
    print(client.get(sys.argv[2]).value.decode(), lease.lost)
"""


def test_a_forked_child_has_connections_of_its_own(hosts: Hosts, directory: str) -> None:
    """As with multiprocessing, or a server that forks workers."""
    told = subprocess.run(
        [sys.executable, "-c", _FORKS, hosts.endpoints[0], f"{directory}/forks"], stdout=subprocess.PIPE,
        text=True, timeout=100, check=True)
    assert told.stdout.splitlines() == [
        "of the parent", "lease ID is of the process from which this one was forked off", "0 3",
        *["the process from which this one was forked off follows it; here nothing does"] * 3, "0 0 0", "2",
        "of the parent False"]
