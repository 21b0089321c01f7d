"""A hash of a large store takes longer than other requests may."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from cluster import errors
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.routing.overdue import HASH_LIMIT_S
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods


def asked(method: str, shards: int) -> tuple[Net, FakeCall]:
    net = Net(shards=shards)
    net.started()
    for shard in range(shards):
        net.every[shard, 1].watermark(9)
    net.run()
    methods = Methods()
    register_all(methods, net.context)
    call = FakeCall()
    request: Message = pb.HashKVRequest() if method == "HashKV" else pb.HashRequest()
    methods.handlers[method](call, request.SerializeToString())
    net.pass_time(net.router.limit_s + 1)
    return net, call


HASHES = pytest.mark.parametrize(("method", "shards"), [("Hash", 1), ("HashKV", 1), ("HashKV", 2)])


@HASHES
def test_it_goes_on_while_its_client_waits(method: str, shards: int) -> None:
    net, call = asked(method, shards)
    for shard in range(shards):
        node = net.every[shard, 1]
        (request,) = [r for r in node.take() if r.method in (Method.HASH, Method.HASH_KV)]
        tail = pb.HashKVResponse(hash=7, compact_revision=-1, hash_revision=9).SerializeToString()
        node.ok(request, 9, tail)
    net.run()
    assert call.status == (0, "")


@HASHES
def test_it_is_cancelled_once_its_client_is_gone(method: str, shards: int) -> None:
    net, call = asked(method, shards)
    call.closed = True
    net.pass_time(0.2)
    for shard in range(shards):
        assert net.every[shard, 1].take(Method.CANCEL)
        assert not any(link.pending for link in net.router.routes[shard].links.values())


def test_it_ends_at_last() -> None:
    net, call = asked("HashKV", 1)
    net.loop.now += HASH_LIMIT_S
    net.router.sweep()
    assert call.status == (errors.TIMEOUT.code, errors.TIMEOUT.text)
