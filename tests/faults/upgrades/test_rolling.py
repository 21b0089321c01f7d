"""A rolling restart: hosts are stopped in order and started again, one after the other, with clients on every
host.

No request may fail or end with an unknown outcome: a stop hands over what it leads, and answers what it has
taken.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, aside
from tests.faults.steady_clients import SteadyClients, summary
from tests.soaking import amount
from tools.muster import peer_keys

ROUNDS = amount(2, soak=4)


@pytest.mark.longer
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shards", "fronts", "keys"),
    [
        pytest.param(1, 1, False, marks=pytest.mark.soak), (1, 0, False), (2, 1, False), (2, 0, False),
        pytest.param(3, 1, False, marks=pytest.mark.soak), (2, 1, True),
    ],
    ids=[
        "one-shard", "one-shard-joined", "two-shards", "two-shards-joined", "three-shards", "two-shards-keys",
    ],
)
def test_a_rolling_restart_fails_no_request(tmp_path: Path, shards: int, fronts: int, keys: bool) -> None:
    async def scenario(hosts: Hosts) -> None:
        stops: list[float] = []
        async with SteadyClients(hosts, shards) as clients:
            await clients.more(20)
            steps = ["add", "rotate"] if keys else []
            for place, host in enumerate([*range(3)] * ROUNDS):
                while steps:  # the keys change under way: all hosts have this one file
                    peer_keys.change(str(tmp_path / "keys.json"), steps.pop(0))
                    await clients.more(5)
                if keys and place == 3:
                    steps.append("drop")
                began = time.monotonic()
                await aside(hosts.stop, host)
                stops.append(time.monotonic() - began)
                await clients.more(5)
                await aside(hosts.start, host)
                clients.go_home()
                await clients.more(20)
        print(
            f"{shards} shards, {fronts} fronts: {summary(clients.clients)}; longest stop {max(stops):.2f} s"
        )
        clients.check()

    flags = []
    if keys:
        peer_keys.generate(str(tmp_path / "keys.json"))
        flags = [f"--peer-key-file={tmp_path / 'keys.json'}"]
    with local_cluster(tmp_path / "c", 3, f"--shards={shards}", f"--fronts={fronts}", extra=flags) as cluster:
        asyncio.run(scenario(Hosts(cluster)))
