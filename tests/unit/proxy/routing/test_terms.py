"""A front's headers tell one Raft term, that of shard 0, whichever shard answers (decision 102)."""

from __future__ import annotations

from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from tests.unit.proxy.fakes import FakeCall, Net


def term_of(net: Net, shard: int, revision: int) -> int:
    """What the header of a put's answer says."""
    call = FakeCall()
    net.router.write(call, Method.PUT, b"\x0a\x01k", shard, net.router.quiet)
    net.run()
    node = net.every[shard, 1]
    (request,) = node.take(Method.PUT)
    node.ok(request, revision)
    net.run()
    return int(rpc_pb2.PutResponse.FromString(call.replies[0]).header.raft_term)


def lead(net: Net, shard: int, term: int) -> None:
    for (of, _), node in net.every.items():
        if of == shard:
            node.leader, node.term = 1, term
            node.say_state()
    net.run()


def test_headers_tell_the_term_of_shard_0() -> None:
    net = Net(shards=3).started()
    for shard, term in ((0, 4), (1, 9), (2, 2)):
        lead(net, shard, term)
    assert [term_of(net, shard, 10 + shard) for shard in (1, 0, 2, 1)] == [4, 4, 4, 4]
    assert rpc_pb2.PutResponse.FromString(net.router.header(12, 9)).header.raft_term == 4
    assert net.router.term == 4, "which the headers of watches tell"
    lead(net, 0, 5)
    assert [term_of(net, shard, 20 + shard) for shard in (2, 0, 1)] == [5, 5, 5]
    lead(net, 0, 6)
    assert term_of(net, 1, 21) == 6, "although nothing else in the header is new"


def test_a_front_that_has_not_heard_of_shard_0_tells_the_term_of_who_answers() -> None:
    net = Net(shards=2)
    assert rpc_pb2.PutResponse.FromString(net.router.header(12, 9)).header.raft_term == 9
