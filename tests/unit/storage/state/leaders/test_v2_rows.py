"""A leader's plain sets of the v2 tree: what it writes from what it evaluated is what the record says."""

from __future__ import annotations

from random import Random

import pytest

from cluster.evaluate.replica import Batch, Copies, Leader, Told
from cluster.features.growth import Growth
from cluster.features.lessor import Lessor
from cluster.features.rows import RowsOf
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.shown import get_json
from cluster.features.v2.tree import Tree
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from node.storage import Applied, PreparedRows, StateStore
from tests.unit.storage.conftest import OpenStore
from tests.unit.v2.tree.random_writes import NOW_NS, random_write


def prepared(batch: Batch) -> PreparedRows | None:
    """What a leader makes of it while its entry is on its way."""
    return PreparedRows(RowsOf.V2, batch.sets) if batch.sets else None


def apply(store: StateStore, index: int, data: bytes, batch: Batch, alone: bool) -> Applied:
    """As the leader does."""
    rows = prepared(batch)
    if alone and rows is not None:
        return store.apply_own(rows, index, 1, want_events=True)
    slices = store.apply_slices([(index, 1, data)], want_events=True, evaluated=lambda index, term: rows)
    with pytest.raises(StopIteration) as done:
        next(slices)
    applied: Applied = done.value.value
    return applied


def some_set(r: Random) -> bytes:
    path = b"/1/%d/%d" % (r.randrange(2), r.randrange(5))
    return Write(Op.SET, path, b"v" * r.choice((0, 1, 300)), now_ns=NOW_NS).encode()


@pytest.mark.parametrize("seed", range(6))
def test_what_was_evaluated_makes_the_same_rows_as_the_record(open_store: OpenStore, seed: int) -> None:
    r = Random(seed)
    own, other = open_store("own"), open_store("other")
    tree = Tree()
    leader = Leader(own, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,
                    copies=Copies(tree.copy, lambda: Told(Growth(), {})))
    plain = 0
    for index in range(1, 41):
        mixed = r.random() < 0.4
        for _ in range(r.choice((0, 1, 5, 40))):
            if mixed and r.random() < 0.2:
                leader.put(rpc_pb2.PutRequest(key=b"k%d" % r.randrange(9), value=b"v").SerializeToString())
                continue
            body = random_write(r, tree).encode() if mixed and r.random() < 0.3 else some_set(r)
            if leader.v2_set(body) is None:
                leader.execute(Method.V2_WRITE, body)
        data, batch = leader.seal()
        plain += batch.sets is not None
        done = apply(own, index, data, batch, r.random() < 0.5)
        leader.applied(batch)
        assert done == other.apply([(index, 1, data)], want_events=True)
        tree.take(done.rows.get(RowsOf.V2, ()))
        assert (tree.index, get_json(tree.root, b"", True, True, 0)) == (
            leader.v2.index,
            get_json(leader.v2.root, b"", True, True, 0),
        )
    assert plain > 5
    assert own.position == other.position
    assert list(own.rows(b"", b"\xff")) == list(other.rows(b"", b"\xff"))
    stored = Tree(own.feature_rows(RowsOf.V2))
    assert (stored.index, stored.counts) == (tree.index, tree.counts)
    assert stored.history is not None
    assert tree.history is not None
    assert stored.history.since(0) == tree.history.since(0)


def test_a_change_that_is_no_plain_set_is_logged_behind_those_before_it(open_store: OpenStore) -> None:
    """Each item's counters are those of its last change: whoever reads the log sees them in order."""
    store = open_store("own")
    leader = Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7)
    leader.execute(Method.V2_WRITE, Write(Op.SET, b"/1/d/a", b"1").encode())
    for body in (some := Write(Op.SET, b"/1/d/a", b"2").encode()), some:
        assert leader.v2_set(body) is not None
    leader.execute(Method.V2_WRITE, Write(Op.DELETE, b"/1/d/a").encode())
    assert leader.v2_set(some) is not None
    data, batch = leader.seal()
    assert batch.sets is None
    rows = store.apply([(1, 1, data)]).rows[RowsOf.V2]
    counters = [value or b"" for name, value in rows if name == b"c"]
    assert [int.from_bytes(value[:8], "little") for value in counters] == [4, 6, 7, 8]
    assert b"".join([name[:1] for name, _ in rows]) == b"nnhc" + b"nhnhc" + b"nhc" + b"nhc"
