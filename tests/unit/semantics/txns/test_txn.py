"""Transactions: what the contract's tables say, row by row, and what a refused one leaves behind."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.evaluate import requests as evaluate
from cluster.evaluate import validate
from cluster.evaluate.txns import pending
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint
from tests.unit.semantics.memory import MemoryShard, check_body, refusal

PAUSE = (b"", b"")


def put(key: bytes, value: bytes = b"v", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, **more))


def delete(key: bytes, end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))


def get(key: bytes, end: bytes = b"", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, **more))


def nested(then: list[Any], otherwise: list[Any] | None = None) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=then, failure=otherwise or []))


def run(shard: MemoryShard, *ops: pb.RequestOp, compare: list[Any] | None = None) -> pb.TxnResponse:
    revision, tail = shard.execute(
        Method.TXN, pb.TxnRequest(compare=compare or [], success=ops).SerializeToString())
    response = pb.TxnResponse.FromString(tail)
    response.header.revision = revision
    return response


def check(*ops: pb.RequestOp) -> None:
    validate.check_txn(pb.TxnRequest(success=ops), 128)


K = b"k"


@pytest.mark.parametrize("ops", [
    [put(K), put(K)],
    [put(K), delete(K)],
    [delete(K), put(K)],
    [put(K), delete(b"j", b"l")],
    [delete(b"j", b"l"), put(K)],
    [put(K), nested([put(K)])],
    [nested([put(K)]), put(K)],
    [put(K), nested([delete(K)])],
    [put(K), nested([], [delete(b"j", b"l")])],
    [delete(b"j", b"l"), nested([put(K)])],
    [nested([put(K)]), delete(b"j", b"l")],
    [nested([put(K)]), nested([], [put(K)])],
    [nested([delete(K)]), nested([put(K)])],
    [nested([nested([put(K)])]), put(K)],
])
def test_a_key_put_twice_or_put_and_deleted_is_refused(ops: list[pb.RequestOp]) -> None:
    assert refusal(lambda: check(*ops)).kind == errors.DUPLICATE_KEY
    assert refusal(lambda: validate.check_txn(pb.TxnRequest(failure=ops), 128)).kind == errors.DUPLICATE_KEY
    assert refusal(lambda: check(nested(ops))).kind == errors.DUPLICATE_KEY


@pytest.mark.parametrize("ops", [
    [put(K), put(b"l")],
    [delete(K), delete(b"j", b"l")],
    [nested([put(K)], [put(K)])],
    [nested([put(K)]), nested([delete(K)])],  # the order that etcd does not see
    [delete(b"j", K), put(K)],
    [delete(b"j", b"\0"), put(K)],  # nor does it see that this covers the key
    [delete(b"l", b"j"), put(K)],
    [put(K), get(K)],
])
def test_other_combinations_are_allowed(ops: list[pb.RequestOp]) -> None:
    check(*ops)
    validate.check_txn(pb.TxnRequest(success=[put(K)], failure=[put(K)]), 128)


def test_nested_transactions_have_what_their_parents_left_of_the_budget() -> None:
    read = get(b"a")
    validate.check_txn(pb.TxnRequest(success=[read] * 128), 128)
    validate.check_txn(pb.TxnRequest(success=[*[read] * 63, nested([read] * 64)]), 128)
    for request in (
        pb.TxnRequest(success=[read] * 129),
        pb.TxnRequest(failure=[read] * 129),
        pb.TxnRequest(compare=[pb.Compare(key=b"a")] * 129),
        pb.TxnRequest(success=[*[read] * 63, nested([read] * 65)]),
        pb.TxnRequest(failure=[read] * 63, success=[nested([read] * 66)]),
    ):
        assert refusal(lambda request=request: validate.check_txn(request, 128)).kind == errors.TOO_MANY_OPS  # type: ignore[misc]


@pytest.mark.parametrize(("depth", "refused"), [(48, False), (49, True), (50, True), (127, True)])
def test_transactions_are_nested_as_deep_as_an_answer_can_be_read(depth: int, refused: bool) -> None:
    """A write that was committed had an answer that the gateway could not read."""
    body = pb.TxnRequest(success=[put(K)]).SerializeToString()
    written = pb.ResponseOp(response_put=pb.PutResponse(header=pb.ResponseHeader(revision=1)))
    answer = pb.TxnResponse(responses=[written]).SerializeToString()
    for _ in range(depth):  # by their wire form: the library makes none so deep
        operation = b"\x22" + varint(len(body)) + body
        body = b"\x12" + varint(len(operation)) + operation
        response = b"\x22" + varint(len(answer)) + answer
        answer = b"\x1a" + varint(len(response)) + response
    if refused:
        error = refusal(lambda: check_body(Method.TXN, body, 128))
        assert error.kind == errors.TOO_MANY_OPS
    else:
        check_body(Method.TXN, body, 128)
        pb.TxnResponse.FromString(answer)


@pytest.mark.parametrize(("request_", "kind"), [
    (pb.TxnRequest(compare=[pb.Compare()]), errors.EMPTY_KEY),
    (pb.TxnRequest(success=[put(b"")]), errors.EMPTY_KEY),
    (pb.TxnRequest(failure=[delete(b"")]), errors.EMPTY_KEY),
    (pb.TxnRequest(failure=[nested([get(b"")])]), errors.EMPTY_KEY),
    (pb.TxnRequest(success=[pb.RequestOp()]), errors.KEY_NOT_FOUND),
    (pb.TxnRequest(success=[put(K), put(K)], failure=[pb.RequestOp()]), errors.KEY_NOT_FOUND),
    (pb.TxnRequest(success=[put(K, ignore_value=True)]), errors.VALUE_PROVIDED),
    (pb.TxnRequest(success=[put(K, lease=1, ignore_lease=True)]), errors.LEASE_PROVIDED),
    (pb.TxnRequest(success=[get(K, sort_order=7)]), errors.INVALID_SORT_OPTION),
])
def test_field_checks_come_before_those_of_keys(request_: pb.TxnRequest, kind: errors.ErrorKind) -> None:
    assert refusal(lambda: validate.check_txn(request_, 128)).kind == kind


def test_a_range_sees_the_writes_before_it_and_none_after() -> None:
    shard = MemoryShard()
    run(shard, put(b"a", b"0"))
    response = run(
        shard, get(b"a", b"c"), put(b"a", b"1"), get(b"a", b"c"), nested([put(b"b")]), get(b"a", b"c"),
        delete(b"a0"), get(b"a", revision=2),
    )
    values = [
        [kv.value for kv in r.response_range.kvs] for r in response.responses if r.HasField("response_range")
    ]
    assert values == [[b"0"], [b"1"], [b"1", b"v"], [b"0"]]
    revisions = [r.response_range.header.revision for r in response.responses if r.HasField("response_range")]
    assert revisions == [2, 3, 3, 3]
    assert response.header.revision == 3


def test_a_nested_header_is_present_and_empty() -> None:
    response = run(MemoryShard(), nested([put(b"a")]))
    inner = response.responses[0].response_txn
    assert inner.HasField("header")
    assert inner.header == pb.ResponseHeader()
    assert inner.responses[0].response_put.header.revision == 2


def test_compares_of_nested_transactions_see_the_state_before_the_outer_one() -> None:
    absent = pb.Compare(key=b"a", target=pb.Compare.CREATE, create_revision=0)
    inner = pb.RequestOp(
        request_txn=pb.TxnRequest(compare=[absent], success=[put(b"b")], failure=[put(b"c")])
    )
    shard = MemoryShard()
    response = run(shard, put(b"a"), inner)
    assert response.responses[1].response_txn.succeeded
    assert shard.get(b"b")
    assert not shard.get(b"c")


@pytest.mark.parametrize(("compare", "holds"), [
    (pb.Compare(key=b"no", target=pb.Compare.VERSION, version=0), True),
    (pb.Compare(key=b"no", target=pb.Compare.LEASE, result=pb.Compare.LESS, lease=1), True),
    (pb.Compare(key=b"no", target=pb.Compare.VALUE, value=b""), False),
    (pb.Compare(key=b"no", target=pb.Compare.VALUE, result=pb.Compare.NOT_EQUAL, value=b"x"), False),
    (pb.Compare(key=b"a", target=pb.Compare.VALUE, value=b"1"), True),
    (pb.Compare(key=b"a", target=pb.Compare.VALUE, result=pb.Compare.GREATER, value=b"0"), True),
    (pb.Compare(key=b"a", target=pb.Compare.MOD, mod_revision=2), True),
    (pb.Compare(key=b"a", target=pb.Compare.MOD, create_revision=2), False),  # another kind counts as 0
    (pb.Compare(key=b"a", target=pb.Compare.VERSION, result=pb.Compare.NOT_EQUAL, version=1), False),
    (pb.Compare(key=b"a", range_end=b"c", target=pb.Compare.VERSION, version=1), True),
    (pb.Compare(key=b"a", range_end=b"c", target=pb.Compare.VALUE, value=b"1"), False),
    (pb.Compare(key=b"x", range_end=b"z", target=pb.Compare.VERSION, version=0), True),
    (pb.Compare(key=b"x", range_end=b"z", target=pb.Compare.VALUE), False),
    (pb.Compare(key=b"b", range_end=b"a", target=pb.Compare.CREATE, create_revision=0), True),
])
def test_compares(compare: pb.Compare, holds: bool) -> None:
    shard = MemoryShard()
    run(shard, put(b"a", b"1"), put(b"b", b"2"))
    assert run(shard, compare=[compare]).succeeded == holds


def test_a_transaction_that_only_reads_or_deletes_nothing_takes_no_revision() -> None:
    shard = MemoryShard()
    for ops in ([], [get(b"a")], [delete(b"a")], [nested([delete(b"a", b"\0")])]):
        assert run(shard, *ops).header.revision == 1


@pytest.mark.parametrize(("ops", "kind"), [
    ([put(b"b"), put(b"a", lease=9)], errors.LEASE_NOT_FOUND),
    ([put(b"b"), put(b"a", b"", ignore_value=True)], errors.KEY_NOT_FOUND),
    ([put(b"b"), get(b"a", revision=99)], errors.FUTURE_REV),
    ([get(b"a", revision=99), put(b"a", lease=9)], errors.LEASE_NOT_FOUND),
    ([put(b"a", lease=9), put(b"b", b"", ignore_value=True)], errors.LEASE_NOT_FOUND),
    ([put(b"a", b"", lease=9, ignore_value=True)], errors.KEY_NOT_FOUND),  # a plain put says LeaseNotFound
    # etcd's process ends here: it does not see that the delete covers the put
    ([delete(b"\0", b"\0"), put(b"x", b"", ignore_value=True)], errors.KEY_NOT_FOUND),
])
def test_a_refused_transaction_leaves_no_trace(ops: list[pb.RequestOp], kind: errors.ErrorKind) -> None:
    shard = MemoryShard()
    run(shard, put(b"x"))
    before = (dict(shard.history), shard.revision, list(shard.events))
    assert refusal(lambda: run(shard, *ops)).kind == kind
    assert (shard.history, shard.revision, shard.events) == before


def test_values_that_a_transaction_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of 720 bytes logged 56 MB: the leader that sent it fell."""
    monkeypatch.setattr(pending, "MOST_KEPT_BYTES", 2500)
    shard = MemoryShard()
    run(shard, *[put(b"%d" % at, bytes(1000)) for at in range(3)])
    keeping = [put(b"%d" % at, b"", ignore_value=True) for at in range(3)]
    assert len(run(shard, *keeping[:2], put(b"2", bytes(5000))).responses) == 3
    run(shard, put(b"2", bytes(1000)))
    before = (dict(shard.history), shard.revision, list(shard.events))
    assert refusal(lambda: run(shard, *keeping)).kind == errors.REQUEST_TOO_LARGE
    assert refusal(lambda: run(shard, keeping[0], nested(keeping[1:]))).kind == errors.REQUEST_TOO_LARGE
    assert (shard.history, shard.revision, shard.events) == before


def test_long_keys_of_a_deleted_range_are_not_spelled_out() -> None:
    """256 keys of 1 MB made an entry that no follower took in time: the leader fell with each attempt."""
    shard, keys = MemoryShard(), [b"%03d" % at + bytes(20_000) for at in range(200)]
    for key in keys:
        run(shard, put(key))
    request = pb.DeleteRangeRequest(key=b"0", range_end=b"1").SerializeToString()
    assert evaluate.delete_range(shard, request).items == records.delete_range(b"0", b"1", 100)
    few = pb.DeleteRangeRequest(key=b"00", range_end=b"01").SerializeToString()
    assert evaluate.delete_range(shard, few).items == records.txn([records.delete(key) for key in keys[:10]])
    ranges = [delete(b"%02d" % at, b"%02d:" % at) for at in range(20)]
    outcome = evaluate.txn(shard, pb.TxnRequest(success=ranges).SerializeToString(), 128)
    assert len(outcome.items) < (1 << 20) + 10_000
    assert [op.response_delete_range.deleted for op in run(shard, *ranges).responses] == [10] * 20
    assert not list(shard.scan(b"0", b"2"))
    assert [key for _, _, key, _ in shard.events[-200:]] == keys


def test_few_of_the_values_in_a_deleted_range_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 rows were, of 1 MB each: the leader's turn took as long as an election."""
    shard = MemoryShard()
    for at in range(200):
        run(shard, put(b"%03d" % at, bytes(20_000)))
    read = [0]
    scan = MemoryShard.scan

    def counted(self: MemoryShard, *span: Any) -> Iterator[tuple[bytes, bytes]]:
        for row in scan(self, *span):
            read[0] += len(row[1])
            yield row

    monkeypatch.setattr(MemoryShard, "scan", counted)
    monkeypatch.setattr(MemoryShard, "count", lambda self, *span: sum(1 for _ in scan(self, *span)))
    request = pb.DeleteRangeRequest(key=b"0", range_end=b"1").SerializeToString()
    assert evaluate.delete_range(shard, request).items == records.delete_range(b"0", b"1", 100)
    assert GRAIN.delete_bytes < read[0] <= GRAIN.delete_bytes + 20_100
    few = pb.DeleteRangeRequest(key=b"00", range_end=b"01").SerializeToString()
    named = records.txn([records.delete(b"%03d" % at) for at in range(10)])
    assert evaluate.delete_range(shard, few).items == named


def test_a_range_in_which_a_transaction_has_written_is_deleted_as_the_parts_between() -> None:
    """All its keys were named and read, with their values: 200 MB in one turn."""
    shard, keys = MemoryShard(), [b"%03d" % at + bytes(20_000) for at in range(200)]
    for key in keys:
        run(shard, put(key))
    among = [put(b"0500"), delete(keys[70]), delete(keys[71]), delete(b"0", b"\0")]
    outcome = evaluate.txn(shard, pb.TxnRequest(success=among).SerializeToString(), 128)
    assert len(outcome.items) < 200_000
    ends = [keys[70], keys[71] + b"\0"]
    assert list(outcome.ranges) == [(b"0", b"0500"), (b"0500\0", ends[0]), (ends[1], b"\0")]
    assert [op.response_delete_range.deleted for op in run(shard, *among).responses[1:]] == [1, 1, 199]
    assert not list(shard.scan(b"0", b"\0"))
    left = [key for key in keys if key not in keys[70:72]]
    told = [b"0500", *keys[70:72], *left[:51], b"0500", *left[51:]]
    assert [key for _, _, key, _ in shard.events[-202:]] == told


def test_keys_among_very_many_that_are_gone_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader's turn walked over all of them."""
    shard = MemoryShard()
    run(shard, put(b"1"), put(b"2"))
    scan, seen = MemoryShard.scan, []

    def sparse(self: MemoryShard, *span: Any) -> Iterator[tuple[bytes, bytes]]:
        for row in scan(self, *span):
            yield from (row, PAUSE, PAUSE)
            seen.append(row)

    monkeypatch.setattr(MemoryShard, "scan", sparse)
    monkeypatch.setattr(MemoryShard, "count", lambda self, *span: sum(1 for _ in scan(self, *span)))
    request = pb.DeleteRangeRequest(key=b"0", range_end=b"3").SerializeToString()
    assert evaluate.delete_range(shard, request).items == records.delete_range(b"0", b"3", 2)
    among = pb.TxnRequest(success=[delete(b"1"), delete(b"0", b"3")]).SerializeToString()
    deletes = [records.delete(b"1"), records.delete_range(b"1\0", b"3", 1)]
    assert evaluate.txn(shard, among, 128).items == records.txn(deletes)
    assert not seen


def test_a_delete_of_everything_and_a_put_make_a_new_key() -> None:
    shard = MemoryShard()
    run(shard, put(K, b"1"))
    run(shard, delete(b"\0", b"\0"), put(K, b"2"))
    assert shard.current(K) == (3, 3, 1, 0)
    run(shard, put(K, b"3"), delete(K, b"\0"))
    assert shard.get(K) is None


def test_one_change_is_logged_as_itself() -> None:
    outcome = evaluate.txn(MemoryShard(), pb.TxnRequest(success=[put(K), get(K)]).SerializeToString(), 128)
    assert outcome.items == records.put(K, 0, 1, b"v", 0)


def test_bodies_that_are_no_message_are_refused() -> None:
    for method in (Method.PUT, Method.RANGE, Method.DELETE_RANGE, Method.TXN):
        assert (
            refusal(lambda method=method: check_body(method, b"\xff", 128)).kind
            == errors.MALFORMED_REQUEST
        )  # type: ignore[misc]
    check_body(Method.COMPACT, b"", 128)


@pytest.mark.parametrize(
    ("compacted", "revision", "kind"),
    [
        (0, -1, None), (0, -2, errors.COMPACTED), (3, -1, errors.COMPACTED), (3, 2, errors.COMPACTED),
        (3, 3, None), (3, 0, None), (3, 5, None), (3, 6, errors.FUTURE_REV),
    ],
)
def test_negative_revisions_count_as_compacted_once_anything_is(
    compacted: int, revision: int, kind: errors.ErrorKind | None
) -> None:
    shard = MemoryShard()
    shard.revision, shard.compact_revision = 5, compacted
    if kind is None:
        run(shard, get(K, revision=revision))
    else:
        assert refusal(lambda: run(shard, get(K, revision=revision))).kind == kind
