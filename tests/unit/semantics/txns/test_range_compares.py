"""Range compares that are looked at ahead say what they say when all is looked at in one turn, whatever is
written meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any
from unittest.mock import patch

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.overlay import NotYet
from cluster.evaluate.reading import rows as reading_rows
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns import range_compares
from cluster.evaluate.txns.compares import Turn, Unlooked
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.unit.semantics.memory import MemoryShard

KEYS = [b"%c" % at for at in b"abcdefghij"]
VALUES = [b"1", b"2", b"3"]


class Store(MemoryShard):
    """As ``cluster.evaluate.replica.AppliedState``; what is compacted is gone from its changes."""

    live_count = MemoryShard.count

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]:
        assert from_revision > self.compact_revision, "what changed before is not kept"
        return iter([(at, 0, kind, key) for at, kind, key, _ in self.events if at >= from_revision])

    def lease(self, lease: int) -> None:
        return None

    def alarms(self) -> list[tuple[int, int]]:
        return []


class Pinned:
    """A revision, whatever is applied later."""

    def __init__(self, store: Store) -> None:
        self.revision = store.revision
        self._rows = list(store.scan(b"\0", b"\0"))

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for key, kv in self._rows:
            if start <= key and (end == b"\0" or key < end):
                yield b"", b""  # a pause
                yield key, kv


spans = st.tuples(st.sampled_from(KEYS), st.sampled_from([*KEYS, b"z", b"\0", b"\0"]))
actions = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.tuples(st.just("delete"), spans, st.booleans()),
    st.tuples(st.just("apply")), st.tuples(st.just("apply")), st.tuples(st.just("compact")),
    st.tuples(st.just("look"), st.integers(1, 12)), st.tuples(st.just("look"), st.integers(1, 12)),
    st.tuples(st.just("evaluate")), st.tuples(st.just("evaluate")))


@st.composite
def compares(draw: Any) -> pb.Compare:
    key, end = draw(spans)
    target = draw(st.sampled_from((0, 1, 2, 3, 4, 9)))
    result = draw(st.sampled_from((0, 1, 2, 3, 3, 7)))
    found = pb.Compare(key=key, range_end=end, result=result, target=target)
    number = draw(st.integers(0, 12))
    if target == 0:
        found.version = number % 3
    elif target == 1:
        found.create_revision = number
    elif target == 2:
        found.mod_revision = number
    elif target == 3:
        found.value = draw(st.sampled_from(VALUES))
    return found


class Run:
    """A leader, a transaction that waits for its turn, and others' writes."""

    def __init__(self, request: pb.TxnRequest) -> None:
        self.store = Store()
        self.leader = Leader(
            self.store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,  # type: ignore[arg-type]
        )
        self.logged: list[tuple[bytes, Any]] = []
        self.body = request.SerializeToString()
        self.begin()
        self.decided = 0

    def begin(self) -> None:
        self.looked = RangeCompares.of(self.body)
        self.steps = self.looks(self.looked)

    def looks(self, looked: RangeCompares) -> Iterator[None]:
        while True:
            if looked.unwalked(self.store.compact_revision):
                yield from looked.walk(Pinned(self.store))  # type: ignore[arg-type]
            yield from looked.catch_up(self.store)  # type: ignore[arg-type]
            yield

    def act(self, action: tuple[Any, ...]) -> None:
        what = action[0]
        if what == "put":
            self.leader.execute(Method.PUT, pb.PutRequest(key=action[1], value=action[2]).SerializeToString())
        elif what == "delete":
            (key, end), one = action[1:]
            request = pb.DeleteRangeRequest(key=key, range_end=b"" if one else end)
            self.leader.execute(Method.DELETE_RANGE, request.SerializeToString())
        elif what == "apply":
            if self.logged:
                data, batch = self.logged.pop(0)
                self.store.apply(data)
                self.leader.applied(batch)
        elif what == "compact":
            self.store.compact_revision = self.leader.view.compact_revision = self.store.revision
        elif what == "look":
            for _ in range(action[1]):
                next(self.steps)
        else:
            self.evaluate()
        if self.leader.dirty:
            self.logged.append(self.leader.seal())

    def evaluate(self) -> None:
        if not all(range_.walked for range_ in self.looked._ranges.values()):
            return  # it is being walked
        view = self.leader.view
        try:
            self.looked.look_again(view, self.store)  # type: ignore[arg-type]
            outcome = evaluate.txn(view, self.body, 128, None, Turn(self.looked))
        except (Unlooked, NotYet):
            self.steps = self.looks(self.looked)
            return
        assert outcome.items == evaluate.txn(view, self.body, 128).items
        self.decided += 1
        self.begin()


DONE = pb.RequestOp(request_put=pb.PutRequest(key=b"done", value=b"yes"))
ELSE = pb.RequestOp(request_put=pb.PutRequest(key=b"done", value=b"no"))


@settings(max_examples=400, deadline=None)
@given(st.lists(compares(), min_size=1, max_size=4), st.lists(compares(), max_size=2),
       st.lists(actions, min_size=4, max_size=40),
       st.sampled_from((1, 2, 16)), st.sampled_from((3, 4096)), st.sampled_from((1, 3)))
def test_what_is_looked_at_ahead_is_what_is_there_in_its_turn(
    first: list[pb.Compare], then: list[pb.Compare], acts: list[tuple[Any, ...]], kept: int, looks: int,
    rows: int,
) -> None:
    nested = pb.RequestOp(request_txn=pb.TxnRequest(compare=then, success=[DONE], failure=[ELSE]))
    run = Run(pb.TxnRequest(compare=first, success=[nested], failure=[ELSE]))
    assume(run.looked._ranges)
    with patch.multiple(range_compares, _KEPT=kept, LOOKS=looks, _STEP_CHANGES=2, _STEP_CHECKS=2), \
            patch.multiple(reading_rows, _STEP_ROWS=rows), GRAIN.finer(many_keys=3):
        for action in acts:
            run.act(action)
        for _ in range(20):  # in the end it is decided
            run.act(("apply",))
            run.act(("look", 30))
            run.act(("evaluate",))
    assert run.decided


def test_a_leader_asks_for_a_look_ahead_and_takes_it() -> None:
    compare = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VERSION, version=1)
    run = Run(pb.TxnRequest(compare=[compare], success=[DONE]))
    for key in KEYS:
        run.act(("put", key, b"1"))
    with GRAIN.finer(turn_rows=5):
        try:
            run.leader.execute(Method.TXN, run.body)
        except Unlooked:
            run.act(("look", 40))
            assert run.leader.execute(Method.TXN, run.body, run.looked).items
            return
    raise AssertionError("it looked at all of them in one turn")


def test_a_compare_of_a_single_key_is_never_looked_at_ahead() -> None:
    assert not RangeCompares(pb.TxnRequest(compare=[pb.Compare(key=b"a", version=1)]))._ranges


def test_a_malformed_transaction_is_refused_before_it_is_looked_at() -> None:
    compare = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VERSION, version=1)
    run = Run(pb.TxnRequest(compare=[compare], success=[DONE, DONE]))
    for key in KEYS:
        run.act(("put", key, b"1"))
    with GRAIN.finer(turn_rows=5):
        try:
            run.leader.execute(Method.TXN, run.body)
        except EtcdError:
            return
    raise AssertionError("no refusal")


def test_a_range_that_was_empty_when_it_was_walked_is_not_counted() -> None:
    """A turn counted each: 128 of them took 0.9 s, over many keys that are gone."""
    compare = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VERSION, version=1)
    run = Run(pb.TxnRequest(compare=[compare], success=[DONE], failure=[ELSE]))
    run.act(("put", b"zz", b"1"))
    run.act(("apply",))
    run.act(("look", 40))
    view = run.leader.view
    with patch.object(type(view), "count", side_effect=AssertionError("it was walked")):
        run.looked.look_again(view, run.leader.store)
        assert not run.looked.holds(compare, view)
    run.act(("put", KEYS[0], b"1"))
    run.looked.look_again(view, run.leader.store)
    assert run.looked.holds(compare, view)


ONES = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VALUE, value=b"1")


def looked_at(*values: bytes) -> Run:
    run = Run(pb.TxnRequest(compare=[ONES], success=[DONE], failure=[ELSE]))
    for key, value in zip(KEYS, values, strict=False):
        run.act(("put", key, value))
        run.act(("apply",))
    run.act(("look", 40))
    return run


def test_a_range_that_was_emptied_meanwhile_holds_no_value() -> None:
    run = looked_at(b"1", b"1")
    for key in KEYS[:2]:
        run.act(("delete", (key, b""), True))
    run.act(("evaluate",))
    assert run.decided


def test_where_the_keys_that_failed_have_changed_the_range_is_walked_anew() -> None:
    with patch.object(range_compares, "_KEPT", 1):
        run = looked_at(b"2", b"2")
        run.act(("put", KEYS[0], b"1"))
        run.act(("evaluate",))
        assert not run.decided
        run.act(("apply",))
        run.act(("look", 40))
        run.act(("evaluate",))
    assert run.decided


def test_a_walk_that_skips_to_where_many_keys_are_gone_comes_to_its_end() -> None:
    store = Store()
    for key in [*(b"a%03d" % at for at in range(60)), b"x"]:
        store.execute(Method.PUT, pb.PutRequest(key=key, value=b"1").SerializeToString())
    looked = RangeCompares(pb.TxnRequest(compare=[
        pb.Compare(key=b"a", range_end=b"z", target=0, result=0, version=9),
        pb.Compare(key=b"x", range_end=b"y", target=0, result=0, version=9),
    ]))
    assert sum(1 for _ in islice(looked.walk(Pinned(store)), 500)) < 200  # type: ignore[arg-type]
    assert not looked.unwalked(0)
