"""What a front refuses by itself: no node hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import errors
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint
from proxy.services.cluster import refused_at_learner
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import Served


def test_faults_that_need_no_state_are_found_here() -> None:
    served = Served()
    txn = rpc_pb2.TxnRequest()
    for _ in range(2):
        txn.success.add().request_put.key = b"k"
    cases: list[tuple[str, Any, tuple[int, str]]] = [
        ("Put", rpc_pb2.PutRequest(value=b"v"), (3, "etcdserver: key is not provided")),
        ("Put", b"", (3, "etcdserver: key is not provided")),
        ("Range", rpc_pb2.RangeRequest(), (3, "etcdserver: key is not provided")),
        ("Range", rpc_pb2.RangeRequest(key=b"k", sort_order=9), (3, "etcdserver: invalid sort option")),
        ("DeleteRange", rpc_pb2.DeleteRangeRequest(), (3, "etcdserver: key is not provided")),
        ("Txn", txn, (3, "etcdserver: duplicate key given in txn request")),
        (
            "Put", rpc_pb2.PutRequest(key=b"k", value=bytes(1_572_864)),
            (3, "etcdserver: request is too large"),
        ),
        *(
            (method, kind(name="r" * 1_572_864), (3, "etcdserver: request is too large"))
            for method, kind in (
                ("RoleAdd", rpc_pb2.AuthRoleAddRequest), ("UserAdd", rpc_pb2.AuthUserAddRequest)
            )
        ),
    ]
    for method, message, status in cases:
        assert served.call(method, message).status == status, method
    assert served.node.take() == []
    assert served.count("etcdserverpb.KV", "Put", 3) == 3


@pytest.mark.parametrize(
    "method",
    [
        "Put", "Range", "DeleteRange", "Txn", "Compact", "RangeStream", "LeaseTimeToLive", "LeaseKeepAlive",
        "MemberList", "HashKV", "Alarm", "LeaseLeases", "Snapshot", "Lock", "Observe", "List",
    ],
)
def test_a_body_that_is_no_message_ends_here_and_reaches_no_node(method: str) -> None:
    """A node ends at what it does not expect, and a question is asked again at the next one: that would be
    the whole cluster, by one request."""
    served = Served()
    malformed = served.call(method, b"\xff\xff")
    streams = ("RangeStream", "LeaseKeepAlive", "Snapshot", "Observe")
    words = ("error unmarshalling request:", "failed to unmarshal the received message")[method in streams]
    assert malformed.status == (13, f"grpc: {words} unexpected EOF")
    assert served.node.take() == []


def test_a_request_that_asks_for_a_leader_is_refused_at_once_without_one() -> None:
    served = Served(leader=0)
    for method in ("Put", "Range", "Txn", "LeaseGrant", "LeaseKeepAlive", "Compact", "Alarm"):
        call = served.call(method, rpc_pb2.RangeRequest(key=b"k"), {b"hasleader": b"true"})
        assert call.status == (14, "etcdserver: no leader"), method
    for method in ("Status", "Hash", "Defragment", "MoveLeader", "Snapshot", "LeaseKeepAlive"):
        call = served.call(method, b"", {b"hasleader": b"true,true"})  # said twice
        assert call.status == (14, "etcdserver: no leader"), method
    assert served.call("Put", rpc_pb2.PutRequest(key=b"k")).status is None  # without it, it waits


def test_whether_a_put_is_one_is_said_before_whether_its_client_may_put() -> None:
    served = Served()
    served.net.context.principals.enabled = True
    cases = (({"ignore_value": True}, "value is provided"), ({"ignore_lease": True}, "lease is provided"))
    for fields, said in cases:
        put = rpc_pb2.PutRequest(key=b"k", value=b"v", lease=5, **fields)  # type: ignore[arg-type]
        assert served.call("Put", put).status == (3, f"etcdserver: {said}")
    assert served.node.take() == []
    served.call("Put", rpc_pb2.PutRequest(key=b"k", value=b"v", lease=5))
    assert [request.method for request in served.node.take()] == [Method.PUT]


def test_a_downgrade_that_is_none_is_refused_here_unless_its_client_is_judged() -> None:
    served = Served()
    wrong = rpc_pb2.DowngradeRequest(version="x")
    assert served.call("Downgrade", wrong).status == (
        3, "etcdserver: wrong downgrade target version format"
    )  # fmt: skip
    served.net.context.principals.enabled = True
    assert served.call("Downgrade", wrong).status is None


@pytest.mark.parametrize("method", ["MemberAdd", "MemberUpdate"])
def test_a_wish_for_members_that_is_too_large_for_the_log_is_refused_here(method: str) -> None:
    served = Served()
    wish = getattr(rpc_pb2, f"{method}Request")(peerURLs=[f"http://a{i}:1" for i in range(120_000)])
    assert served.call(method, wish).status == (3, "etcdserver: request is too large")
    assert not served.node.take()


def test_a_host_that_is_alone_leads_nobody_and_adds_nobody() -> None:
    served = Served(leader=0)
    served.net.pass_time(10)
    added = rpc_pb2.MemberAddRequest(peerURLs=["http://a:1"])
    assert served.call("MemberAdd", added).status == (14, "etcdserver: unhealthy cluster")
    moved = rpc_pb2.MoveLeaderRequest(targetID=2)
    assert served.call("MoveLeader", moved).status == (9, "etcdserver: not leader")
    promoted = served.call("MemberPromote", rpc_pb2.MemberPromoteRequest(ID=2))
    served.net.pass_time(10)
    assert promoted.status == (14, "etcdserver: no leader")
    assert not served.net.context.unpromoted


@pytest.mark.parametrize(
    ("version", "code"), [(b"", 9), (b"3.4", 14), (b"3.5", 14), (b"3.6", 9), (b"3.7", 9), (b"x", 9)]
)
def test_clients_before_3_6_are_told_by_a_learner_to_ask_another_host(version: bytes, code: int) -> None:
    """Such a client takes FAILED_PRECONDITION for its answer: puts to a cluster with a learner failed."""
    served = Served()
    served.net.router.learner = True
    told = (code, "etcdserver: rpc not supported for learner")
    metadata = {b"client-api-version": version} if version else None
    for request in (
        rpc_pb2.RangeRequest(key=b"k"), rpc_pb2.RangeRequest(key=b"k", range_end=b"z", limit=3),
        rpc_pb2.RangeRequest(),
    ):  # fmt: skip
        assert served.call("Range", request, metadata).status == told
    without_key = served.call("Range", rpc_pb2.RangeRequest(serializable=True), metadata)
    assert without_key.status == (3, "etcdserver: key is not provided")
    refusal = refused_at_learner(b"/etcdserverpb.KV/Put", version)
    assert refusal is not None
    assert (refusal.code, refusal.text) == told
    assert refused_at_learner(b"/etcdserverpb.Maintenance/Status", version) is None


def test_a_snapshot_that_nobody_asks_for_ends() -> None:
    served = Served()
    call = FakeCall()
    snapshot = served.methods.handlers["Snapshot"]
    snapshot.opened(call)
    snapshot.half_closed(call)
    assert call.status == (2, "EOF")


@pytest.mark.parametrize(("method", "request_"), [
    ("LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=5)),
    ("Alarm", rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, alarm=rpc_pb2.NOSPACE)),
])
def test_what_is_logged_has_a_bound_whatever_it_asks_for(method: str, request_: Any) -> None:
    """As in etcd. Fields that nobody knows count."""
    served = Served()
    most = served.net.context.common.max_request_bytes
    request_.MergeFromString(b"\xfa\x3e" + varint(most) + bytes(most))  # field 1007
    call = served.call(method, request_)
    assert call.status == (errors.REQUEST_TOO_LARGE.code, errors.REQUEST_TOO_LARGE.text)
    assert not served.node.take()


def test_the_limit_counts_what_etcd_puts_around_a_request() -> None:
    """17 bytes of 1.5 MiB: a value that this refuses or takes is one that etcd does."""
    served = Served()
    most = served.net.context.common.max_request_bytes - 17
    for room in (0, 1):
        put = rpc_pb2.PutRequest(key=b"big")
        put.value = bytes(most - 9 + room)
        txn = rpc_pb2.TxnRequest()
        txn.success.add().request_put.CopyFrom(put)
        txn.success[0].request_put.value = bytes(most - 17 + room)
        delete = rpc_pb2.DeleteRangeRequest(key=bytes(most - 4 + room))
        grant = rpc_pb2.LeaseGrantRequest(TTL=5)
        grant.MergeFromString(b"\xfa\x3e" + varint(most - 7 + room) + bytes(most - 7 + room))
        for method, message in (("Put", put), ("Txn", txn), ("DeleteRange", delete), ("LeaseGrant", grant)):
            assert len(message.SerializeToString()) == most + room, method
            call = served.call(method, message)
            if room:
                assert call.status == (errors.REQUEST_TOO_LARGE.code, errors.REQUEST_TOO_LARGE.text), method
            else:
                (request,) = served.node.take()
                served.node.ok(request, 2)
                served.net.run()
                assert call.status == (0, ""), method


_NO_SORT = 12, "RangeStream does not support custom sort orders"
_NO_FILTER = 12, "RangeStream does not support revision filters"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"key": b"a", "sort_order": 2}, _NO_SORT),
        ({"key": b"a", "sort_order": 1, "sort_target": 4}, _NO_SORT),
        ({"key": b"a", "sort_order": 2, "min_mod_revision": 1}, _NO_SORT),
        ({"key": b"a", "min_mod_revision": 1}, _NO_FILTER),
        ({"sort_order": 2, "min_mod_revision": 1}, (3, "etcdserver: key is not provided")),
        ({"key": b"a", "sort_order": 3}, (3, "etcdserver: invalid sort option")),
        ({"key": b"a", "sort_target": 5}, (3, "etcdserver: invalid sort option")),
    ],
)
def test_a_stream_of_rows_is_refused_as_by_etcd_3_7(wrong: dict[str, Any], status: tuple[int, str]) -> None:
    assert Served().call("RangeStream", rpc_pb2.RangeRequest(**wrong)).status == status


def test_only_a_transaction_for_the_log_is_too_large() -> None:
    served = Served()
    large = rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=bytes(1_600_000))])
    assert served.call("Txn", large).status is None
    assert [request.method for request in served.node.take()] == [Method.READ_TXN]  # it reads nothing
    large.success.add().request_put.key = b"k"
    assert served.call("Txn", large).status == (3, "etcdserver: request is too large")
