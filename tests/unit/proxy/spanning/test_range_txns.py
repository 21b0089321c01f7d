"""Read-only transactions over several shards that read or compare ranges: as one store's, at one revision."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.reading.ranges import RangeRead
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import HEAD, READ, Method, Status
from proxy.services.table import register_all
from proxy.spanning.range_txns import RangeTxn
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods
from tests.unit.semantics.memory import MemoryShard, read_all

SHARDS = 3
PLACEMENT = Placement(SHARDS, 2)
KEYS = [b"k%02d" % i for i in range(40)]
ORDER = 9


class Store:
    """A store of several shards, whose nodes answer out of one history."""

    def __init__(self) -> None:
        self.net = Net(shards=SHARDS).started()
        self.whole = MemoryShard()
        self.parts = [MemoryShard() for _ in range(SHARDS)]
        self.methods: list[int] = []
        self.asked_at: set[tuple[int, int]] = set()
        self.compacted_first = 0  # reads that meet a compaction

    def put(self, key: bytes, value: bytes) -> None:
        """At a revision of its own: the other shards skip it."""
        body = pb.PutRequest(key=key, value=value).SerializeToString()
        for shard, part in enumerate(self.parts):
            if shard == PLACEMENT.shard_of(key):
                part.execute(Method.PUT, body)
            else:
                part.revision += 1
        self.whole.execute(Method.PUT, body)

    def ask(self, txn: pb.TxnRequest) -> FakeCall:
        methods, call = Methods(), FakeCall(None)
        register_all(methods, self.net.context)
        methods.handlers["Txn"](call, txn.SerializeToString())
        for _ in range(200):
            self.net.run()
            if call.closed:
                break
            for (shard, _), node in self.net.every.items():
                for request in node.take():
                    self._answer(node, shard, request)
        return call

    def _answer(self, node: Any, shard: int, request: Any) -> None:
        self.methods.append(request.method)
        if request.method == Method.READ_INDEX:
            node.index(request, ORDER, self.whole.revision)
            return
        if request.method == Method.CANCEL:  # it is not on its way any more
            return
        index, revision = READ.unpack_from(request.body)
        body, part = request.body[READ.size :], self.parts[shard]
        self.asked_at.add((index, revision))
        if self.compacted_first:
            self.compacted_first -= 1
            node.answer(request.rid, Status.ERROR, EtcdError(evaluate.errors.COMPACTED).encode())
            return
        if request.method == Method.READ_TXN:
            assert revision in (0, part.revision) or not body  # 0: all of it is in this shard
            node.ok(request, part.revision, evaluate.txn(part, body, 128).tail)
            return
        asked = pb.RangeRequest.FromString(body)
        asked.revision = revision
        if request.method == Method.RANGE:
            node.ok(request, part.revision, read_all(part, RangeRead(asked)))
            return
        assert request.method == Method.RANGE_ROWS
        read = RangeRead(asked, sized=True)
        rows = part.scan(asked.key, asked.range_end, revision)
        if not read.empty:
            read.feed(rows)
            read.add_count(sum(1 for _ in rows))
        read.end()
        node.ok(request, part.revision, b"".join(read.take_sized()))


def said(store: Store, txn: pb.TxnRequest) -> Any:
    """What one store says of it."""
    try:
        return evaluate.txn(store.whole, txn.SerializeToString(), 128).tail
    except EtcdError as e:
        return e.code, e.text


def heard(store: Store, call: FakeCall) -> Any:
    if not call.replies:
        return call.status
    response = pb.TxnResponse.FromString(call.replies[0])
    assert response.header.revision == store.whole.revision
    response.ClearField("header")
    return response.SerializeToString()


def span(rng: random.Random) -> tuple[bytes, bytes]:
    start, end = sorted(rng.sample(KEYS, 2))
    return start, rng.choice((b"", end, end, b"\0", start))


def compare(rng: random.Random, revision: int) -> pb.Compare:
    key, end = span(rng)
    found = pb.Compare(key=key, range_end=end, result=rng.randrange(4), target=rng.randrange(4))  # type: ignore[arg-type]
    if found.target == pb.Compare.VALUE:
        found.value = b"5"
    elif found.target == pb.Compare.MOD:
        found.mod_revision = rng.randint(0, revision)
    elif found.target == pb.Compare.CREATE:
        found.create_revision = rng.randint(0, revision)
    else:
        found.version = rng.randrange(3)
    return found


def read(rng: random.Random, revision: int, serializable: bool) -> pb.RequestOp:
    key, end = span(rng)
    return pb.RequestOp(
        request_range=pb.RangeRequest(
            key=key,
            range_end=end,
            limit=rng.choice((0, 0, 1, 7)),
            count_only=rng.random() < 0.1,
            keys_only=rng.random() < 0.2,
            sort_order=rng.choice((0, 0, 0, 2)),
            sort_target=rng.choice((0, 0, 0, 3)),  # type: ignore[arg-type]  # numbers
            revision=rng.choice((0, 0, 0, 0, rng.randint(1, revision), revision + 1)),
            serializable=serializable,
        )
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_answer_is_a_single_stores(seed: int) -> None:
    rng = random.Random(seed)
    store = Store()
    for _ in range(30):
        store.put(rng.choice(KEYS), b"%d" % rng.randrange(10))
    txn = pb.TxnRequest(
        compare=[compare(rng, store.whole.revision) for _ in range(rng.choice((0, 0, 1, 1, 2)))],
        success=[read(rng, store.whole.revision, False) for _ in range(rng.choice((1, 2, 3)))],
        failure=[read(rng, store.whole.revision, False) for _ in range(rng.choice((0, 1, 2)))])
    assert heard(store, store.ask(txn)) == said(store, txn)
    if any(len(PLACEMENT.shards_of(c.key, c.range_end)) > 1 for c in txn.compare):
        assert Method.WIDE not in store.methods


ALL = pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"l"))


def test_nothing_is_asked_of_the_sequencer_but_a_read_index_and_all_is_read_at_its_revision() -> None:
    """315 bytes with 15 full ranges were locked, read and evaluated in one turn of the sequencer's: it lost
    its term."""
    store = Store()
    for key in KEYS:
        store.put(key, b"v")
    txn = pb.TxnRequest(
        compare=[pb.Compare(key=b"k", range_end=b"l", target=pb.Compare.VERSION, version=1)],
        success=[ALL] * 15,
    )
    assert heard(store, store.ask(txn)) == said(store, txn)
    assert set(store.methods) == {Method.READ_INDEX, Method.READ_TXN, Method.RANGE_ROWS}
    assert store.methods.count(Method.READ_INDEX) == 1
    assert store.asked_at == {(ORDER, store.whole.revision)}


def test_one_that_meets_a_compaction_starts_over() -> None:
    store = Store()
    for key in KEYS:
        store.put(key, b"v")
    store.compacted_first = 2
    assert heard(store, store.ask(pb.TxnRequest(success=[ALL, ALL]))) == said(
        store, pb.TxnRequest(success=[ALL, ALL])
    )
    assert store.methods.count(Method.READ_INDEX) > 1


@pytest.mark.parametrize("compacted", [0, SHARDS, 2 * SHARDS - 1])
def test_what_came_before_a_new_beginning_counts_no_longer(
    compacted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted until the answer, as memory of the connection and of the front that both have not. Other
    answers waited for that, or were refused."""
    store = Store()
    for key in KEYS:
        store.put(key, bytes(1000))
    came: list[int] = []  # sizes of parts
    plainly = store._answer

    def answer(node: Any, shard: int, request: Any) -> None:
        if request.method != Method.RANGE_ROWS or len(came) == compacted > 0:
            store.compacted_first = int(request.method == Method.RANGE_ROWS)
            came.extend([0] * store.compacted_first)
            plainly(node, shard, request)
            return
        part, asked = store.parts[shard], pb.RangeRequest.FromString(request.body[READ.size :])
        read = RangeRead(asked, sized=True)
        read.feed(part.scan(asked.key, asked.range_end))
        piece = HEAD.pack(part.revision, 1) + b"".join(read.take_sized())
        read.end()
        came.append(len(piece))
        node.answer(request.rid, Status.PARTIAL, piece)
        node.ok(request, part.revision, b"".join(read.take_sized()))

    monkeypatch.setattr(store, "_answer", answer)
    call = store.ask(pb.TxnRequest(success=[ALL, ALL]))
    response = pb.TxnResponse.FromString(call.replies[0])
    assert [len(one.response_range.kvs) for one in response.responses] == [len(KEYS)] * 2
    assert len(came) > 2 * SHARDS or not compacted
    assert call.gathered == sum(came[-2 * SHARDS :]) > 1000 * len(KEYS)


def test_a_serializable_one_is_read_at_a_revision_that_all_have_applied() -> None:
    store = Store()
    for key in KEYS:
        store.put(key, b"v")
    for (shard, _), node in store.net.every.items():
        node.watermark(store.whole.revision + shard)
    store.net.run()
    every = pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"l", serializable=True))
    call = store.ask(pb.TxnRequest(success=[every]))
    assert heard(store, call) == said(store, pb.TxnRequest(success=[every]))
    assert Method.READ_INDEX not in store.methods
    assert store.asked_at == {(0, store.whole.revision)}


@pytest.mark.parametrize("end", [b"", KEYS[1]])
@pytest.mark.parametrize("revision", [4, 5])
@pytest.mark.parametrize("taken", [True, False])
def test_a_serializable_one_shows_nothing_that_was_compacted_here(
    end: bytes, revision: int, taken: bool
) -> None:
    """As a range: the replica may be behind the compaction."""
    store = Store()
    for key in KEYS[:8]:
        store.put(key, b"v")
    for node in store.net.every.values():
        node.watermark(store.whole.revision)
    store.net.run()
    store.net.router.show_compaction(5)
    past = pb.RequestOp(request_range=pb.RangeRequest(
        key=KEYS[0], range_end=end, revision=revision, serializable=True))
    newest = pb.RequestOp(request_range=pb.RangeRequest(key=KEYS[0], serializable=True))
    there = pb.Compare(key=KEYS[0], target=pb.Compare.VERSION, version=1 if taken else 2)
    txn = pb.TxnRequest(compare=[there], success=[newest, past], failure=[newest])
    call = store.ask(txn)
    if taken and revision == 4:
        assert call.status == (errors.COMPACTED.code, errors.COMPACTED.text)
    else:
        assert heard(store, call) == said(store, txn)
    assert Method.READ_INDEX not in store.methods


def test_what_no_compaction_has_reached_is_asked_of_the_replica_at_once() -> None:
    """It may have more than its front knows: it says itself whether a revision is one of the future."""
    for compacted in (0, 5):
        store = Store()
        for key in KEYS[:8]:
            store.put(key, b"v")
        store.net.router.show_compaction(compacted)
        gets = [pb.RequestOp(request_range=pb.RangeRequest(
            key=KEYS[0], revision=revision, serializable=True)) for revision in (5, 9)]
        txn = pb.TxnRequest(success=gets)
        methods, call = Methods(), FakeCall(None)
        register_all(methods, store.net.context)
        methods.handlers["Txn"](call, txn.SerializeToString())
        store.net.run()
        (asked,) = [request for node in store.net.every.values() for request in node.take()]
        assert asked.method == Method.READ_TXN
        assert asked.body[READ.size :] == txn.SerializeToString()


def test_a_compaction_is_said_before_what_the_replica_has_not_reached() -> None:
    store = Store()
    for key in KEYS[:8]:
        store.put(key, b"v")
    for node in store.net.every.values():
        node.watermark(3)
    store.net.run()
    store.net.router.show_compaction(6)
    past = pb.RequestOp(request_range=pb.RangeRequest(key=KEYS[0], revision=5, serializable=True))
    assert store.ask(pb.TxnRequest(success=[past])).status == (errors.COMPACTED.code, errors.COMPACTED.text)


def test_each_branch_may_have_as_many_operations_as_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where users are enabled both were asked for in one, which its node refused as too many."""
    store = Store()
    for key in KEYS[:8]:
        store.put(key, b"v")
    monkeypatch.setattr(store.net.context.router.principals, "judged", lambda call: True)
    txn = pb.TxnRequest(success=[ALL] * 65, failure=[ALL] * 64)
    assert heard(store, store.ask(txn)) == said(store, txn)


def test_what_writes_or_names_a_negative_revision_goes_to_the_sequencer() -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=KEYS[0]))
    negative = pb.RequestOp(request_range=pb.RangeRequest(key=KEYS[0], revision=-1))
    for op in (put, negative, pb.RequestOp(request_txn=pb.TxnRequest())):
        net = Net(shards=SHARDS).started()
        methods, call = Methods(), FakeCall(None)
        register_all(methods, net.context)
        methods.handlers["Txn"](call, pb.TxnRequest(success=[ALL, op]).SerializeToString())
        net.run()
        assert [r.method for r in net.nodes[1].take()] == [Method.WIDE]


def test_an_answered_transaction_leaves_no_cycle_that_keeps_its_rows() -> None:
    """Fronts make few cycles, so they collect them almost never: 30 MB stayed for each transaction of 15 full
    ranges."""
    store = Store()
    for key in KEYS:
        store.put(key, b"v")
    txn = pb.TxnRequest(compare=[pb.Compare(key=b"k", range_end=b"l", target=pb.Compare.VERSION, version=1)],
                        success=[ALL, ALL])
    assert store.ask(txn).replies
    gc.collect()
    gc.disable()
    try:
        assert store.ask(txn).replies
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = [thing for thing in gc.garbage if isinstance(thing, RangeTxn)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kept
