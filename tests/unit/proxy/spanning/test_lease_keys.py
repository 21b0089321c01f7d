"""The keys on a lease out of several shards."""

from __future__ import annotations

import pytest

from cluster.evaluate.steps import finish
from cluster.evaluate.txns.transactions import field
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method
from proxy.services.table import register_all
from proxy.spanning import lease_keys
from proxy.spanning.lease_keys import lease_keys_pieces
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods

SHARDS = 3
KEYS = [b"k%05d/" % at for at in range(9_000)]


def of_shard(shard: int) -> list[bytes]:
    return [key for key in KEYS if Placement(SHARDS, 1).shard_of(key) == shard]


@pytest.mark.parametrize("ttl", [-1, 0, 5])
def test_they_are_those_of_all_in_order_each_once(ttl: int) -> None:
    first = pb.LeaseTimeToLiveResponse(ID=-7, TTL=ttl, grantedTTL=9, keys=[b"a", b"c" * 300])
    tails = [pb.LeaseTimeToLiveResponse(keys=keys).SerializeToString()
             for keys in ([], [b"a", b"b"], [b"b", b"d"])]
    found = b"".join(finish(lease_keys_pieces(first.SerializeToString(), tails)))
    keys = [b"a", b"b", b"c" * 300, b"d"] if ttl >= 0 else []
    assert found == pb.LeaseTimeToLiveResponse(
        ID=-7, TTL=ttl, grantedTTL=9, keys=keys).SerializeToString()


def test_very_many_are_put_together_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 300,000 keys were read, sorted and encoded in one turn of the front."""
    net, call, methods = Net(shards=SHARDS).started(), FakeCall(None), Methods()
    register_all(methods, net.context)
    methods.handlers["LeaseTimeToLive"](call, pb.LeaseTimeToLiveRequest(ID=7, keys=True).SerializeToString())
    net.run()
    (question,) = net.nodes[1].take(Method.LEASE_TTL)
    first = pb.LeaseTimeToLiveResponse(ID=7, TTL=5, keys=of_shard(0))
    net.nodes[1].ok(question, 9, first.SerializeToString())
    net.run()
    (question,) = net.nodes[1].take(Method.READ_INDEX)
    net.nodes[1].index(question, 7, 9)
    net.run()
    for shard in (1, 2):
        (read,) = net.every[shard, 1].take(Method.LEASE_KEYS)
        net.every[shard, 1].ok(read, 9, pb.LeaseTimeToLiveResponse(keys=of_shard(shard)).SerializeToString())
        net.every[shard, 1].flush(net.loop.now)
    looks: list[int] = [0]  # at keys, in each turn

    def counted(tag: bytes, body: bytes) -> bytes:
        looks[-1] += 1
        return field(tag, body)

    monkeypatch.setattr(lease_keys, "field", counted)
    while not call.closed:
        looks.append(0)
        net.loop.turn()
    assert max(looks) <= 4 * 256  # four steps
    assert sum(looks) == len(KEYS)
    assert len(looks) > 2 * len(KEYS) / (4 * 256)  # they come, and go
    answer = pb.LeaseTimeToLiveResponse.FromString(b"".join(call.replies))
    assert (answer.ID, answer.TTL, list(answer.keys)) == (7, 5, KEYS)
