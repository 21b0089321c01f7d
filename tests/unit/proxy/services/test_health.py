"""grpc.health.v1.Health."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method, Status
from proxy.services.health import HealthWatch
from proxy.services.range_stream import RangeStream
from proxy.services.table import register_all
from proxy.services.watch import WatchService
from proxy.shared.context import Context
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods, Served

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


# as etcd 3.7 sends it: the service name is there, though empty
LISTED = b"\x0a\x06\x0a\x00\x12\x02"


def served(stop_on_defrag: bool) -> Served:
    found = Served()
    net = found.net
    net.settings = dataclasses.replace(net.settings, stop_on_defrag=stop_on_defrag)
    net.context = Context(net.settings, net.router)
    register_all(found.methods, net.context)
    return found


def nodes_say(found: Served, defragmenting: int) -> None:
    """All that the front's questions are answered with in the next second."""
    for _ in range(4):
        found.net.pass_time(0.25)
        for request in found.node.take(Method.FACTS):
            found.node.ok(request, tail=json.dumps({"defragmenting": defragmenting}).encode())
        found.net.run()


def test_a_stream_that_ends_without_a_request_is_answered() -> None:
    """By health's Watch and RangeStream it never was; grpc-go says so, too."""
    context = Served().net.context
    for handler in (HealthWatch(context), RangeStream(context)):
        call = FakeCall()
        handler.opened(call)
        handler.half_closed(call)
        assert call.status == (errors.Code.UNKNOWN, "EOF")


def test_a_health_watch_is_answered_once_however_many_messages_come() -> None:
    found = Served()
    call = FakeCall()
    watch = HealthWatch(found.net.context)
    watch.opened(call)
    for _ in range(1000):
        watch.message(call, b"")
    assert call.replies == [SERVING]
    assert not call.closed


def test_what_is_no_request_of_a_stream_is_refused_in_the_words_for_it() -> None:
    context = Served().net.context
    for handler in (HealthWatch(context), WatchService(context)):
        call = FakeCall()
        handler.opened(call)
        handler.message(call, b"\xff\xff")
        assert call.status == (13, "grpc: failed to unmarshal the received message unexpected EOF")


def test_services_are_listed_with_their_status() -> None:
    found = Served()
    assert found.call("List", b"").replies == [LISTED + SERVING]
    assert found.call("List", b"\x0a\x01x").replies == [LISTED + SERVING]  # what is not known is passed over
    status = found.call("List", b"\xff").status
    assert status is not None
    assert status[0] == 13


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
def test_who_asks_for_a_leader_is_refused_without_one(method: str) -> None:
    """etcd's interceptors hold for every method of its server."""
    found = Served(leader=0)
    assert found.call(method, b"", {b"hasleader": b"true"}).status == (14, "etcdserver: no leader")
    assert found.call(method, b"").replies


def test_a_watch_that_asks_for_a_leader_ends_three_timeouts_after_the_last_one() -> None:
    found = Served()
    watch, plain = found.call("Watch", b"", {b"hasleader": b"true"}), found.call("Watch", b"")
    for node in found.net.nodes.values():
        node.leader = 0
    found.net.pass_time(2.5)
    assert watch.replies == [SERVING]
    assert not watch.closed
    found.net.pass_time(1.0)
    assert watch.status == (1, "Stream has ended.")
    assert not plain.closed
    found.net.context.stop()
    assert plain.status == (14, "etcdserver: server stopped")
    assert not found.net.context.guarded


def test_a_host_that_defragments_says_that_it_does_not_serve() -> None:
    found = served(stop_on_defrag=True)
    watch, other = found.call("Watch", b""), found.call("Watch", b"\x0a\x01x")
    asked = found.call("Defragment", rpc_pb2.DefragmentRequest())
    assert found.call("Check", b"").replies == [NOT_SERVING]
    assert found.call("List", b"").replies == [LISTED + NOT_SERVING]
    assert found.call("Watch", b"").replies == [NOT_SERVING]
    assert watch.replies == [SERVING, NOT_SERVING]
    (request,) = found.node.take(Method.DEFRAGMENT)
    found.node.ok(request)
    found.net.run()
    assert asked.status == (0, "")
    assert watch.replies == [SERVING, NOT_SERVING, SERVING]
    assert found.call("Check", b"").replies == [SERVING]
    assert other.replies == [b"\x08\x03"]


def test_nodes_tell_that_another_front_was_asked_or_that_the_client_has_gone() -> None:
    found = served(stop_on_defrag=True)
    watch = found.call("Watch", b"")
    nodes_say(found, 1)
    nodes_say(found, 0)
    assert watch.replies == [SERVING, NOT_SERVING, SERVING]
    found.call("Defragment", rpc_pb2.DefragmentRequest()).closed = True
    nodes_say(found, 1)
    assert watch.replies[3:] == [NOT_SERVING]
    nodes_say(found, 0)
    assert watch.replies[4:] == [SERVING]


def test_health_checks_see_nothing_of_a_defragmentation_that_is_not_permitted() -> None:
    found = served(stop_on_defrag=True)
    found.net.router.principals.enabled = True
    watch = found.call("Watch", b"")
    for permitted in (False, True):
        asked = found.call("Defragment", rpc_pb2.DefragmentRequest())
        found.net.run()
        assert watch.replies == [SERVING]
        (request,) = found.node.take(Method.AUTH_SHOW)
        if permitted:
            found.node.ok(request)
        else:
            found.node.answer(request.rid, Status.ERROR, EtcdError(errors.USER_EMPTY).encode())
        found.net.run()
        assert asked.closed is not permitted
    assert watch.replies == [SERVING, NOT_SERVING]
    assert found.node.take(Method.DEFRAGMENT), "the client's question, which the node judges again"


def test_a_host_serves_while_it_defragments_unless_the_gate_is_open() -> None:
    found = served(stop_on_defrag=False)
    watch = found.call("Watch", b"")
    asked = found.call("Defragment", rpc_pb2.DefragmentRequest())
    found.net.pass_time(1)
    assert (watch.replies, asked.closed) == ([SERVING], False)
    assert found.call("Check", b"").replies == [SERVING]
    assert not found.node.take(Method.FACTS)


def test_another_host_is_not_defragmented_for_one_whose_node_is_down() -> None:
    found = served(stop_on_defrag=True)
    asked = found.call("Defragment", rpc_pb2.DefragmentRequest())
    found.net.cut(1)
    late = found.call("Defragment", rpc_pb2.DefragmentRequest())
    found.net.look_again()
    for call in (asked, late):
        assert call.status is not None
        assert call.status[0] == 14, call.status
    assert not [r for node in found.net.nodes.values() if node is not found.node
                for r in node.take(Method.DEFRAGMENT)]
    assert found.call("Check", b"").replies == [SERVING]


@pytest.mark.parametrize("leaves", [False, True])
def test_all_shards_are_defragmented_one_after_the_other_though_the_client_goes(leaves: bool) -> None:
    """etcdctl waits for five seconds: the other shards of a large store were never reached."""
    net = Net(shards=3).started()
    net.settings = dataclasses.replace(net.settings, stop_on_defrag=True)
    net.context = Context(net.settings, net.router)
    methods = Methods()
    register_all(methods, net.context)
    call = FakeCall()
    methods.handlers["Defragment"](call, b"")
    for shard in range(3):
        call.closed = leaves
        net.pass_time(1)  # it is seen that the client has gone
        asked = {node.shard: node.take(Method.DEFRAGMENT) for node in net.every.values() if node.member == 1}
        assert [s for s, requests in asked.items() if requests] == [shard]
        assert not call.replies
        net.every[shard, 1].ok(asked[shard][0])
        net.run()
    assert call.replies == ([] if leaves else [b""])
    assert not net.context.defragmenting


def test_a_proxy_that_learns_late_of_users_defragments_for_none_without_credentials() -> None:
    net = Net(hosts=3, own=0, shards=2)
    net.context = Context(net.settings, net.router)
    methods = Methods()
    register_all(methods, net.context)
    for (shard, _), node in net.every.items():
        node.leader, node.up = 1, bool(shard)
    methods.handlers["Defragment"](FakeCall(), b"")
    net.router.principals.enabled = True  # a node of shard 1 says so, before any of shard 0 is asked
    net.pass_time(0.3)
    for node in net.every.values():
        node.up = True
    net.pass_time(1)
    taken = [request for node in net.every.values() for request in node.take(Method.DEFRAGMENT)]
    assert len(taken) == 1
    assert not any(node.take(Method.DEFRAGMENT | SAID) for node in net.every.values())
