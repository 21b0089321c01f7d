"""Lock and Election over fake nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import INTERNAL_FAULT, NO_LEADER, STOPPED
from cluster.faults import faults
from cluster.pb import election_pb2, kv_pb2, lock_pb2, rpc_pb2
from cluster.wire.messages import Method
from proxy.grpc.registry import Registry
from proxy.services.concurrency.session import _Deletes
from proxy.services.table import register_all
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.watch.watching import World

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
        net, call = self.world.net, self.begin(path, request)
        (txn,) = net.nodes[2].take(Method.TXN)
        put = rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse())
        first = rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse(kvs=[FIRST], count=2))
        queued = rpc_pb2.TxnResponse(succeeded=True, responses=[put, first])
        net.nodes[2].ok(txn, 0, queued.SerializeToString())
        self.read(FIRST)
        self.world.settle()
        return call

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


def test_a_mistake_in_an_answer_to_a_client_that_has_gone_is_counted() -> None:
    queue = Queue()
    node = queue.world.net.nodes[2]
    call = queue.begin("/v3lockpb.Lock/Lock", lock_pb2.LockRequest(name=b"n", lease=7))
    (txn,) = node.take(Method.TXN)
    call.closed = True
    assert call.on_cancel is not None
    call.on_cancel(call)
    node.ok(txn, 0, b"\xff")
    queue.world.net.run()
    assert call.status is None
    assert [where for where, _ in faults.take()] == ["answering /etcdserverpb.KV/Txn"]
