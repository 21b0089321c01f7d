"""Single nodes killed at random under load, three shards: nothing acknowledged is lost, all hosts end up
equal.

``MUSTER_SOAK=1`` does it for ten minutes, and prints how long each class of request stalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import SOAK, Hosts, aside, until
from tests.faults.load import Load
from tests.faults.probes import Probes
from tests.faults.sharded.test_shards_kills import SHARDS, leads_now, name_on_all_shards
from tests.faults.shards import assert_equal_everywhere, clients

RUN_S = 600.0 if SOAK else 30.0
PART_S = 60.0  # of a history that is checked at once
PAUSE_S = (0.2, 8.0) if SOAK else (0.1, 2.5)


@pytest.mark.longer
@pytest.mark.timeout(1500)
def test_nodes_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    # fronts of their own: a node's death shall take no client's connection along
    with local_cluster(tmp_path / "c", 3, f"--shards={SHARDS}", "--fronts=1") as cluster:
        _kill_at_random(Hosts(cluster))


def _kill_at_random(hosts: Hosts) -> None:
    async def kill_for(seconds: float, load: Load, probes: Probes) -> None:
        chance = random.Random(os.urandom(8))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            host, shard = chance.randrange(3), chance.randrange(SHARDS)
            leads = await aside(leads_now, hosts, host, shard)
            with contextlib.suppress(ProcessLookupError):
                os.kill(await aside(hosts.node_pid, host, shard), signal.SIGKILL)
                probes.killed(shard, leads)
            await load.run_for(chance.uniform(*PAUSE_S))
        await load.acknowledged(100 if SOAK else 300)

    async def scenario() -> None:
        async with Probes(hosts, SHARDS) as probes:
            left, part = RUN_S, 0
            while left > 0:
                name = name_on_all_shards(f"nodes{part}")
                async with Load(
                    hosts, name, clients=12 if SOAK else 48, pause_s=0.1 if SOAK else 0.06
                ) as load:
                    await kill_for(min(left, PART_S), load, probes)
                print(f"{len(probes.deaths)} nodes killed so far; {load.summary()}", flush=True)
                left -= PART_S
                part += 1
        print(probes.table())

    asyncio.run(scenario())
    until(lambda: all(hosts.ready(host) for host in range(3)))
    with clients(hosts) as found:
        assert_equal_everywhere(found)
