"""Transactions of single keys: the same effect, answer and refusals as through the message, whatever is
asked."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.effects.records import PENDING_REVISION
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate import validate
from cluster.evaluate.footprint import Footprint, add_txn, footprint, is_read_only, is_serializable
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns import transactions as txn_eval
from cluster.evaluate.view import Outcome
from cluster.order.leading.pending import Blocked, Elsewhere
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.unit.semantics.memory import MemoryShard

MAX_OPS = 4
KEYS = [b"a", b"b", b"c", b"k" * 127]
VALUES = [b"", b"0", b"1", b"v" * 127, b"v" * 128, b"v" * 20_000]
GIVEN = ["version", "create_revision", "mod_revision", "value", "lease"]


def a_key(r: Random) -> bytes:
    return r.choice(KEYS) if r.random() > 0.03 else r.choice([b"", b"k" * 128])


def a_compare(r: Random) -> Any:
    target = r.randrange(5)
    compare = pb.Compare(key=a_key(r), result=r.randrange(4), target=target)  # type: ignore[arg-type]
    field = GIVEN[target] if r.random() > 0.05 else r.choice([*GIVEN, ""])
    if field == "value":
        compare.value = r.choice(VALUES)
    elif field:
        setattr(compare, field, r.choice([0, 1, 2, 3, 7, 8, 127, 128, 300, 1 << 40, -1]))
    if r.random() < 0.03:
        compare.range_end = b"z"
    if r.random() < 0.02:
        compare.result = 9  # type: ignore[assignment]
    return compare


def an_op(r: Random) -> Any:
    roll = r.random()
    if roll < 0.4:
        put = pb.PutRequest(key=a_key(r), value=r.choice(VALUES))
        if r.random() < 0.3:
            put.lease = r.choice([7, 200, 9, -3])  # 9 is not there
        if r.random() < 0.05:
            put.prev_kv = True
        if r.random() < 0.03:
            put.ignore_value = True
        return pb.RequestOp(request_put=put)
    if roll < 0.75:
        get = pb.RangeRequest(key=a_key(r), serializable=r.random() < 0.3)
        if r.random() < 0.3:
            get.revision = r.choice([1, 2, 3, 5, 127, 128, 16_384, 16_386, (1 << 33) + 2, -1])
        if r.random() < 0.03:
            get.range_end = b"z"
        return pb.RequestOp(request_range=get)
    if roll < 0.97:
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=a_key(r), prev_kv=r.random() < 0.05))
    return pb.RequestOp(request_txn=a_txn(r)) if roll < 0.99 else pb.RequestOp()


def a_txn(r: Random) -> Any:
    return pb.TxnRequest(
        compare=[a_compare(r) for _ in range(r.choice([0, 1, 1, 2]))],
        success=[an_op(r) for _ in range(r.choice([0, 1, 2, 3]))],
        failure=[an_op(r) for _ in range(r.choice([0, 1, 1, 5]))])


def through_messages(view: Any, body: bytes) -> Outcome:
    message = validate.parse(pb.TxnRequest.FromString, body)
    validate.check_txn(message, MAX_OPS)
    return txn_eval.txn(view, message)


def said(run: Any, *args: Any) -> Any:
    try:
        found = run(*args)
    except EtcdError as e:
        return e.kind.name
    if isinstance(found, Outcome):
        return found.items, found.changed, found.tail, found.writes, found.revision, list(found.ranges)
    return found


def a_shard(r: Random) -> MemoryShard:
    shard = MemoryShard()
    shard.revision = r.choice([1, 125, 16_380, 1 << 33])
    shard.leases = {7: 60, 200: 60}
    for _ in range(r.randrange(6)):
        put = pb.PutRequest(key=r.choice(KEYS), value=r.choice(VALUES), lease=r.choice([0, 7, 200]))
        shard.execute(Method.PUT, put.SerializeToString())
    return shard


@given(st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None)
def test_it_does_what_it_does_as_a_message(seed: int) -> None:
    r = Random(seed)
    shard = a_shard(r)
    for _ in range(8):
        body = a_txn(r).SerializeToString()
        assert said(evaluate.txn, shard, body, MAX_OPS) == said(through_messages, shard, body)
        said(shard.execute, Method.TXN, body, MAX_OPS)


def test_most_transactions_of_single_keys_are_of_the_form_and_all_outcomes_are_met() -> None:
    """The comparison above must compare something."""
    r = Random(1)
    met = {"plain": 0, "succeeded": 0, "changed": 0, "several": 0, "refused": 0}
    for _ in range(3000):
        shard, body = a_shard(r), a_txn(r).SerializeToString()
        plain = plain_txn.read(body)
        if plain is None or plain.ops() > MAX_OPS:
            continue
        met["plain"] += 1
        try:
            outcome = evaluate.txn(shard, body, MAX_OPS)
        except EtcdError:
            met["refused"] += 1
            continue
        met["succeeded"] += outcome.tail[:1] == b"\x10"
        met["changed"] += outcome.changed
        met["several"] += len(outcome.writes) > 1
    assert min(met.values()) > 20, met


@given(st.integers(0, 1 << 32), st.binary(min_size=1, max_size=3), st.integers(0, 400), st.integers(0, 3))
@settings(max_examples=1000, deadline=None)
def test_any_bytes_mean_what_protobuf_says_they_mean(seed: int, noise: bytes, at: int, cut: int) -> None:
    body = a_txn(Random(seed)).SerializeToString()
    at %= len(body) + 1
    check_bytes(body[:at] + noise + body[at + cut :])


@given(st.binary(max_size=40))
@example(b"\x12\x07\x12\x05\x0a\x01k\x12\x00")  # an empty value that is there
@example(b"\x12\x09\x12\x07\x0a\x01k\x12\x82\x00vv")  # a length in more bytes than it needs
@example(b"\x12\x08\x12\x06\x0a\x01k\x18\x87\x00")
@example(b"\x0a\x05\x1a\x01k\x20\x00")
@example(b"\x0a\x06\x1a\x01k\x20\x80\x00")
@example(b"\x0a\x03\x1a\x01k")  # nothing given
@example(b"\x0a\x05\x10\x03\x1a\x01k\x12\x05\x0a\x03\x0a\x01k")
@example(b"\x12\x0a\x0a\x03\x0a\x01k\x12\x03\x0a\x01k")  # two operations in one: the last counts
@example(b"\x12\x07\x0a\x05\x0a\x01k\x12\x00")  # an empty end that is there
@example(b"\x12\x07\x0a\x05\x0a\x01k\x20\x00")  # a revision that is none
@example(b"\x12\x09\x0a\x07\x0a\x01k\x20\x02\x38\x01")
@example(b"\x12\x09\x0a\x07\x0a\x01k\x38\x01\x20\x02")
@example(b"\x12\x08\x0a\x06\x0a\x01k\x20\x82\x00")
@example(b"\x12\x00")
@example(b"\x12\x02\x12\x00")
@example(b"\x12\x05\x0a\x03\x0a\x01k\x1a\x05\x0a\x03\x0a\x05")
@settings(max_examples=1500, deadline=None)
def test_arbitrary_bytes_too(body: bytes) -> None:
    check_bytes(body)


def check_bytes(body: bytes) -> None:
    shard = a_shard(Random(3))
    plain = plain_txn.read(body)
    assert said(evaluate.txn, shard, body, MAX_OPS) == said(through_messages, shard, body)
    if plain is None:
        return
    message = pb.TxnRequest.FromString(body)
    if plain.ops() <= MAX_OPS:
        validate.check_txn(message, MAX_OPS)
    found, expected = footprint(Method.TXN, body), Footprint()
    finish(add_txn(expected, message))
    assert (sorted(found.reads), sorted(found.writes), found.leases) == (
        sorted(expected.reads), sorted(expected.writes), expected.leases)
    assert {(key, b"") for key in plain.keys()} == {*found.reads, *found.writes}  # noqa: SIM118 - no mapping
    assert plain.read_only == is_read_only(message)
    if plain.read_only:
        assert plain.serializable == is_serializable(message)


@pytest.mark.parametrize("before", [
    b"\x0a",  # a compare's size
    b"\x12",  # an operation's
    b"\x12\x85\x80\x7a\x12",  # a put's
    b"\x0a\x80\x80\x7a\x08\x00\x10\x00\x1a\x01k\x20",  # a version to compare with
    b"\x12\x80\x80\x7a\x12\xfc\xff\x79\x0a\x01k\x18",  # a lease
    b"\x12\x80\x80\x7a\x0a\xfc\xff\x79\x0a\x01k\x20",  # a revision
])
def test_a_number_that_does_not_end_is_left_to_the_parser(before: bytes) -> None:
    assert plain_txn.read(before + b"\xff" * 2_000_000) is None


def test_one_of_many_more_operations_than_are_allowed_is_told_before_it_is_read() -> None:
    for field in (b"\x12\x05\x0a\x03\x0a\x01k", b"\x0a\x03\x1a\x01k"):
        assert plain_txn.read(field * 24) is not None
        assert not plain_txn.has_more(field * 24, 24)
        assert plain_txn.has_more(field * 25, 24)
    lines = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"\n" * 1000))] * 3)
    assert not plain_txn.has_more(lines.SerializeToString(), 3)
    assert plain_txn.has_more(lines.SerializeToString(), 2)
    assert not plain_txn.has_more(b"\x12" + b"\xff" * 1000, 3)


@pytest.mark.parametrize("ops", [
    [pb.RequestOp(request_put=pb.PutRequest(key=b"a")), pb.RequestOp(request_put=pb.PutRequest(key=b"a"))],
    [pb.RequestOp(request_put=pb.PutRequest(key=b"a")),
     pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a"))],
])
def test_what_is_refused_for_its_form_is_not_of_it(ops: list[pb.RequestOp]) -> None:
    for request in (pb.TxnRequest(success=ops), pb.TxnRequest(failure=ops)):
        body = request.SerializeToString()
        assert plain_txn.read(body) is None
        assert said(evaluate.txn, MemoryShard(), body, MAX_OPS) == errors.DUPLICATE_KEY.name


class ViaMessages(ShardLeader[int]):
    """A shard's leader to which no transaction is of the form."""

    def _txn(self, body: bytes) -> Any:
        assert plain_txn.read(body) is not None
        real, plain_txn.read = plain_txn.read, lambda data: None
        try:
            outcome, late = super()._txn(body)
        finally:
            plain_txn.read = real
        return outcome, late


@given(st.integers(0, 1 << 32))
@settings(max_examples=200, deadline=None)
def test_with_pending_revisions_too(seed: int) -> None:
    """At a leader of another shard than 0: what waits, what only the sequencer can tell, effects, and answers bound later."""
    r = Random(seed)
    bodies = [pb.PutRequest(key=k, value=b"0").SerializeToString() for k in KEYS[: r.randrange(3)]]
    leaders = []
    for kind in (ShardLeader[int], ViaMessages):
        shard = a_shard(Random(5))
        leader = kind(shard_store(shard), 1, 1, Start(1, 0), max_txn_ops=MAX_OPS)
        leader.serve()
        for body in bodies:
            leader.view.take(evaluate.put(leader.view, body))
        leader._bound.bind(PENDING_REVISION, shard.revision)
        leaders.append(leader)
    for _ in range(6):
        body = a_txn(r).SerializeToString()
        plain = plain_txn.read(body)
        if plain is None or plain.ops() > MAX_OPS:
            continue
        ways: list[Any] = []
        for leader in leaders:
            try:
                outcome, late = leader._txn(body)
            except (Blocked, Elsewhere, EtcdError) as e:
                ways.append(repr(e))
                continue
            ways.append((outcome.items, outcome.changed, [(k, None if v is None else v[:4]) for k, v in outcome.writes],
                         [late(shard.revision + more) for more in (0, 1, 126, 16_384, 1 << 40)]))
            leader.view.take(outcome)
        assert ways[0] == ways[1], pb.TxnRequest.FromString(body)


def shard_store(shard: MemoryShard) -> Any:
    class Store:
        """The applied state of ``cluster.evaluate.replica`` over the model."""

        revision, compact_revision = shard.revision, 0
        current, get, scan = staticmethod(shard.current), staticmethod(shard.get), staticmethod(shard.scan)
        live_count = staticmethod(shard.count)
        lease = staticmethod(shard.leases.get)

    return Store()
