"""Lock and Election over fake nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pb import election_pb2, kv_pb2, lock_pb2, rpc_pb2
from cluster.wire.messages import Method
from proxy.grpc.registry import Registry
from proxy.services.table import register_all
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.watch.watching import World

FIRST = kv_pb2.KeyValue(key=b"n/6", create_revision=4, mod_revision=4, version=1)


class Queue:
    """A front at which a key stands before each client's."""

    def __init__(self) -> None:
        self.world = World()
        self.registry = Registry()
        register_all(self.registry, self.world.net.context)

    def stand(self, path: str, request: Any) -> FakeCall:
        net, call = self.world.net, FakeCall()
        handler = self.registry.served(path)
        assert callable(handler)
        handler(call, request.SerializeToString())
        net.run()
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
