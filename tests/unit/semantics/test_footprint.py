"""Footprints: what conflicts must be found."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.evaluate.footprint import (
    Footprint,
    footprint,
    is_read_only,
    is_serializable,
    overlap,
)
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method

from .memory import refusal

UNIVERSE = [bytes(k) for k in ([0], [0, 0], [1], [1, 0], [1, 1], [2], [2, 0], [3], [255], [255, 255])]
keys = st.sampled_from(UNIVERSE)
spans = st.tuples(keys, st.one_of(st.just(b""), st.just(b"\0"), keys))


def holds(span: tuple[bytes, bytes], key: bytes) -> bool:
    start, end = span
    return key == start if not end else start <= key and (end == b"\0" or key < end)


@given(spans, spans)
@settings(max_examples=2000, deadline=None)
def test_spans_with_a_common_key_overlap(a: tuple[bytes, bytes], b: tuple[bytes, bytes]) -> None:
    if any(holds(a, key) and holds(b, key) for key in UNIVERSE):
        assert overlap(a, b)
        assert overlap(b, a)


def test_spans_apart_do_not_overlap() -> None:
    assert not overlap((b"a", b""), (b"b", b""))
    assert not overlap((b"a", b"b"), (b"b", b"c"))
    assert not overlap((b"b", b"\0"), (b"a", b""))
    assert not overlap((b"b", b"a"), (b"b", b""))
    assert overlap((b"a", b"\0"), (b"z", b""))
    assert overlap((b"a", b"a\0"), (b"a", b""))


def txn() -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[pb.Compare(key=b"/a/b/c", range_end=b"/a/b/d")],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"/a/b/p", lease=7))],
        failure=[
            pb.RequestOp(request_range=pb.RangeRequest(key=b"/x/y/r")),
            pb.RequestOp(request_txn=pb.TxnRequest(success=[pb.RequestOp(
                request_delete_range=pb.DeleteRangeRequest(key=b"/a/b/", range_end=b"/a/b0"))]))])


def test_both_branches_and_nested_transactions_count() -> None:
    found = footprint(Method.TXN, txn().SerializeToString())
    assert found == Footprint(
        reads=[(b"/a/b/c", b"/a/b/d"), (b"/x/y/r", b"")],
        writes=[(b"/a/b/p", b""), (b"/a/b/", b"/a/b0")], leases={7})


def test_every_method() -> None:
    put = pb.PutRequest(key=b"k", lease=3).SerializeToString()
    assert footprint(Method.PUT, put) == Footprint(writes=[(b"k", b"")], leases={3})
    range_ = pb.RangeRequest(key=b"k", range_end=b"l").SerializeToString()
    assert footprint(Method.RANGE, range_) == Footprint(reads=[(b"k", b"l")])
    delete = pb.DeleteRangeRequest(key=b"k").SerializeToString()
    assert footprint(Method.DELETE_RANGE, delete) == Footprint(writes=[(b"k", b"")])
    assert footprint(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=4).SerializeToString()).leases == {4}
    assert footprint(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=4).SerializeToString()).leases == {4}
    assert footprint(Method.COMPACT, b"") == Footprint()
    assert refusal(lambda: footprint(Method.PUT, b"\xff")).kind == errors.MALFORMED_REQUEST


def test_reads_do_not_conflict_with_reads() -> None:
    read, write = Footprint(reads=[(b"a", b"c")]), Footprint(writes=[(b"b", b"")])
    assert not read.conflicts(read)
    assert read.conflicts(write)
    assert write.conflicts(read)
    assert write.conflicts(write)
    assert Footprint(leases={1}).conflicts(Footprint(leases={1, 2}))
    assert not Footprint(leases={1}).conflicts(Footprint(leases={2}))


def test_only_transactions_of_ranges_alone_are_read_only() -> None:
    local = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", serializable=True))
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"a"))
    assert is_read_only(pb.TxnRequest())
    assert is_serializable(pb.TxnRequest())
    assert is_read_only(pb.TxnRequest(success=[local], failure=[read]))
    assert not is_serializable(pb.TxnRequest(success=[local], failure=[read]))
    assert not is_read_only(pb.TxnRequest(success=[read], failure=[put]))
    assert not is_read_only(pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest())]))
