"""A network that drops everything without a word: once it passes again, so does the store, at once.

TCP knows nothing of it, and waits about as long again as the silence took before it tries once more.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.asking import everybody_asking, longest, resumed, told
from tests.faults.hosts import ELECTION_TIMEOUT_S, aside, until
from tests.faults.netns_hosts import NetHosts, clear_or_keyed
from tests.tries import best_of_three, within

SILENCE_S = 16.0
LONG_SILENCE_S = 56.0
# a dial under way is given up, the next one succeeds, somebody is elected
RESUMED_WITHIN_S = 5 * ELECTION_TIMEOUT_S
SHARDS = 2


@pytest.fixture(scope="module", params=["clear", "keys"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetHosts]:
    folder: Path = tmp_path_factory.mktemp("silence")
    with clear_or_keyed(folder, request.param, f"--shards={SHARDS}", "--fronts=0") as found:
        yield found


@pytest.fixture(autouse=True)
def _healed(hosts: NetHosts) -> Iterator[None]:
    """No test leaves a cut behind."""
    yield
    hosts.net.heal()


@pytest.mark.parametrize("silence_s", [SILENCE_S, pytest.param(LONG_SILENCE_S, marks=pytest.mark.soak)])
@best_of_three
def test_all_hosts_are_cut_off_from_each_other(hosts: NetHosts, silence_s: float) -> None:
    async def scenario() -> float:
        async with everybody_asking(hosts.endpoints) as asking:
            hosts.net.cut(0, 1, 2)
            await asyncio.sleep(silence_s)  # the fault itself
            healed = time.monotonic()
            hosts.net.heal()
            found = await resumed(asking, healed)
        print(f"silent for {silence_s:.0f} s; {told(found)}")
        return longest(found)

    within(asyncio.run(scenario()), RESUMED_WITHIN_S)


def without_its_leader(
    hosts: NetHosts, cut: Callable[[int], None], silence_s: float, how: str
) -> tuple[float, float]:
    """The leading host's network is ``cut``, then healed: when the others go on, and when all do, in
    seconds."""
    async def scenario() -> tuple[float, float]:
        async with everybody_asking(hosts.endpoints) as asking:
            leader = await aside(hosts.leader)
            began = time.monotonic()
            cut(leader)
            others = await resumed([a for i, a in enumerate(asking) if i != leader], began)
            await asyncio.sleep(max(0.0, began + silence_s - time.monotonic()))
            healed = time.monotonic()
            hosts.net.heal()
            found = await resumed(asking, healed)
        print(
            f"host {leader} cut off {how}: the others go on after "
            f"{longest(others):.2f} s; healed: {told(found)}"
        )
        return longest(others), longest(found)

    return asyncio.run(scenario())


@best_of_three
def test_the_leading_host_is_cut_off(hosts: NetHosts) -> None:
    meanwhile_s, healed_s = without_its_leader(hosts, hosts.net.cut, SILENCE_S, f"for {SILENCE_S:.0f} s")
    within(meanwhile_s, RESUMED_WITHIN_S, "the others")
    within(healed_s, RESUMED_WITHIN_S, "all of them, once healed,")


@pytest.mark.parametrize("heard", [False, True], ids=["is not heard", "hears nothing"])
@best_of_three
def test_only_one_direction_of_the_leading_hosts_network_is_cut(hosts: NetHosts, heard: bool) -> None:
    meanwhile_s, healed_s = without_its_leader(
        hosts, partial(hosts.net.cut_one_way, heard=heard), SILENCE_S / 2, "one way")
    within(meanwhile_s, RESUMED_WITHIN_S, "the others")
    within(healed_s, RESUMED_WITHIN_S, "all of them, once healed,")


@best_of_three
def test_connections_of_a_host_that_vanished_are_forgotten(hosts: NetHosts) -> None:
    """On the listening side too: it hears neither an end nor anything else, and has nothing to say there
    itself."""
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
    within(took_s, RESUMED_WITHIN_S)


def connections(hosts: NetHosts, of: int, to: int) -> int:
    """How many TCP connections to another host are established, as a host's kernel sees it."""
    lines = hosts.net.hosts[of].run(lambda: Path("/proc/thread-self/net/tcp").read_text()).splitlines()[1:]
    there = socket.inet_aton(hosts.net.addresses[to])[::-1].hex().upper()
    return sum(
        fields[2].startswith(there) and fields[3] == "01" for fields in (line.split() for line in lines)
    )
