"""Spans and sets of keys: as if every key were looked at, in n log n steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate import requests as evaluate
from cluster.evaluate import validate
from cluster.evaluate.footprint import Footprint, footprint
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.spans import Intervals, Span, holds, keys_in, meet
from cluster.evaluate.view import Outcome, Version
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.tries import best_of_three, within
from tests.unit.order.stores import EmptyStore
from tests.unit.semantics.memory import MemoryShard
from tests.unit.semantics.test_footprint import UNIVERSE, keys, spans


def inverted(span: Span) -> bool:
    return bool(span[1]) and span[1] != b"\0" and span[1] <= span[0]


@given(st.lists(spans), st.lists(spans))
@settings(max_examples=1000, deadline=None)
def test_many_spans_meet_as_each_with_each_would(some: list[Span], others: list[Span]) -> None:
    one_by_one = any(
        Footprint([a], []).conflicts(Footprint([], [b])) for a in some for b in others if not (inverted(a) or inverted(b)))
    assert meet(some, others) == one_by_one


@given(st.lists(spans), spans)
@settings(max_examples=1000, deadline=None)
def test_a_set_of_intervals_holds_what_its_spans_hold(added: list[Span], span: Span) -> None:
    found = Intervals()
    for one in added:
        found.add_span(one)
    there = {key for key in UNIVERSE if any(holds(one, key) for one in added if not inverted(one))}
    assert {key for key in UNIVERSE if key in found} == there
    assert found.meets(span) == meet(added, [span])
    pieces = found.without(span)
    assert [key for piece in pieces for key in UNIVERSE if holds(piece, key)] == [
        key for key in UNIVERSE if holds(span, key) and key not in there]


@given(st.lists(spans), st.lists(spans))
@settings(max_examples=500, deadline=None)
def test_two_sets_of_intervals_meet_as_their_spans_do(some: list[Span], others: list[Span]) -> None:
    first, second = Intervals(), Intervals()
    for found, added in ((first, some), (second, others)):
        for span in added:
            found.add_span(span)
    assert first.meets_any(second) == second.meets_any(first) == meet(some, others)


@given(st.sets(keys), spans)
@settings(max_examples=500, deadline=None)
def test_sorted_keys_of_a_span(some: set[bytes], span: Span) -> None:
    assert list(keys_in(sorted(some), span)) == [key for key in sorted(some) if holds(span, key)]


# -- a transaction of 200 KB


def three_levels(make: Callable[[int], pb.RequestOp]) -> pb.TxnRequest:
    """18,432 operations, as many as the limit of 128 lets through in three levels."""
    def level(first: int) -> list[Any]:
        return [make(first + i) for i in range(32)]

    return pb.TxnRequest(success=[
        pb.RequestOp(request_txn=pb.TxnRequest(success=[
            pb.RequestOp(request_txn=pb.TxnRequest(success=level((i * 24 + j) * 32))) for j in range(24)]))
        for i in range(24)])


def put_or_delete(number: int) -> pb.RequestOp:
    key = b"%05d" % number
    if number % 2:
        return pb.RequestOp(request_put=pb.PutRequest(key=key))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


def delete_or_put(number: int) -> pb.RequestOp:
    key = b"%05d" % number
    if number % 2:
        return pb.RequestOp(request_put=pb.PutRequest(key=key))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=key + b"\1"))


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@best_of_three
def test_deletes_are_checked_against_puts_by_intervals() -> None:
    """Each put was compared with each delete before it: 2.9 s, and the leader fell."""
    within(seconds(lambda: validate.check_txn(three_levels(put_or_delete), 128)), 0.5)
    within(seconds(lambda: validate.check_txn(three_levels(delete_or_put), 128)), 0.5)


@best_of_three
def test_very_many_operations_are_evaluated_in_proportion() -> None:
    """Each deleted range was compared with each key that the transaction had written, and with all that was pending."""
    view = Overlay(EmptyStore())
    for number in range(10_000):
        view.take(Outcome(b"", True, b"", [(b"p%05d" % number, Version(8, 8, 1, 0, b""))], 8))
    view._store.live_count = lambda start, end: 0  # type: ignore[method-assign]
    body = three_levels(delete_or_put).SerializeToString()
    within(seconds(lambda: evaluate.txn(view, body, 128)), 2)


def test_what_very_many_operations_touch_is_compared_in_proportion() -> None:
    """Two transactions over shards under way: 340 million pairs."""
    body = three_levels(delete_or_put).SerializeToString()
    one, other = footprint(Method.TXN, body), footprint(Method.TXN, body)
    other.writes = [(b"x" + key, end and b"x" + end) for key, end in other.writes]
    assert seconds(lambda: one.conflicts(other)) < 0.5
    assert not one.conflicts(other)
    assert one.conflicts(footprint(Method.TXN, body))


def test_a_transaction_of_many_ranges_does_the_same_in_memory() -> None:
    """The written keys are kept in order while a transaction goes on: puts between ranges are seen by those after."""
    shard = MemoryShard()
    ops = []
    for number in range(0, 40, 4):
        ops += [pb.RequestOp(request_put=pb.PutRequest(key=b"%02d" % number)),
                pb.RequestOp(request_range=pb.RangeRequest(key=b"00", range_end=b"99", count_only=True)),
                pb.RequestOp(request_put=pb.PutRequest(key=b"%02d" % (99 - number - 1))),
                pb.RequestOp(request_range=pb.RangeRequest(key=b"00", range_end=b"50"))]
    _, tail = shard.execute(Method.TXN, pb.TxnRequest(success=ops).SerializeToString())
    answers = pb.TxnResponse.FromString(tail).responses
    assert [r.response_range.count for r in answers[1::4]] == list(range(1, 21, 2))
    assert [len(r.response_range.kvs) for r in answers[3::4]] == [
        sum(kv < b"50" for kv in {b"%02d" % n for m in range(0, number + 1, 4) for n in (m, 98 - m)})
        for number in range(0, 40, 4)]
