"""Headers of a front without a member of its own: they name who answered, as with etcd's grpc-proxy."""

from __future__ import annotations

import json

import pytest

from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods


def asked(net: Net, shard: int, to_leader: bool) -> FakeCall:
    call, body = FakeCall(), b"\x0a\x01k"
    if to_leader:
        net.router.write(call, Method.PUT, body, shard, net.router.quiet)
    else:
        net.router.own(call, Method.STATUS, body, shard, net.router.quiet)
    net.run()
    return call


def answered(net: Net, call: FakeCall, revision: int) -> tuple[int, int]:
    """Which member answers, and whom the header names."""
    ((node, request),) = [(node, request) for node in net.every.values() for request in node.take()]
    node.ok(request, revision)
    net.run()
    return node.member, named(call.replies[0])


def named(reply: bytes) -> int:
    return int(rpc_pb2.PutResponse.FromString(reply).header.member_id)


def unlike_leaders(net: Net, leader: int = 2) -> Net:
    """Reads go to another member than writes."""
    for route in net.router.routes.values():
        route.replica = next(link for link in route.links.values() if link.member_id != leader)
    return net


def test_a_header_names_the_member_that_answered() -> None:
    net = unlike_leaders(Net(own=0, shards=2).started(leader=2))
    told = [
        answered(net, asked(net, shard, to_leader), 5)
        for shard, to_leader in ((0, True), (0, False), (1, True), (1, False), (0, True))
    ]
    assert [member for member, _ in told] == [2, 1, 2, 1, 2]
    assert [header for _, header in told] == [2, 1, 2, 1, 2], "although nothing else in it is new"


def test_what_members_say_unasked_changes_no_header() -> None:
    net = Net(own=0).started(leader=2)
    assert named(net.router.header(5, 1)) in net.nodes, "the first one that was heard"
    assert answered(net, asked(net, 0, True), 5) == (2, 2)
    for node in net.nodes.values():
        node.say_state()
    net.nodes[3].watermark(6)
    net.run()
    assert named(net.router.header(6, 1)) == 2
    net.lead(3, 4)
    assert answered(net, asked(net, 0, True), 7) == (3, 3)


def test_a_watch_names_a_member_too() -> None:
    net = Net(own=0).started(leader=2)
    assert answered(net, asked(net, 0, True), 5) == (2, 2)
    assert named(net.context.hub.header(9)) == 2


def test_a_status_names_whom_it_is_of_whoever_tells_the_sizes_of_other_shards() -> None:
    net = unlike_leaders(Net(own=0, shards=2).started(leader=2))
    methods, call = Methods(), FakeCall()
    register_all(methods, net.context)
    methods.handlers["Status"](call, b"")
    net.run()
    (request,) = net.every[0, 1].take(Method.STATUS)
    route = net.router.routes[1]
    route.replica = route.links[3]
    net.every[0, 1].ok(request, 5, rpc_pb2.StatusResponse(leader=2).SerializeToString())
    net.run()
    for shard, member in ((0, 1), (1, 3)):
        (request,) = net.every[shard, member].take(Method.FACTS)
        facts = {"shard": shard, "size_bytes": 1, "size_in_use_bytes": 1}
        net.every[shard, member].ok(request, 5, json.dumps(facts).encode())
        net.run()
    found = rpc_pb2.StatusResponse.FromString(call.replies[0])
    assert (found.header.member_id, found.leader, found.dbSize) == (1, 2, 1)


@pytest.mark.parametrize("own", [1, 3])
def test_a_host_s_headers_name_the_host(own: int) -> None:
    net = Net(own=own).started(leader=2)
    assert answered(net, asked(net, 0, True), 5) == (2, own)
