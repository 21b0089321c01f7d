"""A network that drops everything without a word: once it passes again, so does the store, at once.

TCP knows nothing of it, and waits about as long again as the silence took before it tries once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import Client, Endpoint, RpcError
from cluster.pb import rpc_pb2 as pb
from tests.faults.hosts import ELECTION_TIMEOUT_S, aside, until
from tests.faults.netns_hosts import NetHosts, three_net_hosts
from tools.muster import peer_keys

SILENCE_S = 16.0
LONG_SILENCE_S = 56.0
RESUMED_WITHIN_S = 5 * ELECTION_TIMEOUT_S  # a dial under way is given up, the next one succeeds, somebody is elected
SHARDS = 2
_KEYS = (b"/s0/k", b"/s1/k", b"/s2/k", b"/s3/k")  # on both shards


@pytest.fixture(scope="module", params=["clear", "keys"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetHosts]:
    folder: Path = tmp_path_factory.mktemp("silence")
    flags = [f"--shards={SHARDS}", "--fronts=0"]
    if request.param == "keys":
        peer_keys.generate(str(folder / "keys.json"))
        flags.append(f"--peer-key-file={folder / 'keys.json'}")
    with three_net_hosts(folder / "c", *flags) as found:
        yield found


class Asking:
    """Puts and linearizable reads of keys on every shard through one host, one more every tenth of a second,
    whatever became of those before."""

    def __init__(self, endpoint: tuple[str, int]) -> None:
        self._endpoint = Endpoint(*endpoint)
        self._tasks: set[asyncio.Task[None]] = set()
        self.answered: dict[str, list[tuple[float, float]]] = {"put": [], "get": []}  # (asked, answered)
        self._main = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        client = await Client.open([self._endpoint], 1, timeout_s=10.0)
        try:
            while True:
                for kind in ("put", "get"):
                    task = asyncio.get_running_loop().create_task(self._ask(client, kind))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(0.1)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await client.close()

    async def _ask(self, client: Client, kind: str) -> None:
        asked = time.monotonic()
        with contextlib.suppress(RpcError, TimeoutError):
            for key in _KEYS:
                if kind == "put":
                    await client.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=key, value=b"v"), pb.PutResponse, timeout_s=20)
                else:
                    await client.unary("/etcdserverpb.KV/Range", pb.RangeRequest(key=key), pb.RangeResponse, timeout_s=20)
            self.answered[kind].append((asked, time.monotonic()))

    def first_since(self, moment: float) -> dict[str, float]:
        """Of each kind, how long after a moment all of it was answered that was asked after it; what was not is missing."""
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
async def everybody_asking(hosts: NetHosts):  # type: ignore[no-untyped-def]
    asking = [Asking(e) for e in hosts.endpoints]
    try:
        await resumed(asking, time.monotonic(), 60.0)
        yield asking
    finally:
        hosts.net.heal()
        for a in asking:
            await a.close()


def told(found: list[dict[str, float]]) -> str:
    return ", ".join(f"host {i}: put {f['put']:.2f} s, get {f['get']:.2f} s" for i, f in enumerate(found))


def longest(found: list[dict[str, float]]) -> float:
    return max(max(f.values()) for f in found)


@pytest.mark.parametrize("silence_s", [SILENCE_S, pytest.param(LONG_SILENCE_S, marks=pytest.mark.longer)])
def test_all_hosts_are_cut_off_from_each_other(hosts: NetHosts, silence_s: float) -> None:
    async def scenario() -> float:
        async with everybody_asking(hosts) as asking:
            hosts.net.cut(0, 1, 2)
            await asyncio.sleep(silence_s)  # the fault itself
            healed = time.monotonic()
            hosts.net.heal()
            found = await resumed(asking, healed)
        print(f"silent for {silence_s:.0f} s; {told(found)}")
        return longest(found)

    assert asyncio.run(scenario()) <= RESUMED_WITHIN_S


def test_the_leading_host_is_cut_off(hosts: NetHosts) -> None:
    async def scenario() -> tuple[float, float]:
        async with everybody_asking(hosts) as asking:
            leader = await aside(hosts.leader)
            cut = time.monotonic()
            hosts.net.cut(leader)
            others = await resumed([a for i, a in enumerate(asking) if i != leader], cut)
            await asyncio.sleep(max(0.0, cut + SILENCE_S - time.monotonic()))
            healed = time.monotonic()
            hosts.net.heal()
            found = await resumed(asking, healed)
        print(f"host {leader} cut off for {SILENCE_S:.0f} s: the others go on after {longest(others):.2f} s; healed: {told(found)}")
        return longest(others), longest(found)

    meanwhile_s, healed_s = asyncio.run(scenario())
    assert meanwhile_s <= RESUMED_WITHIN_S
    assert healed_s <= RESUMED_WITHIN_S


@pytest.mark.parametrize("heard", [False, True], ids=["is not heard", "hears nothing"])
def test_only_one_direction_of_the_leading_hosts_network_is_cut(hosts: NetHosts, heard: bool) -> None:
    async def scenario() -> tuple[float, float]:
        async with everybody_asking(hosts) as asking:
            leader = await aside(hosts.leader)
            cut = time.monotonic()
            hosts.net.cut_one_way(leader, heard=heard)
            others = await resumed([a for i, a in enumerate(asking) if i != leader], cut)
            await asyncio.sleep(max(0.0, cut + SILENCE_S / 2 - time.monotonic()))
            healed = time.monotonic()
            hosts.net.heal()
            found = await resumed(asking, healed)
        print(f"host {leader} cut off one way: the others go on after {longest(others):.2f} s; healed: {told(found)}")
        return longest(others), longest(found)

    meanwhile_s, healed_s = asyncio.run(scenario())
    assert meanwhile_s <= RESUMED_WITHIN_S
    assert healed_s <= RESUMED_WITHIN_S


def test_connections_of_a_host_that_vanished_are_forgotten(hosts: NetHosts) -> None:
    """On the listening side too: it hears neither an end nor anything else, and has nothing to say there itself."""
    gone, left = 2, 0
    assert connections(hosts, left, gone) > 0
    hosts.net.cut(gone)
    try:
        hosts.kill(gone)
        began = time.monotonic()
        until(lambda: connections(hosts, left, gone) == 0, 30.0)
        took_s = time.monotonic() - began
    finally:
        hosts.net.heal()
        hosts.start(gone)
    print(f"all connections of the host that vanished are gone after {took_s:.2f} s")
    assert took_s <= RESUMED_WITHIN_S


def connections(hosts: NetHosts, of: int, to: int) -> int:
    """How many TCP connections to another host are established, as a host's kernel sees it."""
    lines = hosts.net.hosts[of].run(lambda: Path("/proc/thread-self/net/tcp").read_text()).splitlines()[1:]
    there = socket.inet_aton(hosts.net.addresses[to])[::-1].hex().upper()
    return sum(fields[2].startswith(there) and fields[3] == "01" for fields in (line.split() for line in lines))
