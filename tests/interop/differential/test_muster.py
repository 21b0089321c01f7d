"""muster, three hosts and real processes, against etcd: the same sequences, the same answers."""

import os
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from cluster.evaluate.footprint import is_read_only, is_serializable
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import STEADY, local_cluster, shards_of_tests
from tests.cluster.moves.churn import Churn
from tests.faults.shards import Background
from tests.sim.world.seeds import seeds
from tests.soaking import SOAK

from .edges import edges
from .endpoints import Endpoint, GrpcEndpoint, Result
from .runner import Pair
from .steps import Step

SEEDS = seeds(8, soak=70)
STEPS = 120 if SOAK else 60
LIMIT_S = 1800 if SOAK else 900  # a soak's 8,400 calls share two CPUs with other tests and simulations


def reads_locally(step: Step) -> bool:
    """Whether the answer is what the asked host has applied: such a step goes to a host that has shown
    the newest revision, for what a front has shown once it shows always. A watch without a start revision
    begins behind the host's own."""
    if step.rpc == "Txn":
        return is_read_only(step.request) and is_serializable(step.request)
    if step.rpc == "Watch":
        return not step.request.start_revision
    return step.rpc == "LeaseLeases" or (step.rpc == "Range" and step.request.serializable)


def named_of_the_past(step: Step) -> list[int]:
    """Revisions that it names, if the asked host answers by what it has applied of compactions."""
    if step.rpc == "Watch":
        return [step.request.start_revision]
    if not reads_locally(step):
        return []
    if step.rpc == "Txn":
        branches = step.request.success, step.request.failure
        return [op.request_range.revision for ops in branches for op in ops]
    return [step.request.revision] if step.rpc == "Range" else []


# A linearizable read of each shard: what answers it has applied each compaction that was acknowledged before
EVERYTHING = Step("Range", pb.RangeRequest(key=b"\0", range_end=b"\0", count_only=True))


class Hosts:
    """Several hosts of one cluster as one endpoint: each request goes to the next host, unless it reads
    locally. A host may be behind a compaction that another one has acknowledged, as an etcd's member may. So
    what is not above it is asked of the next host once that has it; where keys move, of the host that has
    acknowledged it: a shard that owns nothing any more is in no range."""

    def __init__(self, endpoints: list[Endpoint], *, moves: bool = False) -> None:
        self._all = endpoints
        self._next = cycle(endpoints)
        self._newest = endpoints[0]  # has shown the newest revision
        self._compacted = 0
        self._compacter = endpoints[0]  # has acknowledged that compaction
        self._moves = moves

    def call(self, step: Step, expected_events: int = 0) -> Result:
        if any(0 < revision <= self._compacted for revision in named_of_the_past(step)):
            host = self._compacter if self._moves else next(self._next)
            host.call(EVERYTHING)
            return host.call(step, expected_events)
        if reads_locally(step):
            return self._newest.call(step, expected_events)
        host = next(self._next)
        result = host.call(step, expected_events)
        if hasattr(result, "header"):  # no refusal: those need not have reached the store
            self._newest = host
            if step.rpc == "Compact":
                self._compacted, self._compacter = step.request.revision, host
        return result


@pytest.fixture
def muster(tmp_path: Path) -> Iterator[list[GrpcEndpoint]]:
    """The hosts of a muster cluster: of MUSTER_ENDPOINTS (an empty one), or one started here with
    MUSTER_SHARDS (or MUSTER_TEST_SHARDS) shards (1)."""
    given = os.environ.get("MUSTER_ENDPOINTS")
    if given:
        endpoints = [GrpcEndpoint(address) for address in given.split(",")]
        yield endpoints
    else:
        shards = int(os.environ.get("MUSTER_SHARDS", "0")) or shards_of_tests()
        with local_cluster(tmp_path / "muster", 3, f"--shards={shards}", extra=STEADY) as cluster:
            endpoints = [GrpcEndpoint(address) for address in cluster.endpoints()]
            yield endpoints
            for endpoint in endpoints:
                endpoint.close()


@pytest.mark.longer
@pytest.mark.timeout(LIMIT_S)
def test_through_one_host(etcd: GrpcEndpoint, muster: list[GrpcEndpoint]) -> None:
    pair = Pair(etcd, muster[0])
    for step in edges():
        pair.step(step)
    for seed in SEEDS:
        pair.run(seed, STEPS)


@pytest.mark.longer
@pytest.mark.timeout(LIMIT_S)
def test_through_every_host_in_turn(etcd: GrpcEndpoint, muster: list[GrpcEndpoint]) -> None:
    pair = Pair(etcd, Hosts(list(muster)))
    for step in edges():
        pair.step(step)
    for seed in SEEDS:
        pair.run(1000 + seed, STEPS)


@pytest.mark.longer
@pytest.mark.timeout(LIMIT_S)
def test_through_every_host_while_keys_move(etcd: GrpcEndpoint, muster: list[GrpcEndpoint]) -> None:
    churn = Churn([host.address for host in muster], 31)
    churn.grow()
    pair = Pair(etcd, Hosts(list(muster), moves=True))
    with Background(churn.step):
        for seed in SEEDS:
            pair.run(2000 + seed, STEPS)
    churn.close()
    assert churn.done["added"]
