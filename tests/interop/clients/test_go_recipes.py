"""clientv3's concurrency recipes over five shards (or MUSTER_TEST_SHARDS), while the sequencer and shards'
leaders are killed."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.placement import Placement
from tests.cluster.local_cluster import local_cluster, shards_of_tests
from tests.faults.hosts import Hosts, until
from tests.faults.sharded.test_shards_kills import leader_of
from tests.faults.shards import assert_equal_everywhere, clients
from tests.interop.conftest import GO_VERSIONS
from tests.interop.toolchain import Program, skip_without
from tests.soaking import SOAK, amount

skip_without("go")
pytestmark = [pytest.mark.interop, pytest.mark.longer, pytest.mark.timeout(1500)]

SHARDS = shards_of_tests() if shards_of_tests() > 1 else 5
RUN_S = amount(15.0, soak=200.0)


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    # fronts of their own: a node's death shall take no client's connection along
    with local_cluster(
        tmp_path_factory.mktemp("recipes") / "c", 3, f"--shards={SHARDS}", "--fronts=1"
    ) as cluster:
        yield Hosts(cluster)


def base_of(shard: int, version: str) -> str:
    """A prefix of two segments, all keys of which live on this shard."""
    placement = Placement(SHARDS)
    names = (f"/v{version}-{i}/recipes/" for i in itertools.count())
    return next(n for n in names if placement.shard_of(n.encode() + b"k") == shard)


@pytest.mark.parametrize("version", GO_VERSIONS if SOAK else ["3.6"])
def test_recipes_keep_their_promises_while_leaders_die(
    programs: dict[str, Path], shaken: Hosts, version: str
) -> None:
    chance = random.Random(os.urandom(8))
    bases = ",".join(base_of(shard, version) for shard in range(SHARDS))
    endpoints = ",".join(f"{host}:{port}" for host, port in shaken.endpoints)
    killed, died = dict.fromkeys(range(SHARDS), 0), dict[int, int]()
    with Program([programs[version], "shaken", "-endpoints", endpoints, "-bases", bases]) as program:
        program.wait_for("^running$", 60)
        end = time.monotonic() + RUN_S
        turns = itertools.cycle(chance.sample([0, *range(SHARDS)], SHARDS + 1))
        while time.monotonic() < end:
            shard = next(turns)
            if shard in died:
                # With one of three down, the next death leaves no majority until it is back: if CPUs are busy
                # 10 s, and a session has 15
                until(functools.partial(shaken.ready, died[shard]))
            died[shard] = leader_of(shaken, shard)
            os.kill(shaken.node_pid(died[shard], shard), signal.SIGKILL)
            killed[shard] += 1
            time.sleep(chance.uniform(0.5, 3.0))  # the pace of deaths, not a wait for something
        program.say("enough")
        program.finish(120)
        print(f"leaders killed, by shard: {killed}\n{program.text()}")
    with clients(shaken) as found:
        assert_equal_everywhere(found)
