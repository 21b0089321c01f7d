"""Single nodes killed at random under load, three shards: nothing acknowledged is lost, all hosts end up
equal.

A soak does it for four minutes, and prints how long each class of request stalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, aside, until
from tests.faults.load import Load
from tests.faults.probes import Probes
from tests.faults.sharded.test_shards_kills import SHARDS, leads_now, name_on_all_shards
from tests.faults.shards import assert_equal_everywhere, clients
from tests.soaking import SOAK, amount

PARTS = amount(1, soak=4)
TIMES = 2  # each node is killed in CI, in any order
PART_S = 60.0  # of a history that is checked at once
PAUSE_S = (0.2, 8.0) if SOAK else (0.1, 2.5)


@pytest.mark.longer
@pytest.mark.timeout(1500)
def test_nodes_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    # fronts of their own: a node's death shall take no client's connection along
    with local_cluster(tmp_path / "c", 3, f"--shards={SHARDS}", "--fronts=1") as cluster:
        _kill_at_random(Hosts(cluster))


def _kill_at_random(hosts: Hosts) -> None:
    chance = random.Random(os.urandom(8))
    each = [(host, shard) for host in range(3) for shard in range(SHARDS)] * TIMES
    chance.shuffle(each)

    def any_for_a_part() -> Iterator[tuple[int, int]]:
        end = time.monotonic() + PART_S
        while time.monotonic() < end:
            yield chance.randrange(3), chance.randrange(SHARDS)

    async def kill(nodes: Iterable[tuple[int, int]], load: Load, probes: Probes) -> None:
        for host, shard in nodes:
            leads = await aside(leads_now, hosts, host, shard)
            with contextlib.suppress(ProcessLookupError):
                os.kill(await aside(hosts.node_pid, host, shard), signal.SIGKILL)
                probes.killed(shard, leads)
            await load.run_for(chance.uniform(*PAUSE_S))
        await load.acknowledged(100 if SOAK else 300)

    async def scenario() -> None:
        async with Probes(hosts, SHARDS) as probes:
            for part in range(PARTS):
                name = name_on_all_shards(f"nodes{part}")
                async with Load(
                    hosts, name, clients=12 if SOAK else 48, pause_s=0.1 if SOAK else 0.06
                ) as load:
                    await kill(any_for_a_part() if SOAK else each, load, probes)
                print(f"{len(probes.deaths)} nodes killed so far; {load.summary()}", flush=True)
        print(probes.table())

    asyncio.run(scenario())
    until(lambda: all(hosts.ready(host) for host in range(3)))
    with clients(hosts) as found:
        assert_equal_everywhere(found)
