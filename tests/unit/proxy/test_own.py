"""What a host says of itself is of its own nodes: another host's answer would bear this member's ID."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster import errors
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.listener.endpoints import Checks
from proxy.services.table import register_all
from proxy.v2.stats import Stats
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.listener.test_http import Request
from tests.unit.proxy.served import Methods

REFUSED = errors.TIMEOUT_DUE_TO_LEADER_FAIL.code, errors.TIMEOUT_DUE_TO_LEADER_FAIL.text
ASKED: dict[str, tuple[Any, Method]] = {
    "Status": (pb.StatusRequest(), Method.STATUS),
    "Hash": (pb.HashRequest(), Method.HASH),
    "HashKV": (pb.HashKVRequest(), Method.HASH_KV),
}
CALLS = pytest.mark.parametrize(
    ("method", "shards"), [("Status", 1), ("Hash", 1), ("HashKV", 1), ("HashKV", 2)])


def called(net: Net, method: str) -> FakeCall:
    methods, call = Methods(), FakeCall()
    register_all(methods, net.context)
    methods.handlers[method](call, ASKED[method][0].SerializeToString())
    net.run()
    return call


def without_its_node(shard: int = 0, **more: int) -> Net:
    """The front of host 1, whose node of this shard is down; host 2 leads."""
    net = Net(shards=shard + 1, **more).started()
    net.cut(1, shard)
    net.lead(2, 3)
    net.pass_time(0.3)
    assert net.router.routes[shard].replica is not None
    return net


def asked(net: Net, method: Method, but: int = 1) -> list[int]:
    """The other hosts that were asked."""
    return [node.member for node in net.every.values() if node.member != but and node.take(method)]


@CALLS
def test_no_other_host_answers_for_one_whose_node_is_down(method: str, shards: int) -> None:
    net = without_its_node(shards - 1)
    call = called(net, method)
    assert call.status is None, "a node that starts again is only late"
    net.look_again()
    assert call.status == REFUSED
    assert asked(net, ASKED[method][1]) == []


@CALLS
def test_nor_for_one_whose_node_ends_meanwhile(method: str, shards: int) -> None:
    net = Net(shards=shards).started(leader=2)
    net.pass_time(0.3)
    call = called(net, method)
    assert call.status is None
    net.cut(1, shards - 1)
    net.pass_time(0.3)
    assert call.status is not None
    assert call.status[0] == errors.TIMEOUT_DUE_TO_LEADER_FAIL.code
    assert asked(net, ASKED[method][1]) == []


@CALLS
def test_a_node_that_is_cut_off_from_its_leader_answers_for_itself(method: str, shards: int) -> None:
    """Its front reaches the leader: reads go there."""
    net = Net(shards=shards).started(leader=2)
    for shard in range(shards):
        node = net.every[shard, 1]
        node.leader = 0
        node.say_state()
    net.run()
    assert net.router.routes[0].replica is net.router.routes[0].leader_link
    call = called(net, method)
    for shard in range(shards):
        (request,) = net.every[shard, 1].take(ASKED[method][1])
        tail = pb.HashKVResponse(hash=7, compact_revision=-1) if shards > 1 else ASKED[method][0]
        net.every[shard, 1].ok(request, 1, tail.SerializeToString())
    net.run()
    assert call.status == (0, "")
    assert asked(net, ASKED[method][1]) == []


@CALLS
def test_at_a_proxy_any_host_answers(method: str, shards: int) -> None:
    net = Net(own=0, shards=shards).started(leader=2)
    call = called(net, method)
    (first,) = {node.member for node in net.every.values() if node.requests}
    for shard in range(shards):
        net.cut(first, shard)
    net.lead(5 - first if first > 1 else 2, 3)
    net.pass_time(0.5)
    for node in net.every.values():
        for request in node.take(ASKED[method][1]):
            node.ok(request, 1, pb.HashKVResponse(compact_revision=-1).SerializeToString())
    net.run()
    assert call.status == (0, ""), "and another one, where its link ends"


def test_who_is_no_learner_is_known_of_the_own_node_alone() -> None:
    net, said = without_its_node(), list[str]()
    Checks(net.context).by_name("non_learner", said.append)
    net.look_again()
    assert said == [REFUSED[1]]
    assert asked(net, Method.STATUS) == []


def statistics(net: Net, path: str) -> Request:
    request = Request(f"/v2/stats/{path}")
    stats = Stats(net.context)
    (stats.leader if path == "leader" else stats.itself)(request)
    net.run()
    return request


@pytest.mark.parametrize("path", ["self", "leader"])
def test_statistics_of_version_2_are_of_the_own_node_alone(path: str) -> None:
    net = without_its_node()
    request = statistics(net, path)
    net.look_again()
    assert request.answer is not None
    assert request.answer[0] == 503
    assert asked(net, Method.FACTS) == []


def alone(shards: int = 1) -> Net:
    """The front of a host whose nodes are down; nobody else is there."""
    net = Net(hosts=1, shards=shards).started()
    for shard in range(shards):
        net.cut(1, shard)
    return net


def come_back(net: Net) -> None:
    for node in net.every.values():
        node.up = True
    net.pass_time(0.4)
    net.look_again()


def stands_still() -> Net:
    """The front of a host whose node leads, and says nothing for longer than an election timeout."""
    net = Net().started(leader=1)
    net.pass_time(net.router.election_s * 1.3, silent=(1,))
    link = net.router.routes[0].links[1]
    assert link.quiet
    assert link.up
    return net


def ask_all(net: Net) -> dict[Method, list[Any]]:
    """All that asks the own node of shard 0; who gets an answer."""
    found: dict[Method, list[Any]] = {Method.STATUS: [], Method.FACTS: []}
    Checks(net.context).by_name("non_learner", found[Method.STATUS].append)
    found[Method.FACTS].append(statistics(net, "self"))
    for method in ("Status", "Hash", "HashKV"):
        found.setdefault(ASKED[method][1], []).append(called(net, method))
    return found


def nobody_is_refused(net: Net, found: dict[Method, list[Any]]) -> None:
    for method, asking in found.items():
        requests = net.nodes[1].take(method)
        assert len(requests) == (2 if method == Method.STATUS else 1), method
        assert not any(isinstance(one, str) for one in asking), "a check that has failed"
        assert all(one.status is None for one in asking if isinstance(one, FakeCall))
        assert all(one.answer is None for one in asking if isinstance(one, Request))
        assert asked(net, method) == []


def test_a_node_that_starts_again_is_waited_for() -> None:
    net = alone()
    found = ask_all(net)
    come_back(net)
    nobody_is_refused(net, found)


def test_so_are_all_nodes_of_a_host_with_several() -> None:
    net = alone(shards=2)
    call = called(net, "HashKV")
    come_back(net)
    for shard in (0, 1):
        (request,) = net.every[shard, 1].take(Method.HASH_KV)
        net.every[shard, 1].ok(request, 1, pb.HashKVResponse(hash=7, compact_revision=-1).SerializeToString())
    net.run()
    assert call.status == (0, "")


def test_a_leader_that_stands_still_is_asked() -> None:
    """It is only late, as an etcd's member that stands still."""
    net = stands_still()
    found = ask_all(net)
    net.pass_time(0.1)  # HashKV waits until the node has what was shown
    nobody_is_refused(net, found)


@CALLS
def test_one_whose_client_went_meanwhile_asks_nobody(method: str, shards: int) -> None:
    net = alone(shards)
    call = called(net, method)
    call.closed = True
    come_back(net)
    assert not net.nodes[1].take(ASKED[method][1])
    assert net.context.stats["unary", "etcdserverpb.Maintenance", method].codes == {
        errors.CONTEXT_CANCELED.code: 1}


def test_a_leader_whose_node_ends_shows_no_others_followers() -> None:
    net = Net().started()
    request = statistics(net, "leader")
    own: FakeNode = net.nodes[1]
    (facts,) = own.take(Method.FACTS)
    own.ok(facts, 1, json.dumps({"role": "leader", "leader": "1", "term": 1, "member_id": "1"}).encode())
    net.run()
    assert own.take(Method.COUNTERS)
    net.cut(1)
    net.pass_time(0.3)
    assert request.answer is not None
    assert request.answer[0] == 503
    assert asked(net, Method.COUNTERS) == []
