"""Calls that their deadline, their client or the front itself ends are counted as handled, once: etcd's
alerts go by these counters."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Code
from cluster.faults import faults
from cluster.features.auth.reads import Login
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from proxy.grpc.kinds import ASKED_BYTES
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from proxy.routing.router import MethodStats
from proxy.services.health import HealthWatch
from proxy.services.leases.keepalive import KeepAlive
from proxy.services.table import register_all
from proxy.services.watch import WatchService
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.http2.client import Frame
from tests.unit.many_ops import very_many
from tests.unit.proxy.fakes import FakeCall, Net, hand_in
from tests.unit.proxy.served import Methods

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


def test_so_does_a_stream_that_no_node_reads_any_more(front: Front) -> None:
    """Its node had told that it goes on, and was lost: it counted as its client went, and once more as its
    read was found."""
    call = front.begin("RangeStream", pb.RangeRequest(key=b"k", serializable=True))
    front.net.run()
    shard = front.net.context.placement.shard_of(b"k")
    (request,) = front.net.every[shard, 1].take(Method.RANGE_STREAM)
    front.net.every[shard, 1].answer(request.rid, Status.PARTIAL, HEAD.pack(1, 1))
    front.net.run()
    for member in front.net.nodes:
        front.net.cut(member, shard)
    front.end("RangeStream", call, late=False)
    assert front.once("RangeStream", late=False)


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
    for handler in (KeepAlive(context, "for.a.test"), HealthWatch(context), WatchService(context)):
        call: Any = FakeCall(deadline=front.net.loop.now if late else None)
        handler.opened(call)
        call.closed = True
        handler.cancelled(call)
        stats, code = handler._stats, int(Code.DEADLINE_EXCEEDED if late else Code.CANCELED)
        assert (stats.started, stats.ok, stats.codes) == (1, 0, {code: 1})


def too_large(talk: Talk) -> None:
    talk.data(1, b"\0\xff\xff\xff\xff", end=False)


def cut_short(talk: Talk) -> None:
    talk.data(1, b"\0\0")


def faulty(talk: Talk) -> None:
    def fails(call: object, data: bytes) -> None:
        raise AttributeError("a fault of this program")

    (call,) = talk.server.streams.values()
    call.handler.message = fails  # type: ignore[attr-defined]
    talk.data(1, message(b""), end=False)
    assert len(faults.take()) == 1


def on_and_on(talk: Talk) -> None:
    """It takes no answer."""
    (call,) = talk.server.streams.values()
    call.send(bytes(10_000))  # type: ignore[attr-defined]
    call.handler.message = lambda call, data: None  # type: ignore[attr-defined]
    for _ in range(ASKED_BYTES // 10_000 + 1):
        talk.data(1, message(bytes(10_000)), end=False)
    assert Frame(f.RST_STREAM, 0, 1, f.U32.pack(f.ErrorCode.ENHANCE_YOUR_CALM)) in talk.take()


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", [KeepAlive, HealthWatch, WatchService])
@pytest.mark.parametrize(("end", "code"), [
    (too_large, Code.RESOURCE_EXHAUSTED), (cut_short, Code.INTERNAL), (faulty, Code.INTERNAL),
    (on_and_on, Code.RESOURCE_EXHAUSTED)])
def test_a_stream_that_the_front_itself_ends_counts_by_what_its_client_gets(
    front: Front, kind: Any, end: Any, code: Code, waits: bool
) -> None:
    """It counted as one whose client had gone, and not at all where its end waits for its client."""
    handler = kind(front.net.context, *(["for.a.test"] if kind is KeepAlive else []))
    registry = Registry()
    registry.stream("/a.B/Streams", handler)
    talk = Talk(registry, max_unsent_bytes=5_000)
    if waits or end is on_and_on:
        talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Streams")
    (call,) = talk.server.streams.values()
    if waits:
        call.send(b"waits")  # type: ignore[attr-defined]
    end(talk)
    front.net.run()
    assert (handler._stats.ok, handler._stats.codes) == (0, {int(code): 1})
