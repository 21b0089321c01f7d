"""Read-only transactions over several shards are put together by the front, at one revision."""

from __future__ import annotations

import tracemalloc
from typing import Any

from cluster import errors
from cluster.evaluate import requests as evaluate
from cluster.evaluate.reading.ranges import plain_answer
from cluster.evaluate.steps import STEP_BYTES
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from cluster.wire.messages import HEAD, READ, Method, Status
from cluster.wire.protobuf import key_value
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods
from tests.unit.semantics.memory import MemoryShard

SHARDS = 3
PLACEMENT = Placement(SHARDS, 2)
KEYS = [
    next(key for key in (b"k%d" % i for i in range(100)) if PLACEMENT.shard_of(key) == shard)
    for shard in range(SHARDS)
]


def get(key: bytes, **more: Any) -> Any:
    return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key, **more))


def existed(key: bytes) -> Any:
    return rpc_pb2.Compare(
        key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.GREATER, create_revision=0
    )


def call_txn(net: Net, txn: Any) -> FakeCall:
    methods, call = Methods(), FakeCall(None)
    register_all(methods, net.context)
    methods.handlers["Txn"](call, txn.SerializeToString())
    net.run()
    return call


def test_all_keys_are_read_at_the_revision_of_one_read_index_and_the_answer_is_a_single_shards() -> None:
    net = Net(shards=SHARDS).started()
    store = MemoryShard()
    for key in KEYS[:2]:
        store.execute(Method.PUT, rpc_pb2.PutRequest(key=key, value=b"of " + key).SerializeToString())
    txn = rpc_pb2.TxnRequest(
        compare=[existed(KEYS[0]), existed(KEYS[1])], success=[get(KEYS[0]), get(KEYS[2]), get(KEYS[1])],
        failure=[get(KEYS[2])],
    )
    call = call_txn(net, txn)
    sequencer = net.nodes[1]
    (question,) = sequencer.take()
    assert question.method == Method.READ_INDEX
    sequencer.index(question, 9, store.revision)
    net.run()
    for shard, key in enumerate(KEYS):
        node = net.every[shard, 1]
        (read,) = node.take()
        assert read.method == Method.RANGE
        # applied that far, at exactly this revision
        assert READ.unpack_from(read.body) == (9, store.revision)
        assert rpc_pb2.RangeRequest.FromString(read.body[READ.size :]) == rpc_pb2.RangeRequest(key=key)
        node.ok(read, store.revision + 5, plain_answer(store.get(key)))  # it has applied more by now
        net.run()
    response = rpc_pb2.TxnResponse.FromString(call.replies[0])
    assert response.header.revision == store.revision
    response.ClearField("header")
    assert response.succeeded
    assert response.SerializeToString() == evaluate.txn(store, txn.SerializeToString(), 128).tail


def test_a_large_one_is_put_together_in_steps() -> None:
    """128 values of a megabyte held the loop, and all others' requests, for tenths of a second."""
    net = Net(shards=SHARDS).started()
    store, value = MemoryShard(), bytes(3 * STEP_BYTES)
    for key in KEYS:
        store.execute(Method.PUT, rpc_pb2.PutRequest(key=key, value=value).SerializeToString())
    same = rpc_pb2.Compare(key=KEYS[2], target=rpc_pb2.Compare.VALUE, value=value)
    txn = rpc_pb2.TxnRequest(compare=[existed(KEYS[0]), same], success=[get(key) for key in KEYS * 4])
    call = call_txn(net, txn)
    (question,) = net.nodes[1].take()
    net.nodes[1].index(question, 9, store.revision)
    net.run()
    for shard, key in enumerate(KEYS):
        node = net.every[shard, 1]
        (read,) = node.take()
        node.ok(read, store.revision, plain_answer(store.get(key)))
        node.flush(net.loop.now)
    turns = 0
    while not call.closed:
        turns += 1
        net.loop.turn()
    assert turns >= 4
    response = rpc_pb2.TxnResponse.FromString(call.replies[0])
    response.ClearField("header")
    assert response.SerializeToString() == evaluate.txn(store, txn.SerializeToString(), 128).tail


def test_answers_that_come_in_pieces_are_joined_in_steps() -> None:
    net = Net(shards=SHARDS).started()
    keys = [b"k%02d" % number for number in range(24)]
    value = bytes(STEP_BYTES)
    call = call_txn(net, rpc_pb2.TxnRequest(success=[get(key) for key in keys]))
    (question,) = net.nodes[1].take()
    net.nodes[1].index(question, 9, 9)
    net.run()
    asked = [(node, read) for node in net.every.values() for read in node.take(Method.RANGE)]
    for node, read in asked:
        node.flush(net.loop.now)
        key = rpc_pb2.RangeRequest.FromString(read.body[READ.size :]).key
        whole = plain_answer(key_value(key, 2, 2, 1, value, 0))
        node.answer(read.rid, Status.PARTIAL, HEAD.pack(9, 1) + whole[: len(whole) // 2])
        node.flush(net.loop.now)
        node.answer(read.rid, Status.OK, whole[len(whole) // 2 :])
    at_once = list[int]()  # bytes that are copied
    nodes = list(net.every.values())  # the last answer of each is still to come
    tracemalloc.start()
    try:
        while not call.closed:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            if nodes:
                nodes.pop().flush(net.loop.now)
            else:
                net.loop.turn()
            at_once.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert max(at_once[:-1]) < 6 * len(value), "in each turn some steps"
    response = rpc_pb2.TxnResponse.FromString(call.replies[0])
    assert [one.response_range.kvs[0].key for one in response.responses] == keys
    assert {one.response_range.kvs[0].value for one in response.responses} == {value}


def test_it_fails_once_if_several_parts_at_one_link_are_overdue() -> None:
    net = Net(shards=SHARDS).started()
    call = call_txn(net, rpc_pb2.TxnRequest(success=[get(b"k%02d" % number) for number in range(24)]))
    (question,) = net.nodes[1].take()
    net.nodes[1].index(question, 9, 9)
    net.run()
    assert max(len(node.take(Method.RANGE)) for node in net.every.values()) > 1
    net.pass_time(net.router.limit_s + 1)
    assert call.status is not None
    assert call.status[0] == errors.TIMEOUT.code
    assert not any(link.pending for route in net.router.routes.values() for link in route.links.values())


def test_a_large_one_whose_client_has_gone_goes_no_further() -> None:
    net = Net(shards=SHARDS).started()
    for (shard, _), node in net.every.items():
        node.watermark(5 + shard)
    net.run()
    call = call_txn(net, rpc_pb2.TxnRequest(success=[get(key, serializable=True) for key in KEYS]))
    for shard in range(SHARDS):
        node = net.every[shard, 1]
        (read,) = node.take()
        node.ok(read, 9, plain_answer(key_value(KEYS[shard], 2, 2, 1, bytes(STEP_BYTES), 0)))
        node.flush(net.loop.now)
    assert not call.closed
    call.closed = True
    net.run()
    assert not call.replies


def test_a_serializable_one_asks_nobody() -> None:
    net = Net(shards=SHARDS).started()
    for (shard, _), node in net.every.items():
        node.watermark(5 + shard)
    net.run()
    call_txn(net, rpc_pb2.TxnRequest(success=[get(key, serializable=True) for key in KEYS]))
    for shard in range(SHARDS):
        (read,) = net.every[shard, 1].take()
        assert READ.unpack_from(read.body) == (0, 5)  # the lowest that is applied


def test_writes_go_to_the_sequencer_and_what_names_a_revision_or_a_range_asks_it_for_a_read_index() -> None:
    put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=KEYS[0]))
    for last, method in ((put, Method.WIDE), (get(KEYS[0], revision=1), Method.READ_INDEX),
                         (get(KEYS[0], range_end=KEYS[0] + b"\0"), Method.READ_INDEX)):
        net = Net(shards=SHARDS).started()
        call_txn(net, rpc_pb2.TxnRequest(success=[get(KEYS[1]), get(KEYS[2]), last]))
        assert [r.method for r in net.nodes[1].take()] == [method]
