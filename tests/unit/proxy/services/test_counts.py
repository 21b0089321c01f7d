"""Calls that their deadline or their client ends are counted as handled, once: etcd's alerts go by these
counters."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Code
from cluster.features.auth.reads import Login
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.routing.router import MethodStats
from proxy.services.health import SERVICE, HealthWatch
from proxy.services.leases.keepalive import KeepAlive
from proxy.services.table import register_all
from tests.unit.many_ops import very_many
from tests.unit.proxy.fakes import FakeCall, Net, hand_in
from tests.unit.proxy.test_services import Methods

EVERYTHING: dict[str, bytes] = {"key": b"\0", "range_end": b"\0"}
RANGES = pb.RangeRequest(**EVERYTHING)  # type: ignore[arg-type]


def txn(**fields: Any) -> pb.TxnRequest:
    return pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(**fields))])


CALLS: list[tuple[str, Any]] = [
    ("Range", pb.RangeRequest(key=b"k")),
    ("Range", RANGES),
    ("Range", pb.RangeRequest(sort_order=pb.RangeRequest.DESCEND, **EVERYTHING)),  # type: ignore[arg-type]
    ("Range", pb.RangeRequest(serializable=True, **EVERYTHING)),  # type: ignore[arg-type]
    ("RangeStream", pb.RangeRequest(key=b"k")),
    ("RangeStream", RANGES),
    ("Put", pb.PutRequest(key=b"k", value=b"v")),
    ("Txn", txn(**EVERYTHING)),
    ("Txn", very_many(1024)),
    ("Compact", pb.CompactionRequest(revision=1)),
    ("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=1, keys=True)),
    ("LeaseLeases", pb.LeaseLeasesRequest()),
    ("MemberAdd", pb.MemberAddRequest(peerURLs=["http://1.2.3.4:1"])),
    ("MemberPromote", pb.MemberPromoteRequest(ID=2)),
    ("MemberList", pb.MemberListRequest()),
    ("Hash", pb.HashRequest()),
    ("HashKV", pb.HashKVRequest()),
    ("Snapshot", pb.SnapshotRequest()),
    ("Status", pb.StatusRequest()),
    ("MoveLeader", pb.MoveLeaderRequest(targetID=2)),
    ("Authenticate", pb.AuthenticateRequest(name="a", password="b")),
    ("UserAdd", pb.AuthUserAddRequest(name="a", password="b")),
    ("UserDelete", pb.AuthUserDeleteRequest(name="a")),
]
IDS = [f"{name}-{place}" for place, (name, _) in enumerate(CALLS)]


class Front:
    """Of two shards, on the host whose nodes lead."""

    def __init__(self) -> None:
        self.net = Net(shards=2).started(1)
        self.methods = Methods()
        register_all(self.methods, self.net.context)
        self.net.context.passwords._under_way = 9  # others' turns

    def begin(self, method: str, message: Any, late: bool = False) -> FakeCall:
        call = FakeCall(deadline=self.net.loop.now + 1 if late else None)
        hand_in(self.methods.handlers[method], call, message.SerializeToString())
        return call

    def end(self, method: str, call: FakeCall, late: bool) -> None:
        """As the connection ends a call: by its deadline, or as its client has gone."""
        if late:
            self.net.loop.now += 1
        call.closed = True
        handler = self.methods.handlers[method]
        if not callable(handler):
            handler.cancelled(call)

    def counted(self, method: str) -> MethodStats:
        return next(stats for (_, _, name), stats in self.net.context.stats.items() if name == method)

    def once(self, method: str, late: bool) -> bool:
        self.net.run()
        self.net.pass_time(10)
        passwords = self.net.context.passwords
        passwords._under_way = 0
        passwords._begin()
        stats = self.counted(method)
        code = int(Code.DEADLINE_EXCEEDED if late else Code.CANCELED)
        return (stats.started, stats.ok, stats.codes) == (1, 0, {code: 1})


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("method", "message"), CALLS, ids=IDS)
def test_a_call_that_is_given_up_counts_once(
    front: Front, method: str, message: Any, sent: bool, late: bool
) -> None:
    call = front.begin(method, message, late)
    if sent:
        front.net.run()
    front.end(method, call, late)
    assert front.once(method, late)


@pytest.mark.parametrize("method", ["Range", "RangeStream", "Txn", "HashKV"])
def test_so_does_one_whose_shards_answer_when_it_is_over(front: Front, method: str) -> None:
    message = {"Txn": txn(**EVERYTHING), "HashKV": pb.HashKVRequest()}.get(method, RANGES)
    call = front.begin(method, message)
    front.net.run()
    for asked in front.net.nodes[1].take(Method.READ_INDEX):
        front.net.nodes[1].index(asked, 1)
    front.net.run()
    front.end(method, call, late=False)
    for shard in range(2):
        node = front.net.every[shard, 1]
        for part in node.take():
            if part.method not in (Method.CANCEL, Method.CATCH_UP):
                node.ok(part)
    assert front.once(method, late=False)


@pytest.mark.parametrize(("method", "request_", "asked_for"), [
    pytest.param(
        "MoveLeader", pb.MoveLeaderRequest(targetID=2), Method.TRANSFER_LEADER, id="told to hand over"),
    pytest.param("Status", pb.StatusRequest(), Method.STATUS, id="waits for the sizes of other shards")])
def test_so_does_one_whose_node_has_answered(
    front: Front, method: str, request_: Any, asked_for: Method
) -> None:
    call = front.begin(method, request_)
    front.net.run()
    (asked,) = front.net.nodes[1].take(asked_for)
    front.net.nodes[1].ok(asked)
    front.net.run()
    front.end(method, call, late=False)
    assert front.once(method, late=False)


def test_so_does_a_login_whose_password_waits_for_its_turn(front: Front) -> None:
    call = front.begin("Authenticate", pb.AuthenticateRequest(name="a", password="b"))
    front.net.run()
    (asked,) = front.net.nodes[1].take(Method.READ_INDEX)
    front.net.nodes[1].index(asked, 1)
    front.net.run()
    (asked,) = front.net.nodes[1].take(Method.AUTH_SHOW)
    front.net.nodes[1].ok(asked, tail=Login(1, False, b"", b"hash").encode())
    front.net.run()
    front.end("Authenticate", call, late=False)
    assert front.once("Authenticate", late=False)


def test_so_does_one_that_may_ask_for_a_hash(front: Front) -> None:
    """Its client goes while a node judges it."""
    front.net.context.principals.enabled = True
    call = front.begin("UserAdd", pb.AuthUserAddRequest(name="a", password="b"))
    front.net.run()
    front.end("UserAdd", call, late=False)
    assert front.once("UserAdd", late=False)


def test_so_does_a_range_of_the_future_whose_client_is_being_judged(front: Front) -> None:
    front.net.context.principals.enabled = True
    call = front.begin("Range", pb.RangeRequest(revision=99, **EVERYTHING))  # type: ignore[arg-type]
    front.net.run()
    (asked,) = front.net.nodes[1].take()
    front.net.nodes[1].index(asked, 1)
    front.net.run()
    front.end("Range", call, late=False)
    assert front.once("Range", late=False)


def test_a_defragmentation_goes_on_without_its_client(front: Front) -> None:
    """And counts as etcd's handler ends it."""
    call = front.begin("Defragment", pb.DefragmentRequest())
    front.net.run()
    front.end("Defragment", call, late=False)
    for shard in range(2):
        (asked,) = front.net.every[shard, 1].take(Method.DEFRAGMENT)
        front.net.every[shard, 1].ok(asked)
        front.net.run()
    stats = front.counted("Defragment")
    assert (stats.ok, stats.codes) == (1, {})


def test_a_stream_without_a_request_counts_too(front: Front) -> None:
    for method in ("Snapshot", "RangeStream"):
        handler, call = front.methods.handlers[method], FakeCall()
        handler.opened(call)
        call.closed = True
        handler.cancelled(call)
        assert front.once(method, late=False)


@pytest.mark.parametrize("late", [False, True])
def test_a_stream_that_its_deadline_ends_counts_by_that(front: Front, late: bool) -> None:
    context = front.net.context
    streams: list[tuple[str, Any]] = [
        ("LeaseKeepAlive", KeepAlive(context, "for.a.test")), ("Watch", HealthWatch(context))
    ]  # fmt: skip
    for method, handler in streams:
        call = FakeCall(deadline=front.net.loop.now if late else None)
        handler.opened(call)
        call.closed = True
        handler.cancelled(call)
        (stats,) = [
            stats for (_, service, name), stats in context.stats.items()
            if name == method and service in ("for.a.test", SERVICE)
        ]  # fmt: skip
        code = int(Code.DEADLINE_EXCEEDED if late else Code.CANCELED)
        assert (stats.started, stats.ok, stats.codes) == (1, 0, {code: 1})
