"""A grant leaves out values that decide nothing and are not shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import EtcdError
from cluster.evaluate import requests
from cluster.evaluate.footprint import footprint, plain_footprint
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.order.log import Attempt
from cluster.order.prepare import Grant, Prepare
from cluster.order.sequencing.drafts import Survey
from cluster.order.sequencing.granted import GrantedView, rows_in_steps
from cluster.order.sequencing.touches import touches_of
from cluster.order.sequencing.wide import Wide
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value
from tests.unit.order.stores import EmptyStore

PLACEMENT = Placement(3, 1)
KEYS = [key for key in (b"k%d/" % at for at in range(20)) if PLACEMENT.shard_of(key)][:4]
VALUE = bytes(1000)
OWN: Any = Overlay(EmptyStore())  # type: ignore[arg-type]


class Held(EmptyStore):
    """All but the last of the keys are there."""

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        return key_value(key, 2, 5, 3, VALUE, 0) if key in KEYS[:-1] else None

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        return ((key, self.get(key) or b"") for key in sorted(KEYS[:-1]) if start <= key and (key < end))

    def live_count(self, start: bytes, end: bytes) -> int:
        return sum(1 for _ in self.scan(start, end))


def views(wide: Wide[str]) -> tuple[list[GrantedView], int]:
    """The store as it is granted, and as it was with all values; the bytes of the first grants."""
    found, size = [], 0
    touches = touches_of(wide, PLACEMENT, OWN)
    for whole in (False, True):
        grants: dict[int, Grant] = {}
        for shard, asked in touches.items():
            if whole:
                asked = [replace(touch, brief=False) for touch in asked]
            prepare = Prepare.decode(Prepare(Attempt(5, 1), 0, 0, asked).encode())
            rows, counts, _ = finish(rows_in_steps(Held(), prepare))  # type: ignore[arg-type]
            grants[shard] = Grant(3, rows, [], counts)
            size += 0 if whole else len(grants[shard].encode())
        found.append(GrantedView(OWN, PLACEMENT, touches, grants, [], wide.homes))
    return found, size


def compared(key: bytes, target: int, result: int) -> pb.Compare:
    given: Any = {0: "version", 1: "create_revision", 2: "mod_revision", 3: "value"}[target]
    return pb.Compare(target=target, result=result, key=key, **{given: VALUE if target == 3 else 3})  # type: ignore[arg-type]


KEY = st.sampled_from(KEYS)
COMPARE = st.builds(compared, KEY, st.integers(0, 3), st.integers(0, 3))
OP = st.one_of(
    st.builds(lambda key: pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"new")), KEY),
    st.builds(lambda key: pb.RequestOp(request_range=pb.RangeRequest(key=key)), KEY),
    st.builds(lambda key: pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)), KEY))


@given(st.lists(COMPARE, max_size=2), st.lists(OP, max_size=4), st.lists(OP, max_size=4))
def test_a_transaction_of_single_keys(compare: list[Any], success: list[Any], failure: list[Any]) -> None:
    body = pb.TxnRequest(compare=compare, success=success, failure=failure).SerializeToString()
    if (plain := plain_txn.read(body)) is None:
        return
    both, _ = views(Wide("c", Method.TXN, body, plain_footprint(plain), [], plain=plain))
    done = [plain_txn.run(view, plain) for view in both]
    (brief, answer), (whole, wanted) = done
    assert (brief.items, brief.writes, answer(9)) == (whole.items, whole.writes, wanted(9))


SHOWN = st.one_of(
    OP,
    st.builds(lambda key: pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"n", prev_kv=True)), KEY),
    st.builds(lambda key: pb.RequestOp(request_put=pb.PutRequest(key=key, ignore_value=True)), KEY),
    st.builds(
        lambda key: pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, prev_kv=True)), KEY),
    st.builds(lambda key: pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=b"z")), KEY),
    st.builds(
        lambda key, end, prev: pb.RequestOp(
            request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=prev)),
        KEY, KEY, st.booleans()))
NESTED = st.builds(
    lambda compare, ops: pb.RequestOp(
        request_txn=pb.TxnRequest(compare=compare, success=ops, failure=ops[:1])),
    st.lists(COMPARE, max_size=1), st.lists(SHOWN, max_size=2))


@given(st.lists(COMPARE, max_size=2), st.lists(SHOWN | NESTED, max_size=4), st.lists(SHOWN, max_size=2))
def test_any_transaction(compare: list[Any], success: list[Any], failure: list[Any]) -> None:
    """The rows of a range that shows them are whole, whatever names the same keys."""
    body = pb.TxnRequest(compare=compare, success=success, failure=failure).SerializeToString()
    wide = Wide("c", Method.TXN, body, footprint(Method.TXN, body), [])
    large = Wide("c", Method.TXN, body, footprint(Method.TXN, body), [])
    survey: Survey = Survey(pb.TxnRequest.FromString(body), PLACEMENT)
    finish(survey.steps())
    survey.tell(large)
    done: list[Any] = []
    for view in views(wide)[0] + views(large)[0]:
        try:
            outcome = requests.txn(view, body, 128)
        except EtcdError as error:
            done.append(error.kind)
        else:
            done.append((outcome.items, outcome.tail))
    assert done == [done[0]] * 4


@pytest.mark.parametrize("named", [{}, {"prev_kv": True}, {"ignore_value": True}, {"ignore_lease": True}])
def test_a_put(named: dict[str, bool]) -> None:
    value = b"" if "ignore_value" in named else b"new"
    body = pb.PutRequest(key=KEYS[0], value=value, **named).SerializeToString()
    both, size = views(Wide("c", Method.PUT, body, footprint(Method.PUT, body), []))
    brief, whole = [requests.put(view, body) for view in both]
    assert (brief.items, brief.tail) == (whole.items, whole.tail)
    assert (size > len(VALUE)) == ("prev_kv" in named or "ignore_value" in named)


def test_small_puts_over_large_values_have_small_grants() -> None:
    """128 of them had 190 MB, which stopped two leaders' loops for half a second each."""
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"new")) for key in KEYS]
    body = pb.TxnRequest(success=ops).SerializeToString()
    plain = plain_txn.read(body)
    assert plain is not None
    _, size = views(Wide("c", Method.TXN, body, plain_footprint(plain), [], plain=plain))
    assert size < len(VALUE)


DELETED, SHOWN_TOO = (
    pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=KEYS[0], range_end=b"z", prev_kv=prev))
    for prev in (False, True))


def of(*keys: bytes, end: bytes = b"", value: bool = False) -> pb.TxnRequest:
    """Deletes a range, and gets or compares keys."""
    compare = [compared(key, 3, 0) for key in keys] if value else []
    gets = [] if value else [
        pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end)) for key in keys]
    return pb.TxnRequest(compare=compare, success=[DELETED, *gets])


@pytest.mark.parametrize(("asked", "small"), [
    (of(), True), (of(b"a"), True), (of(b"a", end=b"c"), True), (of(b"a", value=True), True),
    (of(KEYS[0]), False), (of(b"a", end=b"\0"), False), (of(KEYS[1], value=True), False),
    (pb.TxnRequest(success=[SHOWN_TOO]), False), (pb.TxnRequest(success=[DELETED, SHOWN_TOO]), False)])
def test_a_delete_of_a_range_has_a_small_grant_unless_its_rows_are_shown(
    asked: pb.TxnRequest, small: bool
) -> None:
    """100 keys of 1 MiB had a grant of 105 MB, made in one turn of a loop and read in one of another."""
    body = asked.SerializeToString()
    _, size = views(Wide("c", Method.TXN, body, footprint(Method.TXN, body), []))
    assert (size < len(VALUE)) == small


@pytest.mark.parametrize("prev_kv", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_a_lone_delete_of_a_range(prev_kv: bool, rows: bool) -> None:
    body = pb.DeleteRangeRequest(key=KEYS[0], range_end=b"z", prev_kv=prev_kv).SerializeToString()
    wide = Wide("c", Method.DELETE_RANGE, body, footprint(Method.DELETE_RANGE, body), [], rows=rows)
    both, size = views(wide)
    brief, whole = [requests.delete_range(view, body) for view in both]
    assert (brief.items, brief.tail) == (whole.items, whole.tail)
    assert (size < len(VALUE)) != prev_kv


@pytest.mark.parametrize("rows", [False, True])
def test_a_row_is_granted_once_however_often_it_is_named(rows: bool) -> None:
    """128 compares of one key of 1 MB had 128 MB, five times that in memory, and no end."""
    compare = [compared(KEYS[0], 3, 0)] * 60
    ends = [KEYS[0] + b"0", KEYS[1], KEYS[2], b"z"]
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=KEYS[0], value=b"new", prev_kv=True))]
    deletes = [
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k", range_end=end)) for end in ends]
    body = pb.TxnRequest(compare=compare, success=ops, failure=deletes).SerializeToString()
    wide = Wide("c", Method.TXN, body, footprint(Method.TXN, body), [], rows=rows)
    touches = [touch for asked in touches_of(wide, PLACEMENT, OWN).values() for touch in asked]
    assert len([touch for touch in touches if touch.key == KEYS[0]]) == (not rows)
    _, size = views(wide)
    assert size < 2 * 3 * (len(VALUE) + 100)  # either shard holds all three here


@pytest.mark.parametrize("first", [False, True])
def test_a_delete_that_shows_its_rows_brings_no_values_to_its_neighbours(first: bool) -> None:
    """Those of untouched gigabytes were granted where all rows are sent."""
    a, b, c = sorted(KEYS[:3])
    deletes = [
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=a, range_end=b, prev_kv=first)),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b, range_end=c, prev_kv=not first)),
    ]
    body = pb.TxnRequest(success=deletes).SerializeToString()
    (brief, whole), size = views(Wide("c", Method.TXN, body, footprint(Method.TXN, body), [], rows=True))
    done = [requests.txn(view, body, 128) for view in (brief, whole)]
    assert (done[0].items, done[0].tail) == (done[1].items, done[1].tail)
    assert size < 2 * (len(VALUE) + 300)  # of either shard one value


def test_a_key_that_is_compared_and_put_is_touched_once_in_a_survey() -> None:
    request = pb.TxnRequest(compare=[compared(KEYS[0], 3, 0)] * 9, success=[
        pb.RequestOp(request_put=pb.PutRequest(key=KEYS[0], value=b"new"))])
    survey = Survey(request, PLACEMENT)
    finish(survey.steps())
    wide = Wide("c", Method.TXN, b"", footprint(Method.TXN, b""), [])
    survey.tell(wide)
    assert wide.surveyed is not None
    (touch,) = [touch for asked in wide.surveyed.values() for touch in asked]
    assert (touch.write, touch.brief) == (True, False)
