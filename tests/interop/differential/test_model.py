"""What ``cluster.evaluate.requests`` says a request does, against what etcd does; and etcd against itself."""

from collections import Counter

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from tests.sim.world.seeds import seeds
from tests.soaking import SOAK

from .edges import edges
from .endpoints import GrpcEndpoint, MemoryEndpoint
from .runner import Difference, Pair
from .steps import KEYS, Step

SEEDS = seeds(12, soak=100)
STEPS = 200 if SOAK else 80


@pytest.mark.longer
def test_generated_sequences(etcd: GrpcEndpoint) -> None:
    pair = Pair(etcd, MemoryEndpoint())
    for seed in SEEDS:
        pair.run(seed, STEPS)
    # the sequences are worth something: every RPC was answered, and refused for its main reasons
    for outcome in (
        "Put: ok", "Range: ok", "DeleteRange: ok", "Txn: ok", "Compact: ok", "LeaseGrant: ok",
        "LeaseRevoke: ok", "LeaseTimeToLive: ok", "LeaseLeases: ok", "LeaseKeepAlive: ok", "Watch: ok",
        "Put: etcdserver: key not found", "Put: etcdserver: requested lease not found",
        "Range: etcdserver: mvcc: required revision has been compacted",
        "Range: etcdserver: mvcc: required revision is a future revision",
        "Txn: etcdserver: duplicate key given in txn request", "Txn: etcdserver: key not found",
        "LeaseGrant: etcdserver: lease already exists",
    ):
        assert pair.outcomes[outcome] > 0, outcome


def test_edge_cases_on_a_fresh_store(etcd: GrpcEndpoint) -> None:
    pair = Pair(etcd, MemoryEndpoint())
    for step in edges():
        pair.step(step)


def test_two_etcds_do_not_differ(etcd: GrpcEndpoint, second_etcd: GrpcEndpoint) -> None:
    pair = Pair(etcd, second_etcd)
    for step in edges():
        pair.step(step)
    for seed in range(4):
        pair.run(seed, 60)


def test_a_difference_is_found(etcd: GrpcEndpoint) -> None:
    pair = Pair(etcd, MemoryEndpoint())
    put = Step("Put", pb.PutRequest(key=b"a", value=b"1"))
    pair.step(put)
    pair.reference.call(put)  # a write that the other one does not see
    with pytest.raises(Difference):
        pair.step(Step("Range", pb.RangeRequest(key=b"a")))


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_no_shard_has_the_keys_almost_for_itself(shards: int) -> None:
    """Else requests over several shards would be rare where a server has several."""
    found = Counter(map(Placement(shards).shard_of, KEYS))
    fair = len(KEYS) / shards
    assert len(found) == shards
    assert all(fair - 1 <= count <= fair + 1 for count in found.values()), found
