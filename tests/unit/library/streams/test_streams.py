"""Watches and mirrors end when they are told to, and by nothing that may pass."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import connections, engine, following

from tests.unit.library.scripted import Code, say_nothing, scripted, until, watched

HEADER = pb.ResponseHeader(revision=7)
Requests = Iterator[pb.WatchRequest]
Told = Iterator[pb.WatchResponse]


def test_a_watch_is_closed_while_it_begins() -> None:
    """Its reader does not begin anew instead."""
    calls: list[int] = []

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        calls.append(1)
        if len(calls) == 1:
            say_nothing(context)
        yield from watched(requests, context)

    async def main() -> None:
        async with m.Client(address) as client:
            watch = client.watch("a", revision=1)
            reading = asyncio.create_task(watch.next())
            await until(lambda: calls)
            await asyncio.wait_for(watch.close(), 3)
            assert await asyncio.wait_for(reading, 3) is None
            assert len(calls) == 1

    with scripted({"Watch/Watch": watch}) as address:
        asyncio.run(main())


def test_a_watch_begins_where_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream was given up after five seconds, for ever."""
    monkeypatch.setattr(following, "_ESTABLISHED_IN_S", 0.15)

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        time.sleep(0.4)
        yield from watched(requests, context)

    async def main() -> None:
        async with m.Client(address) as client, asyncio.timeout(5), client.watch("a", revision=1) as watch:
            assert not watch._feed._patience

    with scripted({"Watch/Watch": watch}) as address:
        asyncio.run(main())


def test_a_watch_leaves_an_endpoint_that_hangs_once_another_one_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that hangs kept it for all the time that it had got by then."""
    monkeypatch.setattr(following, "_ESTABLISHED_IN_S", 0.3)
    was, back, asked, left = connections.Connection.ready, threading.Event(), list[float](), list[float]()

    def hang(requests: Requests, context: grpc.ServicerContext) -> Told:
        asked.append(time.monotonic())
        say_nothing(context)
        left.append(time.monotonic())
        yield from ()

    async def main() -> None:
        async with m.Client(f"{hanging},{other}") as client:
            beginning = asyncio.create_task(client.watch("a", revision=1).__aenter__())
            await until(lambda: len(asked) == 3)  # it has 1.2 s now
            back.set()
            await beginning
            await until(lambda: len(left) == 3)
            assert left[2] - asked[2] < 0.9

    with scripted({"Watch/Watch": hang}) as hanging, scripted({"Watch/Watch": watched}) as other:
        ready = property(lambda self: (back.is_set() or self.name == hanging) and was.fget(self))
        monkeypatch.setattr(connections.Connection, "ready", ready)
        asyncio.run(main())


@pytest.mark.parametrize(("had", "has"), [(1, 2), (2, 2)])
def test_an_endpoint_that_another_one_cut_short_gets_no_more_time(
    monkeypatch: pytest.MonkeyPatch, had: int, has: int
) -> None:
    """It had the more often too much for the other one, and was cut short again."""
    monkeypatch.setattr(following, "_ESTABLISHED_IN_S", 0.02)
    both = SimpleNamespace(others=lambda no_better: bool({"slow", "other"} - set(no_better)))
    feed: Any = SimpleNamespace(_patience={"slow": had}, _caller=SimpleNamespace(connections=both))

    async def main() -> None:
        stream: Any = SimpleNamespace(name="slow", read=asyncio.Event().wait)
        with pytest.raises(following.Broken):
            await following.Following._created(feed, stream)
        assert feed._patience == {"slow": has}

    asyncio.run(main())


def test_a_watch_returns_to_the_endpoint_where_it_broke_off_if_others_refuse_it() -> None:
    """The learner was asked for ever, for it was connected, and the voter was where the last stream ended."""
    served: list[int] = []

    def refuse(requests: Requests, context: grpc.ServicerContext) -> None:
        next(requests)
        context.abort(Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner")

    def serve(requests: Requests, context: grpc.ServicerContext) -> Told:
        served.append(1)
        if len(served) == 2:
            yield from watched(requests, context)
        yield pb.WatchResponse(created=True)
        context.abort(Code.UNAVAILABLE, "away")

    async def main() -> None:
        async with m.Client(f"{learner},{voter}") as client, client.watch("a", revision=1) as watch:
            reading = asyncio.create_task(watch.next())
            await until(lambda: len(served) == 2)
            await watch.close()
            await reading

    with scripted({"Watch/Watch": refuse}) as learner, scripted({"Watch/Watch": serve}) as voter:
        asyncio.run(main())


def test_a_stream_that_lacks_a_token_is_no_turn_of_its_endpoint() -> None:
    """The next one could begin where the last one had broken off, though another endpoint was connected."""

    async def pick(deadline: float | None, avoid: tuple[str, ...]) -> Any:
        return SimpleNamespace(name="other")

    async def token(until: float) -> str:
        raise m.Unreachable({})

    async def request() -> pb.WatchCreateRequest:
        return pb.WatchCreateRequest()

    async def main() -> None:
        caller: Any = SimpleNamespace(connections=SimpleNamespace(pick=pick), token=token, timeout_s=1.0)
        feed: Any = following.Following(caller, 1)
        feed._request, feed._left = request, "broken"
        with pytest.raises(following.Broken):
            await feed._opened(None)
        assert feed._left == "broken"

    asyncio.run(main())


def test_a_watch_that_is_closed_blames_no_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with m.Client(address) as client:
            async with client.watch("a", revision=1) as watch:
                reading = asyncio.create_task(watch.next())
                await until(lambda: watch._feed._reading is not None)
                await asyncio.sleep(0.05)  # in gRPC's read
            assert await asyncio.wait_for(reading, 3) is None
            assert not client._caller.connections._opened[0].suspect_until

    with caplog.at_level(logging.INFO, "muster_client"), scripted({"Watch/Watch": watched}) as address:
        asyncio.run(main())
    assert not caplog.records


def test_a_watch_that_does_not_begin_in_time_says_so() -> None:
    def silent(requests: Requests, context: grpc.ServicerContext) -> Told:
        say_nothing(context)
        yield from ()

    async def main() -> None:
        async with m.Client(address, timeout=0.5) as client:
            began = time.monotonic()
            with pytest.raises(m.Unreachable):
                async with client.watch("a", revision=1):
                    pass
            assert time.monotonic() - began < 3

    with scripted({"Watch/Watch": silent}) as address:
        asyncio.run(main())


def test_watches_leave_streams_of_the_connection_to_calls() -> None:
    """The last one took the last stream: calls waited for one, and leases were lost."""
    async def main() -> None:
        async with m.Client(address, timeout=2) as client, AsyncExitStack() as watches:
            for _ in range(4):
                await watches.enter_async_context(client.watch("a", revision=1))
            with pytest.raises(m.Unreachable, match="takes no more watches"):
                await watches.enter_async_context(client.watch("a", revision=1))
            await asyncio.gather(*(client.put("a", "b") for _ in range(8)))

    answers: dict[str, Any] = {
        "Watch/Watch": watched, "KV/Put": lambda request, context: pb.PutResponse(header=HEADER)}
    with scripted(answers, most_streams=8) as address:
        asyncio.run(main())


def test_a_watch_leaves_an_endpoint_that_takes_no_more() -> None:
    """Where endpoints are taken in order, it asked the first one for ever."""
    async def main() -> None:
        async with m.Client([first, second], timeout=5) as client, AsyncExitStack() as watches:
            client._caller.connections._in_order = True
            for _ in range(6):
                await watches.enter_async_context(client.watch("a", revision=1))

    with scripted({"Watch/Watch": watched}, 8) as first, scripted({"Watch/Watch": watched}, 8) as second:
        asyncio.run(main())


def test_a_closed_client_ends_its_watches() -> None:
    async def main() -> None:
        client = m.Client(address)
        async with client.watch("a", revision=1) as watch:
            reading = asyncio.create_task(watch.next())
            await until(lambda: watch._feed._reading is not None)
            await client.close()
            with pytest.raises(m.MusterError, match="closed"):
                await asyncio.wait_for(reading, 5)

    with scripted({"Watch/Watch": watched}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("met", [
    (Code.UNAVAILABLE, "etcdserver: request timed out"),
    (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    (Code.DEADLINE_EXCEEDED, "context deadline exceeded"),
])  # fmt: skip
def test_a_snapshot_that_fails_is_read_again(met: tuple[grpc.StatusCode, str]) -> None:
    fails_until = time.monotonic() + 1.0

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        asked = next(requests).create_request
        if asked.start_revision < 7:
            yield pb.WatchResponse(created=True)
            yield pb.WatchResponse(canceled=True, compact_revision=7)
            return
        yield pb.WatchResponse(created=True)
        say_nothing(context)

    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        if time.monotonic() < fails_until:
            context.abort(*met)
        return pb.RangeResponse(header=HEADER, kvs=[kv_pb2.KeyValue(key=b"a", mod_revision=6)], count=1)

    async def main() -> None:
        async with m.Client(address, timeout=0.3) as client, asyncio.timeout(10):
            event = await client.watch("a", revision=2, snapshots=True).next()
            assert isinstance(event, m.Snapshot)
            assert (event.revision, event.missed_from) == (7, 2)

    with scripted({"Watch/Watch": watch, "KV/Range": read}) as address:
        asyncio.run(main())


def test_a_watch_waits_for_a_login_that_fails_for_a_while() -> None:
    fails_until = time.monotonic() + 1.0

    def login(request: pb.AuthenticateRequest, context: grpc.ServicerContext) -> pb.AuthenticateResponse:
        if time.monotonic() < fails_until:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return pb.AuthenticateResponse(token="t.1")

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        next(requests)
        yield pb.WatchResponse(created=True)
        yield pb.WatchResponse(header=HEADER, events=[
            kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a", mod_revision=7, version=1))])
        say_nothing(context)

    async def main() -> None:
        async with m.Client(address, user="u", password="p", timeout=0.3) as client, asyncio.timeout(10):
            event = await client.watch("a", revision=2).next()
            assert isinstance(event, m.Put)

    with scripted({"Watch/Watch": watch, "Auth/Authenticate": login}) as address:
        asyncio.run(main())


def test_progress_that_is_asked_for_between_streams_is_told() -> None:
    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        next(requests)
        yield pb.WatchResponse(created=True)
        for request in requests:
            assert request.HasField("progress_request")
            yield pb.WatchResponse(header=HEADER, watch_id=-1)

    async def main() -> None:
        async with m.Client(address) as client, asyncio.timeout(10):
            watch = client.watch("a", revision=2, progress=True)
            await watch.request_progress()
            assert await watch.next() == m.Progress(7)
            await watch.close()

    with scripted({"Watch/Watch": watch}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("compacted", [0, 7, 8])
@pytest.mark.parametrize("revision", [0, 8])
def test_progress_is_told_while_nothing_is_written(revision: int, compacted: int) -> None:
    """A server tells none before the beginning of a watch, and the next revision was that: who asked waited
    for the next write."""
    begun: list[int] = []

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        begun.append(next(requests).create_request.start_revision)
        yield pb.WatchResponse(created=True)
        if begun[-1] < compacted:
            yield pb.WatchResponse(canceled=True, compact_revision=compacted)
            return
        if begun[-1] == 7:  # which was written before
            yield pb.WatchResponse(header=HEADER, events=[
                kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a", mod_revision=7, version=1))])
        for _ in requests:
            if compacted == 8:
                yield pb.WatchResponse(header=pb.ResponseHeader(revision=8), watch_id=-1)
            elif begun[-1] <= 7:
                yield pb.WatchResponse(header=HEADER, watch_id=-1)

    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(header=HEADER)

    async def main() -> None:
        async with (
            m.Client(address) as client, asyncio.timeout(3),
            client.watch("a", revision=revision, progress=True) as watch,
        ):
            reading = asyncio.create_task(watch.next())
            await until(lambda: begun[-1] >= compacted)
            await watch.request_progress()
            assert await reading == m.Progress(8 if compacted == 8 else 7)

    with scripted({"Watch/Watch": watch, "KV/Range": read}) as address:
        asyncio.run(main())
    assert begun == ([7, 8] if compacted == 8 else [7])


def test_a_mirror_s_end_ends_those_who_wait() -> None:
    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(header=HEADER)

    async def main() -> None:
        async with m.Client(address) as client:
            async with client.mirror("a") as mirror:
                waiting = asyncio.create_task(mirror.wait_for(100))
                await asyncio.sleep(0.05)
                assert not waiting.done()
            with pytest.raises(m.MusterError, match="async with"):
                await asyncio.wait_for(waiting, 3)
            with pytest.raises(m.MusterError, match="async with"):
                mirror.copy()

    with scripted({"Watch/Watch": watched, "KV/Range": read}) as address:
        asyncio.run(main())


def test_a_mirror_is_used_again() -> None:
    """In a loop of its own each time."""
    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(header=HEADER, kvs=[kv_pb2.KeyValue(key=b"a", value=b"1")], count=1)

    async def main(mirror: m.Mirror) -> None:
        async with mirror:
            assert mirror["a"].text == "1"
            with pytest.raises(RuntimeError, match="entered already"):
                await mirror.__aenter__()  # its first task would go on for ever
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await mirror.wait_for(8)

    with scripted({"Watch/Watch": watched, "KV/Range": read}) as address:
        mirror = m.Client(address).mirror("a")
        for _ in range(2):
            asyncio.run(main(mirror))


def test_two_that_enter_a_mirror_together_are_one_too_many() -> None:
    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(header=HEADER)

    async def main() -> None:
        mirror = m.Client(address).mirror("a")
        first, second = await asyncio.gather(
            mirror.__aenter__(), mirror.__aenter__(), return_exceptions=True)
        assert first is mirror
        assert isinstance(second, RuntimeError)
        await mirror.__aexit__(None, None, None)

    with scripted({"Watch/Watch": watched, "KV/Range": read}) as address:
        asyncio.run(main())


def test_a_mirror_begins_again_where_a_compaction_overtakes_it() -> None:
    """Between two pages."""
    asked: list[int] = []

    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        asked.append(request.revision)
        if request.revision:
            if len(asked) == 2:
                context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
            return pb.RangeResponse(header=HEADER, kvs=[kv_pb2.KeyValue(key=b"b")], count=2)
        return pb.RangeResponse(header=HEADER, kvs=[kv_pb2.KeyValue(key=b"a")], count=2, more=True)

    async def main() -> None:
        async with m.Client(address) as client, client.mirror(m.prefix("")) as mirror:
            assert sorted(mirror) == [b"a", b"b"]
            assert asked == [0, 7, 0, 7]

    with scripted({"Watch/Watch": watched, "KV/Range": read}) as address:
        asyncio.run(main())


def test_a_client_is_closed_also_where_its_closer_is_cancelled() -> None:
    async def main() -> None:
        client = m.Client(address)
        await client.get("a")
        goes_on = threading.Event()
        engine.loop().call_soon_threadsafe(goes_on.wait, 10)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        goes_on.set()
        await until(lambda: client.closed)

    def read(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(header=HEADER)

    with scripted({"KV/Range": read}) as address:
        asyncio.run(main())
