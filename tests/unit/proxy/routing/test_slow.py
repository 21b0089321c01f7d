"""Requests that take long are logged once they have ended, with what they waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from cluster.pb import rpc_pb2
from cluster.wire.messages import LONE_HEAD, Method
from proxy.routing.slow import LINES_PER_S, SlowRequests, described
from proxy.routing.waiting import READ_ANY, WRITE, MethodStats, PartWaiting, Waiting
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods


def call(net: Net, method: str, request: Any, *, timed: bool = False) -> FakeCall:
    methods, made = Methods(), FakeCall(None)
    made.timed = timed
    register_all(methods, net.context)
    methods.handlers[method](made, request.SerializeToString())
    net.run()
    return made


def slow(logs: Any) -> list[Any]:
    return [line for line in logs if line["event"] == "request stats"]


def test_a_slow_write_is_logged_when_it_has_ended_and_a_quick_one_is_not() -> None:
    net = Net().started()
    with structlog.testing.capture_logs() as logs:
        call(net, "Put", rpc_pb2.PutRequest(key=b"quick", value=b"v"))
        (asked,) = net.nodes[1].take(Method.PUT)
        net.nodes[1].ok(asked, 2)
        net.pass_time(0.2)
        put = call(net, "Put", rpc_pb2.PutRequest(key=b"slow", value=b"secret"))
        (asked,) = net.nodes[1].take(Method.PUT)
        net.pass_time(0.6)
        assert slow(logs) == []  # it has not ended
        net.nodes[1].ok(asked, 3)
        net.pass_time(0.2)
        assert put.closed
    (line,) = slow(logs)
    assert 0.6 <= line.pop("took_s") <= 0.75
    assert line.pop("request_bytes") > 0
    assert line == {
        "event": "request stats", "log_level": "warning", "expected_s": 0.3, "waited_for": "member 1",
        "shard": 0, "method": "PUT", "key": "slow", "value_bytes": 6,
    }
    assert "secret" not in repr(logs)


def test_what_a_request_waited_for_is_told() -> None:
    net = Net()
    for node in net.every.values():
        node.leader = 0
    net.pass_time(0.3)
    with structlog.testing.capture_logs() as logs:
        put = call(net, "Put", rpc_pb2.PutRequest(key=b"a"))
        read = call(net, "Range", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", limit=3))
        net.pass_time(8.0)
        assert put.closed
        assert read.closed
    assert {line["method"]: line["waited_for"] for line in slow(logs)} == {
        "PUT": "a leader",
        "RANGE": "a read index",
    }
    (line,) = [line for line in slow(logs) if line["method"] == "RANGE"]
    assert (line["key"], line["range_end"], line["limit"]) == ("a", "b", 3)


@pytest.mark.parametrize(("method", "head"), [
    (Method.PUT, b""), (Method.LONE, LONE_HEAD.pack(1)), (Method.WIDE, bytes((Method.PUT,)))])
def test_a_request_is_told_as_its_client_made_it_whoever_is_asked(method: Method, head: bytes) -> None:
    body = rpc_pb2.PutRequest(key=b"k" * 200 + b"\xff", value=b"v").SerializeToString()
    found = described(Waiting(None, method, head + body, 1, WRITE, 0.0, 7.0, MethodStats()))
    assert found == {
        "method": "PUT", "request_bytes": len(body), "key": "k" * 128 + "... (201 bytes)", "value_bytes": 1,
    }
    assert described(Waiting(None, method, head + b"\xff", 1, WRITE, 0.0, 7.0, MethodStats())) == {
        "method": "PUT",
        "request_bytes": 1,
    }


def test_very_many_are_counted() -> None:
    net = Net().started()
    with structlog.testing.capture_logs() as logs:
        for i in range(LINES_PER_S + 30):
            call(net, "Put", rpc_pb2.PutRequest(key=b"%d" % i))
        net.pass_time(8.0)  # nobody answers: all end in the same sweep
        net.pass_time(1.3)
    assert len(slow(logs)) == LINES_PER_S
    assert [line["count"] for line in logs if line["event"] == "more requests took too long"] == [30]


def test_nothing_is_logged_where_the_limit_is_0() -> None:
    net = Net().started()
    net.router.slow.limit_s = 0.0
    with structlog.testing.capture_logs() as logs:
        put = call(net, "Put", rpc_pb2.PutRequest(key=b"slow"))
        net.pass_time(8.0)
        assert put.closed
    assert slow(logs) == []


def test_below_the_time_of_a_sweep_each_call_is_told_as_it_ends() -> None:
    requests = SlowRequests(0.01)
    assert requests.each
    with structlog.testing.capture_logs() as logs:
        requests.ended("/etcdserverpb.KV/Put", "127.0.0.1:1", 0.01)  # no longer than that
        requests.ended("/etcdserverpb.KV/Put", "127.0.0.1:1", 0.0123456)
    assert slow(logs) == [{
        "event": "request stats", "log_level": "warning", "took_s": 0.012346, "expected_s": 0.01,
        "method": "Put", "remote": "127.0.0.1:1",
    }]
    net = Net().started()
    net.router.slow = requests
    with structlog.testing.capture_logs() as logs:
        for timed in (True, False):  # one of Lock is not: the sweep finds it
            call(net, "Put", rpc_pb2.PutRequest(key=b"slow"), timed=timed)
            (asked,) = net.nodes[1].take(Method.PUT)
            net.pass_time(0.2)
            net.nodes[1].ok(asked, 2)
            net.pass_time(0.1)
            assert len(slow(logs)) == (not timed)
        net.pass_time(1.1)  # lines have a rate
        logs.clear()
        for _ in range(LINES_PER_S + 5):
            requests.ended("/etcdserverpb.KV/Put", "127.0.0.1:1", 0.1)
        net.pass_time(1.3)
    assert len(slow(logs)) == LINES_PER_S
    assert [line["count"] for line in logs if line["event"] == "more requests took too long"] == [5]


@pytest.mark.parametrize("limit_s", [0.0, 0.05, 0.3])
def test_else_no_call_is_timed(limit_s: float) -> None:
    assert not SlowRequests(limit_s).each


def test_a_part_of_a_range_that_waits_for_a_replica_is_logged_once() -> None:
    client, requests = FakeCall(), SlowRequests(0.3)
    part = PartWaiting(client, Method.RANGE_ROWS, b"", 1, READ_ANY, 0.0, 7.0, MethodStats())
    route = SimpleNamespace(links={}, queue=(), reads=[part])
    with structlog.testing.capture_logs() as logs:
        for at in range(40):
            requests.look([route], (), at * 0.05)
        assert slow(logs) == [], "it waits yet"
        client.closed, route.reads = True, []
        requests.look([route], (), 2.0)
        requests.look([route], (), 2.05)
    assert [line["waited_for"] for line in slow(logs)] == ["a replica"]
