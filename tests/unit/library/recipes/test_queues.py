"""The end of an item's work."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import muster_client as m
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Code, scripted
from tests.unit.library.test_places import Line, held

_NOTHING = pb.ResponseOp(response_range=pb.RangeResponse())
ITEM = pb.TxnResponse(header=pb.ResponseHeader(revision=4), succeeded=True, responses=[
    pb.ResponseOp(response_range=pb.RangeResponse(kvs=[kv_pb2.KeyValue(key=b"q/1")], count=1)), _NOTHING])
GONE = pb.TxnResponse(header=pb.ResponseHeader(revision=9), responses=[_NOTHING, _NOTHING])


@pytest.mark.parametrize(("answers", "finished"), [
    ((GONE,), False), (((Code.UNAVAILABLE, "etcdserver: request timed out"), GONE), True)])  # fmt: skip
def test_an_item_that_is_gone_was_finished_by_an_earlier_attempt_alone(
    answers: tuple[Any, ...], finished: bool
) -> None:
    """Behind one attempt another has taken it: the lease was revoked, which is not known here yet. It was
    told as finished, and its operations were not done."""
    async def main() -> None:
        async with m.Client(address) as client:
            lost = contextlib.nullcontext() if finished else pytest.raises(m.NotHeld)
            with lost:
                async with client.queue("q").take() as item:
                    await item.finish(m.ops.put("done", "1"))
            assert item.finished == finished

    with scripted(Line(ITEM, held(), *answers).methods) as address:
        asyncio.run(main())
