"""Lock and Election over fake nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import CONTEXT_CANCELED, INTERNAL_FAULT, NO_LEADER, STOPPED, TIMEOUT, EtcdError
from cluster.faults import faults
from cluster.pb import election_pb2, kv_pb2, lock_pb2, rpc_pb2
from cluster.wire.messages import Method, Status
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames
from proxy.http.memory import STEP_BYTES, STREAM_BYTES
from proxy.services.concurrency.session import _Deletes
from proxy.services.table import register_all
from tests.garbage import no_garbage
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.grpc.test_memory import upload
from tests.unit.proxy.fakes import FakeCall, FakeNode, Request
from tests.unit.proxy.watch.watching import World

PIECE = 80_000
FIRST = kv_pb2.KeyValue(key=b"n/6", create_revision=4, mod_revision=4, version=1)


class Queue:
    """A front at which a key stands before each client's."""

    def __init__(self) -> None:
        self.world = World()
        self.metadata: dict[bytes, bytes] = {}  # of each call
        self.registry = Registry()
        register_all(self.registry, self.world.net.context)

    def begin(self, path: str, request: Any) -> FakeCall:
        call, handler = FakeCall(self.metadata), self.registry.served(path)
        assert callable(handler)
        handler(call, request.SerializeToString())
        self.world.net.run()
        return call

    def stand(self, path: str, request: Any) -> FakeCall:
        call = self.begin(path, request)
        self.stood()
        return call

    def stood(self) -> None:
        """Whoever has begun waits for the first key."""
        net = self.world.net
        (txn,) = net.nodes[2].take(Method.TXN)
        put = rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse())
        first = rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse(kvs=[FIRST], count=2))
        queued = rpc_pb2.TxnResponse(succeeded=True, responses=[put, first])
        net.nodes[2].ok(txn, 0, queued.SerializeToString())
        self.read(FIRST)
        self.world.settle()

    def read(self, *kvs: kv_pb2.KeyValue) -> None:
        """Every range finds these."""
        net = self.world.net
        net.run()
        for index in net.nodes[2].take(Method.READ_INDEX):
            net.nodes[2].index(index, 1)
        net.run()
        for asked in net.nodes[1].take(Method.RANGE):
            found = rpc_pb2.RangeResponse(kvs=kvs, count=len(kvs))
            net.nodes[1].ok(asked, 0, found.SerializeToString())
        net.run()

    def leave(self, call: FakeCall) -> None:
        call.closed = True
        assert call.on_cancel is not None
        call.on_cancel(call)
        node = self.world.net.nodes[2]
        self.world.net.run()
        for request in node.take(Method.DELETE_RANGE) + node.take(Method.TXN):
            node.ok(request, 0)
        self.world.settle()


@pytest.mark.parametrize(("path", "request_"), [
    ("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7)),
    ("/v3electionpb.Election/Campaign", election_pb2.CampaignRequest(name=b"n", lease=7)),
])
def test_nothing_of_who_has_waited_is_left_to_the_garbage_collector(path: str, request_: Any) -> None:
    queue = Queue()
    hub = queue.world.net.context.hub
    with no_garbage("proxy"):
        call = queue.stand(path, request_)
        assert hub.statistics()["watches"] == 1
        queue.leave(call)
        assert hub.statistics()["watches"] == 0
        assert call.on_cancel is None
        call = queue.stand(path, request_)
        queue.world.sources[1].apply(queue.world.store.write((1, b"n/6")))
        queue.read()
        queue.read(FIRST)  # of Lock: the own key
        queue.world.settle()
        assert call.status == (0, "")
        assert hub.statistics()["watches"] == 0
        del call


@pytest.mark.parametrize(("path", "request_", "kept"), [
    ("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=bytes(PIECE), lease=7), PIECE),
    ("/v3electionpb.Election/Campaign", election_pb2.CampaignRequest(name=b"n", lease=7, value=bytes(PIECE)),
     1),
    ("/v3electionpb.Election/Observe", election_pb2.LeaderRequest(name=bytes(PIECE)), PIECE),
])
def test_who_waits_for_others_keeps_nothing_of_the_window(path: str, request_: Any, kept: int) -> None:
    """Candidates kept all of it, for as long as another led: no keep-alive nor Resign got through. What they
    keep of the memory counts: without a bound, names of 1 MB took a front gigabytes."""
    queue = Queue()
    talk = Talk(queue.registry)
    body = request_.SerializeToString()
    talk.headers(1, path=path)
    upload(talk, 1, message(body))
    queue.world.net.run()
    if "Observe" in path:
        queue.read(FIRST)
        queue.world.settle()
    else:
        assert talk.server.unanswered == len(body)
        queue.stood()
    assert talk.server.unanswered == 0
    assert kept <= talk.server.waiting <= kept + 1
    talk.server.recount()
    assert abs(talk.server.counted - talk.server.waiting) < STREAM_BYTES + STEP_BYTES
    talk.server.lost()
    queue.world.settle()
    assert talk.server.unanswered == talk.server.waiting == 0


@pytest.mark.parametrize("ended", ["answered", "reset", "expired", "failed"])
def test_what_a_waiting_request_counted_for_is_free_at_its_end(ended: str) -> None:
    queue = Queue()
    talk = Talk(queue.registry)
    body = lock_pb2.LockRequest(name=bytes(PIECE), lease=7).SerializeToString()
    talk.headers(1, path="/v3lockpb.Lock/Lock")
    upload(talk, 1, message(body))
    queue.world.net.run()
    queue.stood()
    call: Any = talk.server.streams[1]
    assert talk.server.waiting > 0
    if ended == "answered":
        call.reply(b"")
    elif ended == "reset":
        talk.server.receive(frames.rst_stream(1, 8), 100.0)
    elif ended == "expired":
        call.expired()
    else:
        call.finish(8, "no")
    queue.world.settle()
    assert (talk.server.unanswered, talk.server.waiting, call.held) == (0, 0, 0)


def test_what_a_waiting_client_has_called_counts_as_no_clients_call() -> None:
    queue = Queue()
    queue.stand("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7))
    stats = queue.world.net.context.stats
    for types, calls in ((("unary", "bidi_stream"), 0), (("inner", "inner"), 1)):
        assert stats[types[0], "etcdserverpb.KV", "Txn"].ok == calls
        assert stats[types[0], "etcdserverpb.KV", "Range"].ok == calls
        watch = stats[types[1], "etcdserverpb.Watch", "Watch"]
        assert (watch.started, watch.received, watch.sent) == (calls,) * 3
    queue.world.net.context.stop()
    assert watch.codes == {STOPPED.code: 1}


@pytest.mark.parametrize("said", [b"true", b"true,false"])
def test_without_a_leader_an_observer_with_hasleader_ends_and_a_waiting_lock_stays(said: bytes) -> None:
    queue = Queue()
    queue.metadata = {b"hasleader": said}
    waits = queue.stand("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7))
    observes, gone = (
        queue.begin("/v3electionpb.Election/Observe", election_pb2.LeaderRequest(name=b"n")) for _ in range(2)
    )
    queue.read(FIRST)
    queue.leave(gone)
    context = queue.world.net.context
    assert list(context.guarded) == [observes]
    for node in queue.world.net.nodes.values():
        node.leader = 0
    queue.world.net.pass_time(3.5)
    assert (observes.status, waits.status) == ((NO_LEADER.code, NO_LEADER.text), None)
    assert context.guarded == {}


def mistaken(*args: Any) -> None:
    raise KeyError("a mistake")


@pytest.mark.parametrize("answer", [rpc_pb2.TxnResponse(succeeded=True).SerializeToString(), b"\xff"])
def test_a_mistake_in_taking_an_inner_answer_ends_the_call_that_asked(answer: bytes) -> None:
    queue = Queue()
    node, stats = queue.world.net.nodes[2], queue.world.net.context.stats["unary", "v3lockpb.Lock", "Lock"]
    with no_garbage("proxy"):
        call = queue.begin("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7))
        (txn,) = node.take(Method.TXN)
        node.ok(txn, 0, answer)  # it lacks what was asked, or is no message
        queue.world.net.run()
        assert call.status == (INTERNAL_FAULT.code, INTERNAL_FAULT.text)
        assert call.on_cancel is None
        del call
    assert stats.codes == {INTERNAL_FAULT.code: 1}
    assert [where for where, _ in faults.take()] == ["answering /etcdserverpb.KV/Txn"]


def test_a_mistake_in_taking_an_inner_read_ends_the_call_that_asked() -> None:
    queue, before = Queue(), faults.count
    call = queue.begin("/v3electionpb.Election/Leader", election_pb2.LeaderRequest(name=b"n"))
    net = queue.world.net
    for index in net.nodes[2].take(Method.READ_INDEX):
        net.nodes[2].index(index, 1)
    net.run()
    (asked,) = net.nodes[1].take(Method.RANGE)
    net.nodes[1].ok(asked, 0, b"\xff")
    net.run()
    assert call.status == (INTERNAL_FAULT.code, INTERNAL_FAULT.text)
    assert faults.count == before + 1
    assert [where for where, _ in faults.take()] == ["answering /etcdserverpb.KV/Range"]


def test_a_mistake_in_taking_an_inner_event_ends_the_call_and_leaves_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = Queue()
    net = queue.world.net
    call = queue.stand("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7))
    monkeypatch.setattr(_Deletes, "look", mistaken)
    queue.world.sources[1].apply(queue.world.store.write((1, b"n/6")))
    net.run()
    assert call.status == (INTERNAL_FAULT.code, INTERNAL_FAULT.text)
    assert [where for where, _ in faults.take()] == ["answering /etcdserverpb.Watch/Watch"]
    (given_up,) = net.nodes[2].take(Method.DELETE_RANGE)
    assert b"n/7" in given_up.body
    assert net.context.hub.statistics()["watches"] == 0


LOCK, CAMPAIGN = "/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"
OWN = kv_pb2.KeyValue(key=b"n/7", create_revision=5, mod_revision=5, version=1, lease=7)
WRITES = (Method.TXN, Method.DELETE_RANGE, Method.LEASE_GRANT, Method.LEASE_REVOKE)


def wanted(path: str, lease: int) -> Any:
    kind = lock_pb2.LockRequest if path == LOCK else election_pb2.CampaignRequest
    return kind(name=b"n", lease=lease)


def told(path: str, succeeded: bool, first: kv_pb2.KeyValue = OWN) -> bytes:
    """The answer of the transaction that puts the own key, or finds it."""
    own = rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse(kvs=[OWN], count=1))
    holder = rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse(kvs=[first], count=1))
    put = rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse())
    answers = [put if succeeded else own, *([holder] if path == LOCK else [])]
    return rpc_pb2.TxnResponse(succeeded=succeeded, responses=answers).SerializeToString()


def sent(queue: Queue) -> list[tuple[Method, bytes]]:
    """The writes that have come to the leader."""
    queue.world.net.run()
    return [(method, request.body) for method in WRITES for request in queue.world.net.nodes[2].take(method)]


def cancel(call: FakeCall) -> None:
    call.closed = True
    assert call.on_cancel is not None
    call.on_cancel(call)


@pytest.mark.parametrize(("left_s", "code"), [(None, 1), (5.0, 1), (0.0, 4)])
@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_what_ends_a_wait_is_counted(path: str, left_s: float | None, code: int) -> None:
    """Its client, or its deadline."""
    queue = Queue()
    call = queue.stand(path, wanted(path, 7))
    call.deadline = None if left_s is None else queue.world.net.loop.now + left_s
    queue.leave(call)
    context = queue.world.net.context
    (stats,) = [stats for (_, _, name), stats in context.stats.items() if name == path.rpartition("/")[2]]
    assert (stats.started, stats.ok, stats.codes) == (1, 0, {code: 1})


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_a_key_that_the_clients_next_call_took_over_stays(path: str) -> None:
    queue = Queue()
    node = queue.world.net.nodes[2]
    gone = queue.begin(path, wanted(path, 7))
    (first,) = node.take(Method.TXN)
    cancel(gone)
    call = queue.begin(path, wanted(path, 7))
    (second,) = node.take(Method.TXN)
    node.ok(first, 0, told(path, True))
    node.ok(second, 0, told(path, False))
    queue.world.net.run()
    if path == CAMPAIGN:
        queue.read()  # nobody stood before it
    assert call.status == (0, "")
    assert sent(queue) == []


def granted(queue: Queue, path: str) -> tuple[FakeCall, Request]:
    """A call that gets a lease of its own, and its transaction."""
    node = queue.world.net.nodes[2]
    call = queue.begin(path, wanted(path, 0))
    (grant,) = node.take(Method.LEASE_GRANT)
    node.ok(grant, 0, rpc_pb2.LeaseGrantResponse(ID=7, TTL=60).SerializeToString())
    queue.world.net.run()
    (txn,) = node.take(Method.TXN)
    return call, txn


def asked_before(queue: Queue, txn: Request, path: str) -> Request:
    """The read of who stands before the own key, once that is put."""
    net = queue.world.net
    net.nodes[2].ok(txn, 0, told(path, True, FIRST))
    net.run()
    for index in net.nodes[2].take(Method.READ_INDEX):
        net.nodes[2].index(index, 1)
    net.run()
    (asked,) = net.nodes[1].take(Method.RANGE)
    return asked


def refuse(node: FakeNode, request: Request) -> None:
    node.answer(request.rid, Status.ERROR, EtcdError(TIMEOUT).encode())


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
@pytest.mark.parametrize(
    "end", ["gone", "gone as it waits", "stop", "refused", "refused a read", "a mistake"])
def test_a_lease_that_an_unanswered_call_was_granted_is_revoked(path: str, end: str) -> None:
    queue = Queue()
    net = queue.world.net
    call, txn = granted(queue, path)
    if end in ("gone as it waits", "stop"):
        found = rpc_pb2.RangeResponse(kvs=[FIRST], count=1)
        net.nodes[1].ok(asked_before(queue, txn, path), 0, found.SerializeToString())
        queue.world.settle()
    if end.startswith("gone"):
        cancel(call)
    elif end == "stop":
        net.context.stop()
    elif end == "refused":
        refuse(net.nodes[2], txn)
    elif end == "a mistake":
        net.nodes[2].ok(txn, 0, b"\xff")
    else:
        refuse(net.nodes[1], asked_before(queue, txn, path))
        net.run()
        for deleted in net.nodes[2].take(Method.DELETE_RANGE):
            net.nodes[2].ok(deleted, 0)
    net.run()
    (revoke,) = net.nodes[2].take(Method.LEASE_REVOKE)
    assert revoke.body == rpc_pb2.LeaseRevokeRequest(ID=7).SerializeToString()
    assert call.closed == (end != "stop")
    net.nodes[2].ok(revoke, 0)
    assert sent(queue) == []
    assert call.closed
    assert len(faults.take()) == (end == "a mistake")


def test_an_answered_calls_own_lease_stays() -> None:
    queue = Queue()
    call, txn = granted(queue, LOCK)
    queue.world.net.nodes[2].ok(txn, 5, told(LOCK, True))
    assert sent(queue) == []
    assert call.status == (0, "")


@pytest.mark.parametrize(("path", "request_"), [
    (LOCK, wanted(LOCK, 7)),
    (LOCK, wanted(LOCK, 0)),
    ("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=b"n/7")),
    (CAMPAIGN, wanted(CAMPAIGN, 7)),
    ("/v3electionpb.Election/Proclaim", election_pb2.ProclaimRequest(leader={"key": b"n/7", "lease": 7})),
    ("/v3electionpb.Election/Resign", election_pb2.ResignRequest(leader={"key": b"n/7", "lease": 7})),
])
def test_what_waits_for_a_leader_is_not_sent_once_its_client_has_gone(path: str, request_: Any) -> None:
    queue = Queue()
    net = queue.world.net
    for node in net.nodes.values():
        node.leader = 0
    net.pass_time(0.5)
    call = queue.begin(path, request_)
    cancel(call)
    net.pass_time(0.5)
    assert net.context.router.statistics()["queued"] == 0
    for node in net.nodes.values():
        node.leader, node.term = 2, 2
    net.pass_time(0.5)
    assert sent(queue) == []
    stats = [stats for (kind, _, _), stats in net.context.stats.items() if kind == "inner"]
    assert [(one.started, one.codes) for one in stats if one.started] == [(1, {CONTEXT_CANCELED.code: 1})]


def test_a_lock_that_fails_as_it_waits_is_answered_once_its_key_is_gone() -> None:
    """A client that tries again under its lease would take over the key."""
    queue = Queue()
    net = queue.world.net
    call = queue.begin(LOCK, wanted(LOCK, 7))
    (txn,) = net.nodes[2].take(Method.TXN)
    refuse(net.nodes[1], asked_before(queue, txn, LOCK))
    net.run()
    assert call.status is None
    (deleted,) = net.nodes[2].take(Method.DELETE_RANGE)
    net.nodes[2].ok(deleted, 0)
    net.run()
    assert call.status == (2, TIMEOUT.text)


def test_a_campaign_that_gives_up_its_new_value_leaves_the_key_to_the_clients_next_call() -> None:
    queue = Queue()
    node = queue.world.net.nodes[2]
    call = queue.begin(CAMPAIGN, election_pb2.CampaignRequest(name=b"n", lease=7, value=b"new"))
    (txn,) = node.take(Method.TXN)
    node.ok(txn, 0, told(CAMPAIGN, False))
    queue.world.net.run()
    (renames,) = node.take(Method.TXN)
    assert b"new" in renames.body
    cancel(call)
    assert sent(queue) == []


def test_an_answer_to_a_client_that_has_gone_is_not_looked_at() -> None:
    queue = Queue()
    node, before = queue.world.net.nodes[2], faults.count
    call = queue.begin(LOCK, wanted(LOCK, 7))
    (txn,) = node.take(Method.TXN)
    cancel(call)
    node.ok(txn, 0, b"\xff")
    queue.world.net.run()
    assert (call.status, faults.count) == (None, before)
