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


KEY = b"q/00000/0000000000000000"


def found(*kvs: kv_pb2.KeyValue) -> pb.TxnResponse:
    """The item's key and its claim, as a finish that does not hold finds them."""
    ranges = [pb.RangeResponse(kvs=[kv], count=1) if kv.key else pb.RangeResponse() for kv in kvs]
    return pb.TxnResponse(header=pb.ResponseHeader(revision=9), responses=[
        pb.ResponseOp(response_range=one) for one in ranges])


NEXT, CLAIM = kv_pb2.KeyValue(key=KEY, mod_revision=8), kv_pb2.KeyValue(key=b"__claims/" + KEY)


@pytest.mark.parametrize(("item", "claim", "finished"), [
    (NEXT, kv_pb2.KeyValue(), True),  # another item has the key
    (NEXT, kv_pb2.KeyValue(key=CLAIM.key, create_revision=9), True),  # and is claimed
    (NEXT, kv_pb2.KeyValue(key=CLAIM.key, create_revision=5), False),  # a taker of Go took this one
    (kv_pb2.KeyValue(key=KEY, mod_revision=3), kv_pb2.KeyValue(), False),  # that came later
])  # fmt: skip
def test_a_key_that_another_item_has_by_now_says_not_that_this_one_is_left(
    item: kv_pb2.KeyValue, claim: kv_pb2.KeyValue, finished: bool
) -> None:
    """A priority queue that was empty gives the same key again. NotHeld was told for what was done."""
    mine = kv_pb2.KeyValue(key=KEY, mod_revision=3)
    there = pb.TxnResponse(header=pb.ResponseHeader(revision=4), succeeded=True, responses=[
        pb.ResponseOp(response_range=pb.RangeResponse(kvs=[mine], count=1)), _NOTHING])
    timed_out = Code.UNAVAILABLE, "etcdserver: request timed out"

    async def main() -> None:
        async with m.Client(address) as client:
            one = await client.priority_queue("q").take().__aenter__()
            if finished:
                await one.finish(m.ops.put("done", "1"))
            else:
                with pytest.raises(m.NotHeld) as met:
                    await one.finish(m.ops.put("done", "1"))
                assert not met.value.maybe_done
            assert one.finished == finished

    with scripted(Line(there, held(), timed_out, found(item, claim)).methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize("perhaps", [False, True])
def test_it_is_told_that_an_item_whose_lease_is_lost_may_have_been_finished(perhaps: bool) -> None:
    """NotHeld said that nothing was done, and never would be."""
    async def main() -> None:
        async with m.Client(address) as client:
            item = await client.queue("q").take().__aenter__()
            item.lease._kept.end("for this test")
            with pytest.raises(m.NotHeld) as met:
                await item.finish(m.ops.put("done", "1"))
            assert met.value.maybe_done == perhaps

    unsure = [(Code.UNAVAILABLE, "etcdserver: request timed out")] if perhaps else []
    with scripted(Line(ITEM, held(), *unsure, GONE).methods) as address:
        asyncio.run(main())
