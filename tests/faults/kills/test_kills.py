"""Processes killed under load: nothing acknowledged is lost, nothing happens twice, watchers miss nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.hosts import ELECTION_TIMEOUT_S, SHARDS, Hosts, aside, stopped, three_hosts, until
from tests.faults.load import Load
from tests.linearizability import Outcome
from tests.soaking import SOAK, amount
from tests.tries import best_of_three, within

_TRY = itertools.count()  # each has keys of its own


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("kills") / "c") as hosts:
        yield hosts


@pytest.fixture
def hosts(shared: Hosts) -> Hosts:
    """The shared hosts, all of them up."""
    shared.start_missing()
    return shared


@best_of_three
def test_writes_resume_within_three_election_timeouts_of_the_leaders_death(hosts: Hosts) -> None:
    async def scenario() -> float:
        async with Load(hosts, f"leader{next(_TRY)}") as load:
            await load.acknowledged(200)
            leader = await aside(hosts.leader)
            killed_ns = time.monotonic_ns()
            await aside(hosts.kill, leader)
            resumed_s = await load.resumed_after_s(killed_ns, time.monotonic_ns(), not_host=leader)
            await load.acknowledged(200)
            await aside(hosts.start, leader)
            await load.acknowledged(200)
            assert load.watchers[leader].interruptions > 0
            assert sum(load.watchers[i].interruptions for i in range(3) if i != leader) == 0
        print(f"writes resumed after {resumed_s:.2f} s; {load.summary()}")
        return resumed_s

    within(asyncio.run(scenario()), 3 * ELECTION_TIMEOUT_S)


@best_of_three
def test_a_followers_death_goes_unnoticed_elsewhere(hosts: Hosts) -> None:
    async def scenario() -> float:
        async with Load(hosts, f"follower{next(_TRY)}") as load:
            await load.acknowledged(200)
            follower = (await aside(hosts.leader) + 1) % 3
            killed_ns = time.monotonic_ns()
            await aside(hosts.kill, follower)
            resumed_s = await load.resumed_after_s(killed_ns, time.monotonic_ns(), not_host=follower)
            await load.acknowledged(200)
            await aside(hosts.start, follower)
            await load.acknowledged(200)
        at_others = [o for o in load.operations if o.host != follower and o.outcome is not Outcome.OK]
        if SHARDS == 1:  # with more, the host may have led another one
            assert at_others == []
        return resumed_s

    within(asyncio.run(scenario()), 3 * ELECTION_TIMEOUT_S)


def test_all_hosts_killed_at_once_have_everything_that_was_acknowledged(hosts: Hosts) -> None:
    async def scenario() -> None:
        async with Load(hosts, "all") as load:
            await load.acknowledged(300)
            pids = [p for h in range(3) for p in await aside(_pids, hosts, h)]
            for pid in pids:  # at the same moment, as a power cut does
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await aside(until, lambda: not any(map(hosts.up, range(3))))
            await aside(hosts.start, 0, 1, 2)
            await load.acknowledged(200)

    asyncio.run(scenario())


def _pids(hosts: Hosts, host: int) -> list[int]:
    """The supervisor first, so that it starts nothing again."""
    status = hosts.status(host)
    assert status is not None
    return [status["pid"], *(c["pid"] for c in status["nodes"] + status["fronts"] if c["pid"])]


@best_of_three
def test_a_leader_that_was_frozen_answers_no_stale_reads(hosts: Hosts) -> None:
    async def scenario() -> float:
        async with Load(hosts, f"zombie{next(_TRY)}") as load:
            await load.acknowledged(200)
            leader = await aside(hosts.leader)
            with stopped(await aside(hosts.node_pid, leader)):
                frozen_ns = time.monotonic_ns()
                await load.run_for(3.0)
                resumed_s = await load.resumed_after_s(frozen_ns, frozen_ns, not_host=leader)
            await load.acknowledged(300)
        return resumed_s

    within(asyncio.run(scenario()), 3 * ELECTION_TIMEOUT_S)


def test_a_leader_that_stands_still_for_a_second_leaves_no_fate_open(hosts: Hosts) -> None:
    """Where nobody else is elected. Fronts of other hosts keep what they sent, and send nothing new."""
    async def scenario() -> bool:
        """Whether it led all the time."""
        async with Load(hosts, f"still{next(_TRY)}") as load:
            await load.acknowledged(200)
            leader = await aside(hosts.leader)
            term = await aside(_term, hosts, leader)
            with stopped(await aside(hosts.node_pid, leader)):
                await load.run_for(1.15 * ELECTION_TIMEOUT_S)
            await load.acknowledged(300)
            led = await aside(hosts.leader) == leader and await aside(_term, hosts, leader) == term
        assert not led or [
            o for o in load.operations if o.host != leader and o.outcome is not Outcome.OK] == []
        return led

    assert any(asyncio.run(scenario()) for _ in range(8)), "somebody else was elected each time"


def _term(hosts: Hosts, host: int) -> int:
    status = hosts.status(host)
    assert status is not None
    return int(status["nodes"][0]["term"])


def _kill_at_random(hosts: Hosts, chance: random.Random) -> None:
    """kill -9 of one node or front; whatever is down is coming back by itself."""
    status = hosts.status(chance.randrange(3))
    if status is not None:
        running = [c["pid"] for c in status["nodes"] + status["fronts"] if c["pid"]]
        if running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(running), signal.SIGKILL)


async def _random_kills(hosts: Hosts, name: str, seconds: float, pause_s: float) -> None:
    chance = random.Random(os.urandom(8))
    async with Load(hosts, name, pause_s=pause_s) as load:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await aside(_kill_at_random, hosts, chance)
            await load.run_for(chance.uniform(0.2, 3.0))
        await load.acknowledged(300)
    print(load.summary())


def test_random_processes_are_killed_again_and_again(hosts: Hosts) -> None:
    asyncio.run(_random_kills(hosts, "random", 12, 0.06))


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="minutes of kills: only in a soak")
@pytest.mark.timeout(1800)
def test_random_processes_are_killed_for_minutes(hosts: Hosts) -> None:
    async def scenario() -> None:
        for part in range(amount(0, soak=7)):
            await _random_kills(hosts, f"soak{part}", 30, 0.1)

    asyncio.run(scenario())
