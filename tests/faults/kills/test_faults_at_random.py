"""Hosts that are killed, stopped, cut off without a word, and cut off one way, in network namespaces and
under load from clients on every host: nothing acknowledged is lost, no answer is wrong, and all serve again
within seconds.

A soak does it for four minutes, half of them with a peer key; it prints the longest stalls by kind of fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.faults.asking import Asking, everybody_asking, longest, resumed
from tests.faults.hosts import ELECTION_TIMEOUT_S, aside, until
from tests.faults.load import Load
from tests.faults.netns_hosts import NetHosts, clear_or_keyed
from tests.soaking import SOAK, amount
from tools.muster.host import rundir

SHARDS = 2
RUN_S = amount(0.0, soak=120.0)  # in CI every kind of fault comes once
PART_S = 60.0  # of a history that is checked at once
FAULT_S = (0.5, 12.0) if SOAK else (3.0, 3.0)
# of hosts that run; elections take one to two, on a busy machine longer
STALL_LIMIT_S = 10 * ELECTION_TIMEOUT_S
START_LIMIT_S = 40.0  # of a host that was killed: it has to start first
KINDS = ("killed", "stopped", "cut off", "not heard", "hears nothing", "all cut off")


@pytest.fixture(scope="module", params=["clear", "keys"] if SOAK else ["clear"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetHosts]:
    folder: Path = tmp_path_factory.mktemp("faults")
    with clear_or_keyed(folder, request.param, f"--shards={SHARDS}", "--fronts=0") as found:
        yield found


@dataclass(frozen=True)
class Stall:
    """One fault of a host and what it cost, in seconds."""

    kind: str
    led: bool  # the host led shard 0
    # from its beginning until every other host answered everything; of no meaning if all were cut off
    others_s: float
    healed_s: float  # from its end until every host did


def processes_of(hosts: NetHosts, host: int) -> list[psutil.Process]:
    supervisor = psutil.Process(rundir.holder_of(str(hosts.host_dir(host))))
    return [supervisor, *supervisor.children(recursive=True)]


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


async def begin(hosts: NetHosts, kind: str, host: int) -> list[psutil.Process]:
    """Let a fault happen; the processes that it stopped."""
    if kind == "killed":
        await aside(hosts.kill, host)
    elif kind == "stopped":
        processes = await aside(processes_of, hosts, host)
        signal_all(processes, signal.SIGSTOP)
        return list(processes)
    elif kind == "all cut off":
        hosts.net.cut(0, 1, 2)
    elif kind == "cut off":
        hosts.net.cut(host)
    else:
        hosts.net.cut_one_way(host, heard=kind == "hears nothing")
    return []


async def one_fault(hosts: NetHosts, asking: list[Asking], kind: str, host: int, seconds: float) -> Stall:
    """A fault from its beginning until all is well again."""
    led = await aside(hosts.leader) == host
    began = time.monotonic()
    stopped = await begin(hosts, kind, host)
    others_s = 0.0
    try:
        if kind != "all cut off":
            others = [a for i, a in enumerate(asking) if i != host]
            others_s = longest(await resumed(others, began, 60.0))
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))  # the fault itself
    finally:
        healed = time.monotonic()
        hosts.net.heal()
        signal_all(stopped, signal.SIGCONT)
    if kind == "killed":
        await aside(hosts.start, host, wait_s=0)
    return Stall(kind, led, others_s, longest(await resumed(asking, healed, 120.0)))


def cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}, {max(values):.2f}" if values else ""


def table(stalls: list[Stall]) -> str:
    """In Markdown: median and longest, in seconds."""
    by: dict[tuple[str, str], list[Stall]] = defaultdict(list)
    for s in stalls:
        by[s.kind, "" if s.kind == "all cut off" else "the sequencer's" if s.led else "another"].append(s)
    lines = [
        "| fault | host | times | other hosts, from its beginning | all hosts, from its end |",
        "|---|---|---|---|---|",
    ]
    for (kind, whose), found in sorted(by.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1])):
        others = "" if kind == "all cut off" else cell([s.others_s for s in found])
        lines.append(f"| {kind} | {whose} | {len(found)} | {others} | {cell([s.healed_s for s in found])} |")
    return "\n".join(lines)


@pytest.mark.longer
@pytest.mark.timeout(1800)
def test_faults_at_random_lose_nothing_and_pass(hosts: NetHosts) -> None:
    chance = random.Random(os.urandom(8))
    stalls: list[Stall] = []

    async def faults(asking: list[Asking], kinds: Iterator[str], end: float, load: Load) -> None:
        for kind in kinds:
            host = await aside(hosts.leader) if chance.random() < 0.5 else chance.randrange(3)
            stall = await one_fault(hosts, asking, kind, host, chance.uniform(*FAULT_S))
            stalls.append(stall)
            print(stall, flush=True)
            if time.monotonic() > end:
                break
        await load.acknowledged(50)

    async def scenario() -> None:
        async with everybody_asking(hosts.endpoints, 0.2) as asking:
            began, part = time.monotonic(), 0
            while part == 0 or (SOAK and time.monotonic() < began + RUN_S):
                kinds = iter(lambda: chance.choice(KINDS), "") if SOAK else iter(KINDS)
                async with Load(hosts, f"faults{part}", clients=12, pause_s=0.1) as load:
                    end = min(time.monotonic() + PART_S, began + RUN_S) if SOAK else float("inf")
                    await faults(asking, kinds, end, load)
                print(load.summary(), flush=True)
                part += 1

    asyncio.run(scenario())
    until(lambda: all(hosts.ready(host) for host in range(3)))
    print(table(stalls))
    assert max((s.others_s for s in stalls), default=0.0) <= STALL_LIMIT_S
    assert max(s.healed_s for s in stalls if s.kind != "killed") <= STALL_LIMIT_S
    assert max((s.healed_s for s in stalls if s.kind == "killed"), default=0.0) <= START_LIMIT_S
