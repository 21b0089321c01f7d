"""A shard's plain puts, whose revisions a cut tells later: what their leader writes from what it evaluated is
what everybody else reads out of the entry."""

from __future__ import annotations

from random import Random

import pytest

from cluster.effects.later_puts import LaterPuts
from cluster.grain import GRAIN
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import ENTRY_ITEMS
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from node.storage import Applied, StateStore
from tests.unit.storage.conftest import OpenStore


def apply(
    store: StateStore, changes: list[tuple[int, bytes, int, int]], index: int, revision: int,
    evaluated: dict[int, LaterPuts] | None = None, *, want_events: bool = False,
) -> Applied:
    applying = store.apply_changes_slices(
        changes, (index, index, 1, revision), want_events=want_events, evaluated=evaluated)
    with pytest.raises(StopIteration) as done:
        next(applying)
    applied: Applied = done.value.value
    return applied


def leader_of(store: StateStore) -> ShardLeader[int]:
    leader: ShardLeader[int] = ShardLeader(store, 1, 1, Start(0, 0), max_txn_ops=128)
    leader.serve()
    return leader


def some_key(r: Random) -> bytes:
    key: bytes = r.choice((b"k", b"\0", b"a\0b", b"long" * 31, b"x\xff")) + b"%d" % r.randrange(30)
    return key[:127]


def some_write(r: Random, plain: float) -> tuple[int, bytes]:
    key = some_key(r)
    if r.random() < plain:
        return Method.PUT, rpc_pb2.PutRequest(
            key=key, value=bytes(r.choice((1, 127, 128, 300)))
        ).SerializeToString()
    if r.random() < 0.5:
        return Method.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key).SerializeToString()
    op = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=b"t"))
    return Method.TXN, rpc_pb2.TxnRequest(success=[op]).SerializeToString()


@pytest.mark.parametrize("seed", range(12))
def test_what_was_evaluated_makes_the_same_rows_events_and_knowledge_as_the_entry(
    open_store: OpenStore, seed: int
) -> None:
    r = Random(seed)
    own, other = open_store("own"), open_store("other")
    own.counts.build_step()
    leader = leader_of(own)
    known = 0
    index, revision = 0, 1
    logged: list[tuple[int, bytes, int]] = []
    while index < 50:
        for _ in range(r.choice((1, 5, 40))):
            leader.submit(0, *some_write(r, r.choice((1.0, 1.0, 0.9))))
        leader.run()
        if leader.dirty:
            index += 1
            before = leader._count
            logged.append((index, leader.seal(), leader._count - before))
            leader.logged(index)
        if r.random() < 0.5 and index < 50:
            continue  # the next entry finds its keys pending
        # a cut of all that is logged, behind changes of other shards
        base = revision = revision + r.randrange(200)
        changes, evaluated = [], {}
        for at, data, grown in logged:
            puts = leader.evaluated(at)
            if puts is not None:
                evaluated[len(changes)] = puts
                known += 1
            changes.append((revision, data, ENTRY_ITEMS, -1))
            revision += grown
        for key in [some_key(r) for _ in range(3)]:
            own.get(key)  # what is remembered must be forgotten
        want_events = r.random() < 0.5
        last = index
        done = apply(own, changes, last, revision, evaluated, want_events=want_events)
        assert done == apply(other, changes, last, revision, want_events=want_events)
        leader.applied_entries(last, base)
        assert not len(leader._sealed)
        logged.clear()
    assert known > 5
    assert own.position == other.position
    assert list(own.rows(b"", b"\xff")) == list(other.rows(b"", b"\xff"))
    for key in {key for key, _ in own.scan(b"\0", b"\0")} | {some_key(r) for _ in range(50)}:
        assert own.current(key) == own.peek(key) == other.current(key)
        assert own.get(key) == other.get(key)
    assert own.quick_count(b"\0", b"\0") == other.count(b"\0", b"\0")


def test_an_entry_of_more_changes_than_a_row_holds(open_store: OpenStore) -> None:
    own, other = open_store("own"), open_store("other")
    leader = leader_of(own)
    for number in range(GRAIN.run_entries + 1):
        leader.submit(
            0, Method.PUT, rpc_pb2.PutRequest(key=b"%0127d" % number, value=b"v").SerializeToString()
        )
    leader.run()
    data = leader.seal()
    leader.logged(1)
    puts = leader.evaluated(1)
    assert puts is not None
    apply(own, [(9, data, ENTRY_ITEMS, -1)], 1, 10 + GRAIN.run_entries, {0: puts})
    apply(other, [(9, data, ENTRY_ITEMS, -1)], 1, 10 + GRAIN.run_entries)
    rows = list(own.rows(b"r", b"s"))
    assert len(rows) == 2
    assert rows == list(other.rows(b"r", b"s"))


def test_a_put_of_a_key_whose_creation_was_pending_is_read_out_of_its_entry(open_store: OpenStore) -> None:
    leader = leader_of(open_store("own"))
    put = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    for index in (1, 2):
        leader.submit(0, Method.PUT, put)
        leader._intake._pace.full_requests = 1
        leader.run()
        leader.seal()
        leader.logged(index)
    assert leader.evaluated(1) is not None
    assert leader.evaluated(2) is None
    assert leader.evaluated(3) is None
