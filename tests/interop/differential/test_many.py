"""Deletes of more keys than are listed in the log (D8), beside etcd: answers, revisions, events and their
order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import STEADY, local_cluster, shards_of_tests

from .endpoints import GrpcEndpoint, MemoryEndpoint
from .runner import Pair
from .steps import Step

KEYS = 2 * GRAIN.many_keys + 90
DIRECTORIES = 5


def name(number: int) -> bytes:
    return b"/many/%d/%04d" % (number % DIRECTORIES, number)


def fill(*, value: bytes = b"v") -> Iterator[Step]:
    """All keys, in transactions of 100."""
    for start in range(0, KEYS, 100):
        request = pb.TxnRequest()
        for number in range(start, min(start + 100, KEYS)):
            put = request.success.add().request_put
            put.key, put.value = name(number), value
        yield Step("Txn", request)


def delete(txn: pb.TxnRequest, key: bytes, range_end: bytes, prev_kv: bool = False) -> None:
    request = txn.success.add().request_delete_range
    request.key, request.range_end, request.prev_kv = key, range_end, prev_kv


def read(txn: pb.TxnRequest, key: bytes, range_end: bytes, count_only: bool = False) -> None:
    request = txn.success.add().request_range
    request.key, request.range_end, request.count_only = key, range_end, count_only


def put(txn: pb.TxnRequest, key: bytes) -> None:
    request = txn.success.add().request_put
    request.key, request.value, request.prev_kv = key, b"new", True


def steps() -> Iterator[Step]:
    """What a delete of many keys can meet; fields are compared one by one."""
    everything = (b"/many/", b"/many0")
    yield from fill()
    yield Step("DeleteRange", pb.DeleteRangeRequest(key=everything[0], range_end=everything[1]))
    yield Step("DeleteRange", pb.DeleteRangeRequest(key=everything[0], range_end=everything[1]))
    yield Step("Put", pb.PutRequest(key=name(3), value=b"anew", prev_kv=True))
    yield from fill(value=b"w")
    yield Step("DeleteRange", pb.DeleteRangeRequest(key=b"/many/1", range_end=b"\0", prev_kv=True))
    yield from fill()
    # overlapping spans, single keys before and after, reads in between
    txn = pb.TxnRequest()
    read(txn, *everything, count_only=True)
    delete(txn, b"/many/2/", b"\0")
    read(txn, *everything, count_only=True)
    delete(txn, *everything)
    delete(txn, *everything)
    put(txn, b"/other/1")
    read(txn, *everything)
    yield Step("Txn", txn)
    yield from fill()
    # a put of a key that the delete covers: refused, but not in a delete to the end of the keys (etcd's slip)
    txn = pb.TxnRequest()
    put(txn, name(1))
    delete(txn, *everything)
    yield Step("Txn", txn)
    txn = pb.TxnRequest()
    delete(txn, b"/many/", b"\0", prev_kv=True)
    put(txn, name(1))
    read(txn, *everything)
    delete(txn, b"/many/", b"\0")
    yield Step("Txn", txn)
    yield from fill(value=b"x")
    txn = pb.TxnRequest()
    put(txn, name(7))
    delete(txn, b"/many/", b"\0")
    put(txn, name(8))
    yield Step("Txn", txn)
    yield Step("Range", pb.RangeRequest(key=everything[0], range_end=everything[1]))
    yield from fill(value=b"y")
    # in the branch that is taken, one level down
    inner = pb.TxnRequest()
    delete(inner, *everything)
    read(inner, *everything, count_only=True)
    txn = pb.TxnRequest()
    txn.compare.add(
        key=everything[0], range_end=everything[1], target=pb.Compare.VERSION, result=pb.Compare.GREATER,
        version=0,
    )
    txn.success.add().request_txn.CopyFrom(inner)
    put(txn, b"/other/2")
    yield Step("Txn", txn)
    yield Step("Range", pb.RangeRequest(key=b"\0", range_end=b"\0"))
    yield Step("Watch", pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=2))
    yield Step(
        "Watch",
        pb.WatchCreateRequest(
            key=everything[0], range_end=everything[1], start_revision=2, prev_kv=True,
            filters=[pb.WatchCreateRequest.NOPUT],
        ),
    )


def test_the_model_of_one_shard(etcd: GrpcEndpoint) -> None:
    pair = Pair(etcd, MemoryEndpoint())
    for step in steps():
        pair.step(step)


@pytest.mark.parametrize("shards", sorted({1, 3, shards_of_tests()}))
def test_one_host(etcd: GrpcEndpoint, tmp_path: Path, shards: int) -> None:
    with local_cluster(tmp_path / "muster", 1, f"--shards={shards}", extra=STEADY) as cluster:
        endpoint = GrpcEndpoint(cluster.endpoints()[0])
        try:
            pair = Pair(etcd, endpoint)
            for step in steps():
                pair.step(step)
        finally:
            endpoint.close()
