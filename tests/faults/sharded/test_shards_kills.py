"""A shard's leader is killed under load: writes resume within three election timeouts, and others go on."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterator

import pytest

from cluster.placement import Placement
from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import ELECTION_TIMEOUT_S, Hosts, aside, until
from tests.faults.load import Load
from tests.faults.shards import facts
from tests.linearizability import Outcome
from tests.tries import best_of_three, within

SHARDS = 3
_TRY = itertools.count()  # each has keys of its own


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("shard-kills") / "c"
    # fronts of their own: a node's death shall take no client's connection along
    with local_cluster(folder, 3, f"--shards={SHARDS}", "--fronts=1") as cluster:
        yield Hosts(cluster)


def leads_now(hosts: Hosts, host: int, shard: int) -> bool:
    """Whether a host leads a shard, as its own node says."""
    fact = facts(hosts, host)[shard]
    return bool(fact["up"] and fact["role"] == "leader" and fact["serving"])


def leader_of(hosts: Hosts, shard: int) -> int:
    """The host that leads a shard, as its own node says; waited for."""
    return int(until(lambda: [h for h in range(3) if leads_now(hosts, h, shard)])[0])


def name_on_all_shards(start: str) -> str:
    """A name for a load, whose keys (four directories below it) are spread over all shards."""
    placement = Placement(SHARDS)
    names = (f"{start}-{i}" for i in itertools.count())
    return next(
        n for n in names if len({placement.shard_of(f"/{n}/{d}/x".encode()) for d in range(4)}) == SHARDS
    )


def resumed_s(load: Load, shard: int, killed_ns: int) -> float:
    """When the first write of one key of a shard that began after the death was acknowledged."""
    placement = Placement(SHARDS)
    found = [
        o.returned_ns for o in load.operations
        if (o.outcome is Outcome.OK and o.invoked_ns > killed_ns and len(o.writes) == 1
            and placement.shard_of(o.writes[0][0]) == shard)
    ]  # fmt: skip
    return (min(found) - killed_ns) / 1e9


@pytest.mark.parametrize("dead", [0, 1, 2], ids=["the sequencer's", "shard 1's", "shard 2's"])
@best_of_three
def test_writes_resume_within_three_election_timeouts_of_a_leaders_death(hosts: Hosts, dead: int) -> None:
    async def scenario() -> list[float]:
        async with Load(hosts, name_on_all_shards(f"stall{next(_TRY)}"), pause_s=0.06) as load:
            await load.acknowledged(200)
            pid = await aside(lambda: hosts.node_pid(leader_of(hosts, dead), dead))
            os.kill(pid, signal.SIGKILL)
            killed_ns = time.monotonic_ns()
            await load.run_for(4 * ELECTION_TIMEOUT_S)
            await load.acknowledged(300)
        return [resumed_s(load, shard, killed_ns) for shard in range(SHARDS)]

    resumed = asyncio.run(scenario())
    print(
        f"the first write after the death of shard {dead}'s leader:",
        ", ".join(f"shard {s} {t:.2f} s" for s, t in enumerate(resumed)),
    )
    within(max(resumed), 3 * ELECTION_TIMEOUT_S)
    if dead:  # D14: the others go on, but for what they have to do with this one
        others_s = max(t for s, t in enumerate(resumed) if s != dead)
        within(others_s, ELECTION_TIMEOUT_S, "what does not need it")
