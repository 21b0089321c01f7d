"""What a transaction in memory reads in one attempt is of one revision."""

from __future__ import annotations

import asyncio
from typing import Literal

import grpc
import muster_client as m
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import scripted

SNAPSHOTS: list[Literal["serializable_snapshot", "serializable"]] = ["serializable_snapshot", "serializable"]


class Store:
    """Keys with one value each, which another client changes all at once: the revision is the value."""

    def __init__(self) -> None:
        self.revision = 10

    def txn(self, request: pb.TxnRequest, context: grpc.ServicerContext) -> pb.TxnResponse:
        done = all(self._holds(compare) for compare in request.compare)
        answers = [
            pb.ResponseOp(response_range=self._read(op.request_range))
            if op.HasField("request_range") else pb.ResponseOp(response_put=pb.PutResponse())
            for op in (request.success if done else request.failure)]  # fmt: skip
        return pb.TxnResponse(
            header=pb.ResponseHeader(revision=self.revision), succeeded=done, responses=answers)

    def _holds(self, compare: pb.Compare) -> bool:
        if compare.result == pb.Compare.LESS:
            return self.revision < compare.mod_revision
        return self.revision == compare.mod_revision

    def _read(self, asked: pb.RangeRequest) -> pb.RangeResponse:
        revision = asked.revision or self.revision
        kv = kv_pb2.KeyValue(key=asked.key, value=b"%d" % revision, mod_revision=revision)
        return pb.RangeResponse(kvs=[kv], count=1)


@pytest.mark.parametrize("isolation", SNAPSHOTS)
@pytest.mark.parametrize("second", ["ba", "ab", "cba"])
def test_reads_behind_a_refused_attempt_are_of_one_revision(
    isolation: Literal["serializable_snapshot", "serializable"], second: str
) -> None:
    """Also where it first reads keys that the attempt before did not read."""
    store = Store()
    seen: list[list[str | None]] = []

    async def function(stm: m.Stm) -> None:
        if not seen:
            seen.append([await stm.text("a")])
            store.revision += 1  # another client: this attempt is refused, with `a` as of now
        else:
            store.revision += len(seen) == 1
            seen.append([await stm.text(key) for key in second])
        stm.put("out", "x")

    async def main() -> None:
        async with m.Client(address) as client:
            await client.stm(function, isolation=isolation)

    with scripted({"KV/Txn": store.txn}) as address:
        asyncio.run(main())
    assert len(seen) == 3
    assert all(len(set(reads)) == 1 for reads in seen), seen
