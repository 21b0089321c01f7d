"""A leader's plain puts: what it writes from what it evaluated is what everybody else reads out of the record."""

from __future__ import annotations

from random import Random

import pytest

from cluster.lease import Lessor
from cluster.messages import Method
from cluster.pb import rpc_pb2
from cluster.replica import Batch, Leader
from node.storage import Applied, PreparedPuts, StateStore
from node.storage.keys import RUN_ENTRIES

from .conftest import OpenStore


class Replica:
    """A store that is fed records, by what was evaluated where that is at hand."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.index = 0

    def apply(self, data: bytes, batch: Batch | None, *, want_events: bool = False, alone: bool = False) -> Applied:
        self.index += 1
        if alone and batch is not None and batch.puts:
            return self.store.apply_puts(PreparedPuts(batch.puts), self.index, 1, want_events=want_events)
        applying = self.store.apply_slices(
            [(self.index, 1, data)], want_events=want_events,
            evaluated=lambda index, term: PreparedPuts(batch.puts) if batch is not None and batch.puts is not None else None)
        with pytest.raises(StopIteration) as done:
            next(applying)
        applied: Applied = done.value.value
        return applied


def leader_of(store: StateStore) -> Leader:
    return Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7)


def some_key(r: Random) -> bytes:
    return r.choice((b"k", b"\0", b"a\0b", b"long" * 31, b"x\xff")) + b"%d" % r.randrange(30)


def put(r: Random) -> bytes:
    value = bytes(r.choice((1, 3, 127, 128, 300)))
    body: bytes = rpc_pb2.PutRequest(key=some_key(r)[:127], value=value).SerializeToString()
    return body


def another_write(r: Random) -> tuple[int, bytes]:
    key = some_key(r)
    kind = r.randrange(3)
    if kind == 0:
        return Method.PUT, rpc_pb2.PutRequest(key=key, prev_kv=True).SerializeToString()
    if kind == 1:
        return Method.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key).SerializeToString()
    if r.random() < 0.2:
        key += bytes(128)  # too long for a plain put
    ops = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=b"t")),
           rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))]
    if r.random() < 0.2:
        ops.append(rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key + b"+")))
    return Method.TXN, rpc_pb2.TxnRequest(success=ops).SerializeToString()


@pytest.mark.parametrize("seed", range(12))
def test_what_was_evaluated_makes_the_same_rows_events_and_knowledge_as_the_record(open_store: OpenStore, seed: int) -> None:
    r = Random(seed)
    own, other = Replica(open_store("own")), Replica(open_store("other"))
    own.store.counts.build_step()
    leader = leader_of(own.store)
    plain = 0
    for _ in range(40):
        mixed = r.random() < 0.3
        for _ in range(r.choice((0, 1, 5, 40))):
            if mixed and r.random() < 0.2:
                leader.execute(*another_write(r))
            else:
                assert leader.put(put(r))
        data, batch = leader.seal()
        plain += batch.puts is not None and bool(batch.puts)
        for key in [some_key(r) for _ in range(3)]:
            own.store.get(key)  # what is remembered must be forgotten
        want_events = r.random() < 0.5
        done = own.apply(data, batch, want_events=want_events, alone=r.random() < 0.5)
        leader.applied(batch)
        assert done == other.apply(data, None, want_events=want_events)
    assert plain > 5
    assert own.store.position == other.store.position
    assert list(own.store.rows(b"", b"\xff")) == list(other.store.rows(b"", b"\xff"))
    for key in {key for key, _ in own.store.scan(b"\0", b"\0")} | {some_key(r) for _ in range(50)}:
        assert own.store.current(key) == own.store.peek(key) == other.store.current(key)
        assert own.store.get(key) == other.store.get(key)
    assert own.store.quick_count(b"\0", b"\0") == other.store.count(b"\0", b"\0")
    assert leader.view.statistics() == {"pending_keys": 0, "pending_leases": 0}


def test_a_record_of_more_changes_than_a_row_holds(open_store: OpenStore) -> None:
    own, other = Replica(open_store("own")), Replica(open_store("other"))
    leader = leader_of(own.store)
    for number in range(2 * RUN_ENTRIES + 1):
        leader.put(rpc_pb2.PutRequest(key=b"%0127d" % (number % 700), value=b"v").SerializeToString())
    data, batch = leader.seal()
    own.apply(data, batch)
    other.apply(data, None)
    rows = list(own.store.rows(b"r", b"s"))
    assert len(rows) == 3
    assert rows == list(other.store.rows(b"r", b"s"))


def test_revisions_that_are_not_those_due_are_refused(open_store: OpenStore) -> None:
    own, other = Replica(open_store("own")), Replica(open_store("other"))
    leader = leader_of(own.store)
    leader.put(rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString())
    data, batch = leader.seal()
    other.apply(data, None)
    with pytest.raises(AssertionError, match="C4"):
        next(other.store.apply_slices([(2, 1, data)], evaluated=lambda index, term: PreparedPuts(batch.puts or [])))
    with pytest.raises(AssertionError, match="C4"):
        other.store.apply_puts(PreparedPuts(batch.puts or []), 2, 1, want_events=False)
    with pytest.raises(AssertionError, match="I18"):
        own.store.apply_puts(PreparedPuts(batch.puts or []), 2, 1, want_events=False)
    assert (own.store.position.shard_index, other.store.position.shard_index) == (0, 1)


def test_several_records_in_one_run(open_store: OpenStore) -> None:
    r = Random(5)
    own, other = open_store("own"), open_store("other")
    leader = leader_of(own)
    records, prepared = [], {}
    for index in range(1, 7):
        for _ in range(3):
            leader.put(put(r))
        if index in (3, 5):
            both = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key)) for key in (b"one", b"two")]
            leader.execute(Method.TXN, rpc_pb2.TxnRequest(success=both).SerializeToString())
        data, batch = leader.seal()
        records.append((index, 1, data))
        prepared[index] = PreparedPuts(batch.puts) if batch.puts is not None else None
    assert [made is not None for made in prepared.values()] == [True, True, False, True, False, True]
    with pytest.raises(StopIteration):
        next(own.apply_slices(records, evaluated=lambda index, term: prepared[index]))
    other.apply(records)
    assert own.position == other.position
    assert list(own.rows(b"", b"\xff")) == list(other.rows(b"", b"\xff"))
