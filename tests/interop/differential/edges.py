"""Requests that chance seldom makes, for a store that nothing has happened to yet. In order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.pb import rpc_pb2 as pb

from .steps import Step, too_many_ops

Put, Range, Delete = pb.PutRequest, pb.RangeRequest, pb.DeleteRangeRequest


def _put(key: bytes, value: bytes = b"v", **more: object) -> pb.RequestOp:
    return pb.RequestOp(request_put=Put(key=key, value=value, **more))  # type: ignore[arg-type]


def _delete(key: bytes, end: bytes = b"", prev_kv: bool = False) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=Delete(key=key, range_end=end, prev_kv=prev_kv))


def _range(key: bytes, end: bytes = b"", **more: object) -> pb.RequestOp:
    return pb.RequestOp(request_range=Range(key=key, range_end=end, **more))  # type: ignore[arg-type]


def _nested(then: list[pb.RequestOp], otherwise: list[pb.RequestOp] | None = None) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=then, failure=otherwise or []))


def _txn(*ops: pb.RequestOp) -> Step:
    return Step("Txn", pb.TxnRequest(success=ops))


def edges() -> Iterator[Step]:
    """All of them."""
    # before the first write: the revision is 1
    yield Step("Range", Range(key=b"a"))
    yield Step("Range", Range(key=b"a", revision=1))
    yield Step("Range", Range(key=b"a", revision=2))
    yield Step("Range", Range(key=b"a", revision=-1))
    yield Step("DeleteRange", Delete(key=b"a"))
    yield Step("Txn", pb.TxnRequest())
    for revision in (-2, -1, 0, 1, 2):
        yield _txn(_range(b"a", revision=revision))
    for key in (b"a", b"b", b"c", b"/d/1", b"/e/1"):  # an empty range, at whichever shard has the key
        yield _txn(_range(b"z", b"b", revision=99), _put(key))
    # not 0: etcd tells "never compacted" (-1) from "compacted at 0", which nothing depends on but a second
    # compaction at 0 and negative revisions in transactions; muster does not
    for revision in (-1, 2):
        yield Step("Compact", pb.CompactionRequest(revision=revision))
    for revision in (-2, -1, 0, 1, 2):
        yield _txn(_range(b"a", revision=revision), _put(b"a"))
    yield Step("Compact", pb.CompactionRequest(revision=1))
    for revision in (-2, -1, 0, 1, 2):
        yield _txn(_range(b"a", revision=revision))

    # every row of the table of duplicates
    for first, second in (
        (_put(b"k"), _put(b"k")), (_put(b"k"), _delete(b"k")), (_delete(b"k"), _put(b"k")),
        (_put(b"k"), _delete(b"j", b"l")), (_delete(b"j", b"l"), _put(b"k")),
        (_put(b"k"), _delete(b"j", b"\0")), (_delete(b"j", b"\0"), _put(b"k")),
        (_delete(b"\0", b"\0"), _put(b"k")), (_put(b"k"), _delete(b"\0", b"\0")),
        (_put(b"k"), _delete(b"k", b"k")), (_put(b"k"), _delete(b"l", b"j")),
        (_delete(b"k"), _delete(b"j", b"l")), (_put(b"k"), _nested([_put(b"k")])),
        (_put(b"k"), _nested([_delete(b"k")])), (_put(b"k"), _nested([], [_delete(b"j", b"l")])),
        (_delete(b"k"), _nested([_put(b"k")])), (_nested([_put(b"k")]), _delete(b"k")),
        (_nested([_delete(b"k")]), _put(b"k")), (_nested([_put(b"k")]), _nested([_put(b"k")])),
        (_nested([_put(b"k")]), _nested([], [_put(b"k")])), (_nested([_delete(b"k")]), _nested([_put(b"k")])),
        (_nested([_put(b"k")]), _nested([_delete(b"k")])),
        (_nested([_put(b"k")], [_put(b"k")]), _range(b"k")), (_nested([_nested([_put(b"k")])]), _put(b"k")),
    ):
        yield _txn(first, second)
        yield _txn(_nested([first, second]))
        yield Step("Txn", pb.TxnRequest(failure=[first, second]))
        yield Step("Range", Range(key=b"\0", range_end=b"\0"))

    # a range sees the writes before it, one at a revision does not
    yield Step("Put", Put(key=b"m", value=b"0"))
    yield _txn(_range(b"m", b"n"), _put(b"m", b"1", prev_kv=True), _range(b"m", b"n"), _delete(b"n"),
               _nested([_range(b"m"), _put(b"m2", b"2"), _range(b"m", b"n")]), _range(b"m", b"n", limit=1))
    yield _txn(
        _nested([_put(b"k", b"2")]), _nested([_delete(b"k", prev_kv=True), _range(b"k")]), _range(b"k")
    )
    yield _txn(_delete(b"m", b"\0", prev_kv=True), _put(b"m", b"3"), _range(b"m", b"n"))
    yield Step("Watch", pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=2, prev_kv=True))

    # operations: 128 in one level; a nested level has what its parent left
    for count, nested in (
        (127, 0), (128, 0), (129, 0), (64, 64), (64, 65), (1, 127), (1, 128), (127, 1), (128, 1),
    ):
        yield Step("Txn", too_many_ops(count, nested))
    deep: pb.RequestOp = _put(b"deep")
    for _ in range(20):
        deep = _nested([deep])
    yield _txn(deep)
    yield Step("Txn", pb.TxnRequest(compare=[pb.Compare(key=b"")], success=[_put(b"")]))
    yield Step("Txn", pb.TxnRequest(compare=[pb.Compare(key=b"a")] * 129))
    yield Step("Txn", pb.TxnRequest(success=[pb.RequestOp(), _put(b"")]))
    yield Step("Txn", pb.TxnRequest(success=[_put(b""), pb.RequestOp()]))
    yield Step("Txn", pb.TxnRequest(success=[_put(b"x"), _put(b"x")], failure=[pb.RequestOp()]))
    for fields in ({"lease": 9, "ignore_value": True}, {"lease": 9}, {"ignore_value": True},
                   {"ignore_lease": True, "lease": 9}, {"ignore_lease": True}):
        yield Step("Put", Put(key=b"absent", **fields))  # type: ignore[arg-type]
        yield _txn(_put(b"absent", b"", **fields))
        yield _txn(_put(b"m", b"x", lease=9), _put(b"absent", b"", **fields))
        yield _txn(_range(b"m", revision=99_999), _put(b"absent", b"", **fields))

    # leases: a revoke deletes in one revision, in key order; a second one finds nothing
    yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=600))
    yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=9_000_000_001))
    yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=8, TTL=9_000_000_000))
    yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=-8, TTL=700))
    for key in (b"z3", b"z1", b"z2"):
        yield Step("Put", Put(key=key, value=b"v", lease=7))
    yield Step("Put", Put(key=b"z2", value=b"v", lease=-8))
    yield Step("Put", Put(key=b"z4", value=b"v", lease=-8))
    yield Step("Put", Put(key=b"z4", ignore_lease=True, value=b"w"))
    yield Step("Put", Put(key=b"z4", ignore_value=True))
    yield Step("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True))
    yield Step("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=-8, keys=True))
    yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=7))
    yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=7))
    yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=8))
    yield Step("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=7))
    yield Step("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=-8))
    yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=0))
    yield Step("Range", Range(key=b"\0", range_end=b"\0"))
    yield Step("Watch", pb.WatchCreateRequest(key=b"z", range_end=b"\0", start_revision=2, prev_kv=True))
    yield Step("Watch", pb.WatchCreateRequest(key=b"b", range_end=b"a", start_revision=2))
    yield from _far()


def _far() -> Iterator[Step]:
    """Numbers at the ends of their types, in every field that has one."""
    for key in (b"f1", b"f2", b"f3"):
        yield Step("Put", Put(key=key, value=b"v"))
    ends = ((1 << 63) - 1, (1 << 63) - 2, 1 << 32, 1 << 31, (1 << 31) - 1, -(1 << 31), -(1 << 63))
    for end in ends:
        for order, target in ((0, 0), (0, 2), (1, 0), (2, 0), (1, 2), (2, 4)):
            rows: dict[str, Any] = {"limit": end, "sort_order": order, "sort_target": target}
            yield Step("Range", Range(key=b"f", range_end=b"g", **rows))
            yield Step("Range", Range(key=b"f", range_end=b"g", count_only=True, **rows))
            yield _txn(_range(b"f", b"g", **rows), _put(b"f4"), _range(b"f", b"g", **rows))
        for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            yield Step("Range", Range(key=b"f", range_end=b"g", **{bound: end}))  # type: ignore[arg-type]
        yield Step("Range", Range(key=b"f1", revision=end))
        yield _txn(_range(b"f1", revision=end))
        yield _txn(_put(b"f1"), _range(b"f1", revision=end))
        for field in ("version", "create_revision", "mod_revision", "lease"):
            for result in (0, 1, 2, 3):
                given: dict[str, Any] = {"result": result, "target": _TARGETS[field], field: end}
                compare = pb.Compare(key=b"f1", **given)
                yield Step("Txn", pb.TxnRequest(compare=[compare], success=[_range(b"f1")]))
        yield Step("Compact", pb.CompactionRequest(revision=end))
        yield Step("Put", Put(key=b"f1", lease=end))
        yield Step("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=end, keys=True))
        yield Step("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=end))
        yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=end))
        yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=5, TTL=end))
        yield Step("LeaseGrant", pb.LeaseGrantRequest(ID=end, TTL=600))
        yield Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=end))


_TARGETS: dict[str, Any] = {"version": 0, "create_revision": 1, "mod_revision": 2, "lease": 4}
