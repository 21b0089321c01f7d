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


@pytest.mark.parametrize("finished", [False, True])
def test_an_item_that_is_gone_may_have_been_finished_by_an_earlier_call(finished: bool) -> None:
    """Its caller caught what that call met. NotHeld was told for what was done."""
    async def main() -> None:
        async with m.Client(address) as client:
            lost = contextlib.nullcontext() if finished else pytest.raises(m.NotHeld)
            with lost:
                async with client.queue("q").take() as item:
                    with pytest.raises(m.MusterError) as met:
                        await item.finish(m.ops.put("done", "1"))
                    assert met.value.maybe_done == finished
            assert item.finished == finished

    perhaps = [(Code.UNAVAILABLE, "etcdserver: request timed out")] if finished else []
    refused = Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"
    with scripted(Line(ITEM, held(), *perhaps, refused, GONE).methods) as address:
        asyncio.run(main())


def test_an_item_that_is_gone_may_have_been_finished_by_a_call_that_was_cancelled() -> None:
    async def main() -> None:
        async with m.Client(address) as client, client.queue("q").take() as item:
            finishing = asyncio.ensure_future(item.finish())
            while len(line.asked) < 3:
                await asyncio.sleep(0.01)
            finishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await finishing
            await item.finish()

    line = Line(ITEM, held(), None, GONE)
    with scripted(line.methods) as address:
        asyncio.run(main())
