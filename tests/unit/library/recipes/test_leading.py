"""What is done while leading ends with the leadership, however that is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import queueing, sync
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.sync import client as blocking
from muster_client.wire import engine

from tests.unit.library.scripted import Code, say_nothing, scripted, until, watched
from tests.unit.library.test_places import Line, held, nothing, there

Context = grpc.ServicerContext


class Keys:
    """A watch of the leader's key: the first one tells of its end, at a revision; others tell nothing."""

    def __init__(self) -> None:
        self.asked: list[pb.WatchCreateRequest] = []

    def answers(self, requests: Iterator[pb.WatchRequest], context: Context) -> Iterator[pb.WatchResponse]:
        asked = next(requests).create_request
        self.asked.append(asked)
        yield pb.WatchResponse(created=True)
        if len(self.asked) == 1:
            gone = kv_pb2.KeyValue(key=asked.key, mod_revision=7)
            yield pb.WatchResponse(events=[kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=gone)])
        say_nothing(context)


def test_a_leader_whose_key_is_deleted_is_cancelled() -> None:
    """Its lease lives on, but another leads: an operator, or a program, has deleted its key."""
    line, keys = Line(held(5), held(9)), Keys()
    ended: list[tuple[int, bool]] = []

    async def work(leadership: m.Leadership) -> str:
        token, lease = leadership.token, leadership.lease
        if token == 9:
            return "done"
        try:
            await asyncio.sleep(60)
        finally:
            ended.append((token, leadership.lost))
            assert not lease.lost
        return "not cancelled"

    async def main() -> str:
        async with m.Client(address) as client:
            return await asyncio.wait_for(client.while_leading("l", work), 5)

    with scripted(line.methods | {"Watch/Watch": keys.answers}) as address:
        assert asyncio.run(main()) == "done"
    assert ended == [(5, True)]
    first, second = (txn.success[0].request_put.key for txn in line.asked)
    assert (keys.asked[0].key, keys.asked[0].start_revision) == (first, 6)
    assert first != second, "another lease's"


def test_work_in_a_thread_sees_that_the_key_is_deleted() -> None:
    line, keys = Line(held(5), held(9)), Keys()

    def work(leadership: sync.Leadership) -> str:
        if leadership.token == 9:
            return "done"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if leadership.lost:
                raise m.NotHeld("another leads")
            time.sleep(0.01)
        return "it did not see it"

    with scripted(line.methods | {"Watch/Watch": keys.answers}) as address, sync.Client(address) as client:
        assert client.while_leading("l", work) == "done"


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_an_interrupt_about_a_thread_s_work_resigns(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leadership stayed held, and its lease was renewed."""
    def interrupted(*args: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    def work(leadership: sync.Leadership) -> None:
        monkeypatch.setattr(engine.Awaited, "cancel", interrupted)

    def watching(leadership: m.Leadership, lease: m.Lease) -> Coroutine[Any, Any, None]:
        if moment == "begin":
            interrupted()
        return queueing.until_lost(leadership, lease)

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    revoked = list[int]()
    monkeypatch.setattr(blocking, "until_lost", watching)
    methods = Line(held(5)).methods | {"Watch/Watch": watched, "Lease/LeaseRevoke": revoke}
    with scripted(methods) as address, sync.Client(address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.while_leading("l", work)
        assert len(revoked) == 1


@pytest.mark.parametrize(("found", "again"), [
    (nothing(7), True), (there(b"", 6, 6), True), (there(b"", 5, 5), False),
    ((Code.PERMISSION_DENIED, "etcdserver: permission denied"), False),
])  # fmt: skip
def test_a_fence_that_tells_before_the_watch_does_ends_nothing(
    found: pb.TxnResponse | tuple[grpc.StatusCode, str], again: bool
) -> None:
    """What failed because another leads is no failure of the work; what failed while it leads is."""
    line = Line(held(5), found, held(9)) if again else Line(held(5), found)

    async def work(leadership: m.Leadership) -> str:
        if leadership.token == 9:
            return "done"
        raise m.NotHeld("a fenced write was refused")

    async def main() -> None:
        async with m.Client(address) as client:
            leading = client.while_leading("l", work)
            if again:
                assert await asyncio.wait_for(leading, 5) == "done"
                return
            with pytest.raises(m.NotHeld, match="refused"):
                await asyncio.wait_for(leading, 5)

    with scripted(line.methods | {"Watch/Watch": watched}) as address:
        asyncio.run(main())


def test_a_key_that_may_not_be_watched_is_no_loss() -> None:
    """The lease alone tells then."""
    line, refused = Line(held(5)), asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    def refuse(requests: Iterator[pb.WatchRequest], context: Context) -> None:
        loop[0].call_soon_threadsafe(refused.set)
        context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied")

    async def work(leadership: m.Leadership) -> str:
        await refused.wait()
        await asyncio.sleep(0.2)
        assert not leadership.lost
        return "done"

    async def main() -> str:
        loop.append(asyncio.get_running_loop())
        async with m.Client(address) as client:
            return await asyncio.wait_for(client.while_leading("l", work), 5)

    with scripted(line.methods | {"Watch/Watch": refuse}) as address:
        assert asyncio.run(main()) == "done"


@pytest.mark.parametrize("perhaps", [False, True])
def test_it_is_told_that_a_proclamation_may_have_been_made(perhaps: bool) -> None:
    """By an attempt without an answer, before the key was gone."""
    unsure = [(Code.UNAVAILABLE, "etcdserver: request timed out")] if perhaps else []
    line = Line(held(), *unsure, there(b"other", 10, 10))

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            place = await client.election("l").campaign("a", lease=lease).campaign()
            with pytest.raises(m.NotHeld) as met:
                await place.proclaim("b")
            assert met.value.maybe_done == perhaps

    with scripted(line.methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize("kind", ["lock", "tried lock", "leadership", "lock behind another"])
@pytest.mark.parametrize("given", [False, True])
def test_nothing_is_held_under_a_lease_that_was_lost_meanwhile(kind: str, given: bool) -> None:
    """The answer came late, as behind an election of the servers, which lets leases run on. Nothing renews
    this one any more, and another would hold, too."""
    second, mine = held(5), there(b"", 5, 5)
    second.responses[1].response_range.kvs[0].create_revision = 3
    line, goes_on = Line(*([second, nothing(6), mine] if "behind" in kind else [held(5)])), threading.Event()
    answer, last = line.methods["KV/Txn"], 3 if "behind" in kind else 1

    def txn(request: pb.TxnRequest, context: Context) -> Any:
        found = answer(request, context)
        if len(line.asked) == last:
            goes_on.wait(10)
        return found

    async def main() -> None:
        async with m.Client(address) as client:
            lease = await client.lease(60) if given else None
            place: m.Leadership | m.Lock = client.lock("l", lease=lease)
            if kind == "leadership":
                place = client.election("l").campaign("v", lease=lease)
            entering = asyncio.create_task(
                place.campaign() if isinstance(place, m.Leadership) else
                place.try_acquire() if "tried" in kind else place.acquire())
            await until(lambda: len(line.asked) == last)
            place.lease._kept.end("for this test")
            goes_on.set()
            with pytest.raises(m.LeaseLost):
                await entering
            assert place.lost

    with scripted(line.methods | {"KV/Txn": txn}) as address:
        asyncio.run(main())
