"""RangeStream: what a client that does not read costs, and rows of several shards in one order."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, READ, READ_INDEX_ANSWER, Method, Status
from cluster.wire.protobuf import key_value
from proxy.grpc.calls import BACKLOG_BYTES
from proxy.routing.router import SWEEP_S, MethodStats, Waiting
from proxy.services import range_stream
from proxy.services.range_stream import Merging, RangeStream
from tests.unit.proxy.fakes import FakeCall, Request, hand_in
from tests.unit.proxy.served import Served
from tests.unit.proxy.services.test_shares import TOO_MANY, Connection

PART = rpc_pb2.RangeResponse(kvs=[{"key": b"a1", "value": b"v" * 100_000}]).SerializeToString()


def credits_of(served: Served) -> list[Request]:
    """What the node was told of answers; of what was read from the link it is told besides."""
    requests = served.node.take()
    assert {request.method for request in requests} <= {Method.CREDIT}
    return [request for request in requests if request.rid]


def test_a_client_that_does_not_read_gets_its_backlog_and_nothing_more_is_asked_for() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    call.reads = False
    credited = sent = 0
    for _ in range(40):  # more than a node would send
        served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + PART)
        sent += HEAD.size + len(PART)
        served.net.run()
        for credit in credits_of(served):
            credited = int.from_bytes(credit.body, "little")
    assert BACKLOG_BYTES / 2 < credited <= BACKLOG_BYTES + 2 * len(PART)
    call.read_all()
    served.net.run()
    (credit,) = credits_of(served)
    assert int.from_bytes(credit.body, "little") == sent


def test_a_client_that_takes_its_time_is_waited_for() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + PART)
    served.net.pass_time(60)
    assert call.status is None
    served.node.answer(request.rid, Status.OK, HEAD.pack(9, 1))
    served.net.run()
    assert call.status == (0, "")


def test_a_link_that_breaks_in_the_midst_ends_the_stream_instead_of_beginning_it_again() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + PART)
    served.net.run()
    assert served.node.link is not None
    served.node.link.close("broken")
    served.net.run()
    assert call.status is not None
    assert call.status[0] == errors.TIMEOUT_DUE_TO_LEADER_FAIL.code
    assert len(call.replies) == 1


def test_a_sign_that_a_node_goes_on_is_nothing_of_an_answer() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    for _ in range(4):  # it only counts so far
        served.net.pass_time(5)
        served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1))
        served.net.run()
    assert (call.status, call.replies) == (None, [])
    served.node.answer(request.rid, Status.OK, HEAD.pack(9, 1))
    served.net.run()
    assert (call.status, len(call.replies)) == ((0, ""), 1)


def test_a_stream_over_shards_whose_link_breaks_begins_again_unless_its_client_has_seen_some_of_it() -> None:
    lost = EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL)
    shards, questions = Shards(2), []  # type: ignore[var-annotated]
    call, _ = merging(shards)
    call.unread = 2 * BACKLOG_BYTES  # of what it has asked for before
    shards.answer(0, Status.PARTIAL, tail([b"a", b"c"]))
    shards.answer(1, Status.PARTIAL, tail([b"b", b"d"]))
    shards.index = questions.append  # type: ignore[method-assign]
    shards.answer(0, Status.ERROR, lost.encode())
    call.read_all()
    assert (call.status, call.replies) == (None, []), "rows of the first time"
    Shards.index(shards, questions.pop())
    assert shards.cancelled == [1]
    shards.answer(0, Status.PARTIAL, tail([b"a", b"c"]))
    shards.answer(1, Status.PARTIAL, tail([b"b", b"d"]))
    assert len(call.replies) == 1
    shards.answer(0, Status.ERROR, lost.encode())
    assert call.status == (lost.code, lost.text)


def test_a_client_that_goes_is_forgotten_at_the_node_at_once() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + PART)
    served.net.run()
    call.closed = True
    served.methods.handlers["RangeStream"].cancelled(call)
    served.net.run()
    assert [(r.method, r.rid) for r in served.node.take()] == [(Method.CANCEL, request.rid)]


class Streaming:
    """A front of which connections have two streams at once. ``asked``: keys of which a node was asked."""

    def __init__(self, most: int = 2) -> None:
        self.served = Served()
        context = self.served.net.context
        context.settings = replace(context.settings, max_connection_range_streams=most)
        self.handler = RangeStream(context)

    def ask(self, connection: Connection, key: bytes) -> FakeCall:
        call = connection.call()
        request = rpc_pb2.RangeRequest(key=key, serializable=True)
        hand_in(self.handler, call, request.SerializeToString())
        return call

    def sweep(self, seconds: float = SWEEP_S) -> None:
        self.served.net.pass_time(seconds)

    @property
    def asked(self) -> list[bytes]:
        self.served.net.run()
        return [rpc_pb2.RangeRequest.FromString(request.body[READ.size :]).key
                for request in self.served.node.take(Method.RANGE_STREAM)]

    @staticmethod
    def end(call: FakeCall) -> None:
        del call.connection.streams[call.id]


def test_streams_beyond_a_connections_share_wait_in_turn() -> None:
    """They were refused, where as many Ranges wait."""
    front, one, other = Streaming(), Connection(), Connection("10.0.0.2:5000")
    calls = [front.ask(one, b"%d" % i) for i in range(5)]
    front.ask(other, b"other")
    assert front.asked == [b"0", b"1", b"other"]
    assert set(one.unanswered) == set(calls[2:]), "what waits counts as a request without an answer"
    front.end(calls[0])
    late = front.ask(one, b"late")
    front.sweep()
    assert front.asked == [b"2"], "none that comes later overtakes"
    front.end(calls[1])
    front.end(calls[2])
    front.sweep()
    assert front.asked == [b"3", b"4"]
    assert set(one.unanswered) == {late}
    assert {call.status for call in calls} == {None}


def test_a_stream_that_waits_too_long_is_refused_and_one_whose_client_has_gone_is_forgotten() -> None:
    front, one = Streaming(), Connection()
    calls = [front.ask(one, b"%d" % i) for i in range(5)]
    assert front.asked == [b"0", b"1"]
    calls[3].closed = True
    front.handler.cancelled(calls[3])
    front.sweep(front.served.net.router.limit_s + 2 * SWEEP_S)
    assert calls[2].status == calls[4].status == TOO_MANY
    assert calls[3].status is None
    front.end(calls[0])
    front.end(calls[1])
    front.ask(one, b"next")
    assert front.asked == [b"next"], "nothing waits any more"


def test_where_connections_may_have_no_stream_none_waits() -> None:
    assert Streaming(0).ask(Connection(), b"k").status == TOO_MANY


def test_a_mistake_in_a_stream_that_waited_ends_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    front, one, found = Streaming(1), Connection(), list[BaseException]()
    first, second = front.ask(one, b"0"), front.ask(one, b"1")

    def fault(error: BaseException) -> None:
        found.append(error)
        second.closed = True
        front.handler.cancelled(second)  # as a call does

    second.fault = fault  # type: ignore[attr-defined]
    monkeypatch.setattr(range_stream, "shards_shown", lambda *args: {}["none"])
    front.end(first)
    front.sweep()
    assert [type(error) for error in found] == [KeyError]


class Shards:
    """A router whose replicas answer as the test says."""

    def __init__(self, shards: int) -> None:
        self.loop = SimpleNamespace(time=lambda: 0.0)
        self.limit_s = 7.0
        self.draining = False
        self.quiet = MethodStats()
        self.routes = [SimpleNamespace(replica=SimpleNamespace(revision=9), term=2) for _ in range(shards)]
        self.recent = SimpleNamespace(when_caught_up=lambda shards, then: then())
        self.asked: dict[int, Waiting] = {}
        self.prefixes: list[tuple[int, int]] = []
        self.credits: dict[int, int] = {}
        self.cancelled: list[int] = []

    def index(self, then: Any) -> None:
        waiting = Waiting(None, Method.READ_INDEX, b"", 0, 1, 0.0, 7.0, self.quiet).calls(then)
        then(waiting, Status.OK, READ_INDEX_ANSWER.pack(5, 9, 2))

    def to_replica(self, waiting: Waiting) -> None:
        self.asked[waiting.shard] = waiting
        self.prefixes.append(READ.unpack(waiting.prefix))

    def credit(self, waiting: Waiting, size: int) -> None:
        assert self.asked[waiting.shard] is waiting
        self.credits[waiting.shard] = size

    def cancel(self, waiting: Waiting) -> None:
        self.cancelled.append(waiting.shard)

    def header(self, revision: int, term: int) -> bytes:
        header = rpc_pb2.ResponseHeader(revision=revision, raft_term=term).SerializeToString()
        return b"\x0a" + bytes((len(header),)) + header

    def answer(self, shard: int, status: int, body: bytes) -> None:
        waiting = self.asked[shard]
        assert waiting.then is not None
        waiting.then(waiting, status, body)


def merging(shards: Shards, **fields: Any) -> tuple[FakeCall, Merging]:
    call = FakeCall()
    unjudged = SimpleNamespace(permissions=SimpleNamespace(ask=lambda *question, local: False))
    context: Any = SimpleNamespace(
        router=shards, hub=unjudged, refuse=lambda call, stats, error: call.finish(error.code, error.text),
        given_up=lambda call, stats: call.closed,
        placement=SimpleNamespace(shards_at=lambda key, range_end, revision: range(len(shards.routes))))
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", **fields)
    stream = Merging(context, call, MethodStats(), request)
    call.on_drain = stream.pump
    return call, stream


def tail(rows: list[bytes], value: bytes = b"v", count: int = 0) -> bytes:
    read = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), sized=True)
    read.feed((key, key_value(key, 2, 2, 1, value, 0)) for key in rows)
    if count:
        read.add_count(count - read.count)
        read.end()
    return b"".join([HEAD.pack(9, 2), *read.take_sized()])


def answered(call: FakeCall) -> tuple[list[bytes], Any]:
    parts = [rpc_pb2.RangeStreamResponse.FromString(r).range_response for r in call.replies]
    return [kv.key for part in parts for kv in part.kvs], parts[-1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=12), min_size=2, max_size=4), st.integers(0, 9),
       st.integers(), st.booleans())
def test_rows_of_all_shards_come_in_key_order_however_their_parts_arrive(
    drawn: list[list[bytes]], limit: int, seed: int, serializable: bool,
) -> None:
    taken: set[bytes] = set()
    rows: list[list[bytes]] = []
    for keys in drawn:
        rows.append(sorted(set(keys) - taken))
        taken |= set(keys)
    shards = Shards(len(rows))
    call, _ = merging(shards, limit=limit, serializable=serializable)
    left = {s: (r[:limit] if limit else r)[:] for s, r in enumerate(rows)}
    rng = random.Random(seed)
    while left:
        shard = rng.choice(list(left))
        size = rng.randint(1, 4)
        part, left[shard] = left[shard][:size], left[shard][size:]
        if left[shard]:
            shards.answer(shard, Status.PARTIAL, tail(part))
        else:
            del left[shard]
            shards.answer(shard, Status.OK, tail(part, count=len(rows[shard])))
    everything = sorted(taken)
    keys, last = answered(call)
    assert keys == (everything[:limit] if limit else everything)
    assert (last.count, last.more) == (len(everything), bool(limit and limit < len(everything)))
    assert (last.header.revision, last.header.raft_term) == (9, 2)
    assert call.status == (0, "")
    assert set(shards.prefixes) == {(0 if serializable else 5, 9)}


def test_a_shard_that_is_ahead_is_not_asked_for_more_until_its_rows_can_go() -> None:
    shards = Shards(2)
    call, _ = merging(shards)
    big = b"v" * 300_000
    for i in range(4):
        shards.answer(0, Status.PARTIAL, tail([b"b%d" % i], big))
    assert shards.credits == {}
    assert call.replies == []
    shards.answer(1, Status.PARTIAL, tail([b"a"]))
    shards.answer(1, Status.OK, tail([b"c"], count=2))
    assert answered(call)[0] == [b"a", b"b0", b"b1", b"b2", b"b3"]
    assert shards.credits[0] > 1_200_000
    call.reads = False
    for i in range(4, 20):
        shards.answer(0, Status.PARTIAL, tail([b"b%02d" % i], big))
    assert len(call.replies) < 12
    credited = shards.credits[0]
    call.read_all()
    assert shards.credits[0] > credited


@pytest.mark.parametrize("begun", [False, True])
def test_h16_a_compaction_starts_it_over_only_before_the_client_has_seen_a_row(begun: bool) -> None:
    shards = Shards(2)
    call, _ = merging(shards)
    shards.answer(0, Status.PARTIAL, tail([b"a"]))
    if begun:
        shards.answer(1, Status.PARTIAL, tail([b"b"]))
    before = dict(shards.asked)
    shards.answer(1, Status.ERROR, EtcdError(errors.COMPACTED).encode())
    if begun:
        assert call.status == (11, "etcdserver: mvcc: required revision has been compacted")
        assert shards.cancelled
        return
    assert shards.asked[0] is not before[0]
    assert shards.cancelled == [0]
    late = before[0]
    assert late.then is not None
    late.then(late, Status.PARTIAL, tail([b"z"]))  # of the attempt that was given up
    assert shards.cancelled == [0, 0]
    shards.answer(0, Status.OK, tail([b"a"], count=1))
    shards.answer(1, Status.OK, tail([b"b"], count=1))
    assert answered(call)[0] == [b"a", b"b"]


def test_a_client_that_goes_is_forgotten_at_every_shard() -> None:
    shards = Shards(3)
    call, stream = merging(shards)
    for shard in (0, 2):
        shards.answer(shard, Status.PARTIAL, tail([b"%d" % shard]))
    call.closed = True
    stream.cancel()
    assert shards.cancelled == [0, 1, 2]
    shards.answer(1, Status.PARTIAL, tail([b"1"]))
    assert shards.cancelled == [0, 1, 2, 1]  # a piece that was on its way, or it is sent only now
