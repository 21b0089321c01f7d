"""A leader's plain puts: what it writes from what it evaluated is what everybody else reads out of the
record."""

from __future__ import annotations

from random import Random

import pytest

from cluster.effects import records
from cluster.evaluate.replica import Batch, Leader
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value
from node.storage import Applied, PreparedPuts, StateStore
from tests.unit.storage.conftest import OpenStore


class Replica:
    """A store that is fed records, by what was evaluated where that is at hand."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.index = 0

    def apply(
        self, data: bytes, batch: Batch | None, *, want_events: bool = False, alone: bool = False
    ) -> Applied:
        self.index += 1
        if alone and batch is not None and batch.puts:
            return self.store.apply_own(PreparedPuts(batch.puts), self.index, 1, want_events=want_events)
        applying = self.store.apply_slices(
            [(self.index, 1, data)],
            want_events=want_events,
            evaluated=lambda index, term: (
                PreparedPuts(batch.puts) if batch is not None and batch.puts is not None else None
            ),
        )
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
def test_what_was_evaluated_makes_the_same_rows_events_and_knowledge_as_the_record(
    open_store: OpenStore, seed: int
) -> None:
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
    assert not leader.view._writes
    assert not leader.view._leases


def test_a_record_of_more_changes_than_a_row_holds(open_store: OpenStore) -> None:
    own, other = Replica(open_store("own")), Replica(open_store("other"))
    leader = leader_of(own.store)
    for number in range(2 * GRAIN.run_entries + 1):
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
        next(
            other.store.apply_slices(
                [(2, 1, data)], evaluated=lambda index, term: PreparedPuts(batch.puts or [])
            )
        )
    with pytest.raises(AssertionError, match="C4"):
        other.store.apply_own(PreparedPuts(batch.puts or []), 2, 1, want_events=False)
    with pytest.raises(AssertionError, match="I18"):
        own.store.apply_own(PreparedPuts(batch.puts or []), 2, 1, want_events=False)
    assert (own.store.position.shard_index, other.store.position.shard_index) == (0, 1)


def test_several_records_in_one_run(open_store: OpenStore) -> None:
    r = Random(5)
    own, other = open_store("own"), open_store("other")
    leader = leader_of(own)
    run, prepared = [], {}
    for index in range(1, 7):
        for _ in range(3):
            leader.put(put(r))
        if index in (3, 5):
            both = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key)) for key in (b"one", b"two")]
            leader.execute(Method.TXN, rpc_pb2.TxnRequest(success=both).SerializeToString())
        data, batch = leader.seal()
        run.append((index, 1, data))
        prepared[index] = PreparedPuts(batch.puts) if batch.puts is not None else None
    assert [made is not None for made in prepared.values()] == [True, True, False, True, False, True]
    with pytest.raises(StopIteration):
        next(own.apply_slices(run, evaluated=lambda index, term: prepared[index]))
    other.apply(run)
    assert own.position == other.position
    assert list(own.rows(b"", b"\xff")) == list(other.rows(b"", b"\xff"))


@pytest.mark.parametrize("seed", range(8))
def test_puts_in_one_item_do_what_as_many_items_do(open_store: OpenStore, seed: int) -> None:
    r = Random(seed)
    together, single = open_store("together"), open_store("single")
    known: dict[bytes, tuple[int, int]] = {}  # create, version
    revision = 1
    for index in range(1, 30):
        keys, kvs, new, items = [], [], [], []
        for _ in range(r.choice((1, 2, 30, GRAIN.run_entries + 1))):
            revision += 1
            key, value = some_key(r)[:127], bytes(r.choice((0, 1, 127, 128, 300, 70_000)))
            create, version = known.get(key, (revision, 0))
            items.append(records.put(key, 0 if create == revision else create, version + 1, value, 0))
            keys.append(key)
            kvs.append(key_value(key, create, revision, version + 1, value, 0))
            new.append(create == revision)
            known[key] = create, version + 1
        item = records.puts(revision - len(keys) + 1, keys, kvs, new)
        assert records.read_puts(item, records.ITEM.size, len(item)) == (
            revision - len(keys) + 1,
            keys,
            kvs,
            [key for key, is_new in zip(keys, new, strict=True) if is_new],
        )
        done = [store.apply([(index, 1, data)], want_events=index % 2 == 0)
                for store, data in ((together, item), (single, b"".join(items)))]
        assert done[0] == done[1]
        for store in (together, single):
            for key in [*r.sample(sorted(known), min(10, len(known))), b"never"]:
                current, kv = store.current(key), store.get(key)  # remembered, now or from before
                assert (current and (current.create, current.version)) == known.get(key)
                assert (kv is not None) == (key in known)
    assert together.position == single.position
    assert list(together.rows(b"", b"\xff")) == list(single.rows(b"", b"\xff"))
    for key in known:
        assert together.current(key) == together.peek(key) == single.current(key)
        assert together.get(key) == dict(together.scan(key, b""))[key] == single.get(key)


def test_puts_follow_other_changes_of_their_record(open_store: OpenStore) -> None:
    together, single = open_store("together"), open_store("single")
    before = records.put(b"a", 0, 1, b"v", 0) + records.delete(b"a")
    after = records.put(b"z", 0, 1, b"v", 0)
    item = records.puts(
        4, [b"b", b"b"], [key_value(b"b", 4, 4 + at, 1 + at, b"v", 0) for at in range(2)], [True, False]
    )
    items = records.put(b"b", 0, 1, b"v", 0) + records.put(b"b", 4, 2, b"v", 0)
    done = [store.apply([(1, 1, data)], want_events=True)
            for store, data in ((together, before + item + after), (single, before + items + after))]
    assert done[0] == done[1]
    assert list(together.changes(2)) == list(single.changes(2))
    assert list(together.rows(b"k", b"l")) == list(single.rows(b"k", b"l"))


def test_puts_that_do_not_add_up_are_refused(open_store: OpenStore) -> None:
    item = records.puts(
        2, [b"a", b"b"], [key_value(key, 2, 2, 1, b"v", 0) for key in (b"a", b"b")], [True, True]
    )
    for end in range(records.ITEM.size, len(item)):
        with pytest.raises(ValueError, match="truncated puts"):
            records.read_puts(item[:end], records.ITEM.size, end)
    with pytest.raises(ValueError, match="truncated puts"):
        records.read_puts(item + b"x", records.ITEM.size, len(item) + 1)
    with pytest.raises(AssertionError, match="C4"):
        open_store().apply([(1, 1, item + item)])
