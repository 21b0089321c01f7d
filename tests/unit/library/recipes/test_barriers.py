"""Which clients a double barrier lets in, by what its keys say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import ops
from muster_client.model import Found, KeyValue, TxnResult
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.recipes import barriers, late
from muster_client.recipes.barriers import DoubleBarrier
from muster_client.wire import engine

from tests.unit.library.scripted import Code, say_nothing, scripted, until
from tests.unit.library.test_places import Line, there

TIMED_OUT = (Code.UNAVAILABLE, "etcdserver: request timed out")


class Store:
    """Three that wait, since revisions 1 to 3, and what the key ``ready`` holds, since revision 4."""

    def __init__(self, ready: bytes | None) -> None:
        self.ready, self.put = ready, b""

    def when(self) -> SimpleNamespace:
        return SimpleNamespace(then=self._look)

    async def _look(self, *_: object) -> TxnResult:
        opened = () if self.ready is None else (KeyValue(b"/b/ready", self.ready, 4, 4, 1),)
        there = tuple(KeyValue(b"/b/waiters/%d" % at, b"", at, at, 1) for at in (1, 2, 3))
        return TxnResult(True, 4, (Found(opened, len(opened), 4), Found(there, 3, 4)))

    async def txn(self, txn: ops.Txn, *, repeatable: bool) -> TxnResult:
        self.put = txn.request.success[0].request_put.value
        return TxnResult(True, 4, ())

    def enter(self, revision: int) -> int:
        """As one of two, with a key of this revision; the token."""
        client: Any = self
        barrier = DoubleBarrier(client, "/b", 2, None, 10)
        barrier._key, barrier._revision = b"/b/waiters/%d" % revision, revision
        return asyncio.run(barrier._all_there())


def test_one_too_many_is_not_let_in_however_late_the_others_say_so() -> None:
    store = Store(None)
    assert store.enter(2) == 4
    store.ready = store.put
    assert store.enter(1) == 4
    with pytest.raises(m.Taken):
        store.enter(3)


def test_a_client_of_go_says_not_which_are_in() -> None:
    assert Store(b"").enter(3) == 4


def test_one_that_leaves_repeats_its_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is its own alone."""
    key, lines = b"/b/waiters/2", [[1, 2], []]
    gone: list[bytes] = []

    async def deleted(client: object, key: bytes) -> int:
        gone.append(key)
        return 5

    async def others(barrier: DoubleBarrier) -> tuple[list[KeyValue], int]:
        return [KeyValue(b"/b/waiters/%d" % at, b"", at, at, 1) for at in lines.pop(0)], 4

    async def nothing(*_: object) -> None:
        pass

    client: Any = SimpleNamespace()  # with no delete that may fail
    barrier = DoubleBarrier(client, "/b", 2, None, 10)
    lease: Any = SimpleNamespace(revoke=nothing)
    barrier._key, barrier._lease = key, lease
    monkeypatch.setattr(late, "deleted", deleted)
    monkeypatch.setattr(DoubleBarrier, "_others", others)
    monkeypatch.setattr(DoubleBarrier, "_gone", nothing)
    asyncio.run(barrier.leave())
    assert gone == [key]


def test_one_that_leaves_waits_from_the_revision_of_its_look() -> None:
    """That of the other's key is compacted when it has been inside for long: each watch would end at once."""
    def line(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        kvs = [kv_pb2.KeyValue(key=b"b/waiters/%d" % at, create_revision=at, mod_revision=at)
               for at in (1, 2)]  # fmt: skip
        return pb.RangeResponse(header=pb.ResponseHeader(revision=90), kvs=kvs, count=2)

    begins = list[int]()

    def watch(
        requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        begins.append(next(requests).create_request.start_revision)
        yield pb.WatchResponse(created=True)
        say_nothing(context)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            barrier = client.double_barrier("b", 2, lease=lease)
            barrier._key, barrier._lease, barrier._opened = b"b/waiters/1", lease, 4
            leaving = asyncio.create_task(barrier.leave())
            await until(lambda: begins)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        assert begins == [91]

    with scripted(Line().methods | {"KV/Range": line, "Watch/Watch": watch}) as address:
        asyncio.run(main())


def test_the_last_one_that_leaves_names_what_it_has_seen() -> None:
    """Its attempt that lands late would take the next round's word from those who wait for it. So it is also
    tried again: the last one's leave() failed where it got no answer."""
    def line(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        kv = kv_pb2.KeyValue(key=b"b/waiters/1", create_revision=3, mod_revision=3)
        return pb.RangeResponse(header=pb.ResponseHeader(revision=90), kvs=[kv], count=1)

    keys = Line(TIMED_OUT, pb.TxnResponse())

    async def main() -> None:
        async with m.Client(address) as client:
            barrier = client.double_barrier("b", 2)
            barrier._key, barrier._lease, barrier._opened = b"b/waiters/1", await client.lease(60), 4
            await barrier.leave()
        compares = [txn.compare[0] for txn in keys.deletes(b"b/ready")]
        assert [(one.key, one.mod_revision, one.result) for one in compares] == [
            (b"b/ready", 91, pb.Compare.LESS)] * 2

    with scripted(keys.methods | {"KV/Range": line}) as address:
        asyncio.run(main())


def test_a_barrier_is_opened_also_where_its_holder_is_cancelled_twice() -> None:
    """Nothing else opens it: it has no lease. And a delete without an answer is tried again."""
    opened = pb.TxnResponse(succeeded=True, header=pb.ResponseHeader(revision=7))
    line = Line(opened, there(b"", 7, 7), (Code.UNAVAILABLE, "etcdserver: request timed out"), opened)

    async def main() -> None:
        async with m.Client(address) as client:
            barrier = await client.barrier("l/1").hold()
            goes_on = threading.Event()
            engine.loop().call_soon_threadsafe(goes_on.wait, 10)
            ending = asyncio.create_task(barrier.__aexit__(None, None, None))
            await asyncio.sleep(0.05)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            goes_on.set()
            await until(lambda: len(line.deletes(b"l/1")) == 2)
            assert [txn.compare[0].create_revision for txn in line.deletes(b"l/1")] == [7, 7]

    with scripted(line.methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize("answer", [None, TIMED_OUT])
def test_a_barrier_is_opened_whose_holder_got_no_answer(answer: Any) -> None:
    """It has no lease: it would be closed for ever, and by nobody. One that lands behind its own release
    would be, too: so it is not closed twice."""
    line = Line(answer)

    async def main() -> None:
        async with m.Client(address) as client:
            closing = asyncio.create_task(client.barrier("l/1").hold())
            await until(lambda: line.asked)
            if answer is None:
                closing.cancel()
            with pytest.raises(asyncio.CancelledError if answer is None else m.Unavailable):
                await closing
            closed, opened = line.asked
            assert line.deletes(b"l/1") == [opened]
            assert opened.compare[0].value == closed.success[0].request_put.value != b""

    with scripted(line.methods) as address:
        asyncio.run(main())


def test_a_barrier_is_opened_whose_holder_was_cancelled_before_it_was_closed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its put was on its way to a slow leader: the look that tidied up found nothing, and nobody held it."""
    monkeypatch.setattr(barriers, "_AGAIN_S", 0.1)
    failed = pb.TxnResponse(header=pb.ResponseHeader(revision=9))
    line = Line(None, failed, failed)

    async def main() -> None:
        async with m.Client(address) as client:
            closing = asyncio.create_task(client.barrier("l/1").hold())
            await until(lambda: line.asked)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await until(lambda: len(line.asked) == 4)
            await asyncio.sleep(0.3)
            assert line.deletes(b"l/1") == line.asked[1:4]

    with scripted(line.methods) as address:
        asyncio.run(main())


def test_a_barrier_that_another_holds_is_left_closed() -> None:
    line = Line(pb.TxnResponse(header=pb.ResponseHeader(revision=9)))

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(m.Taken):
                await client.barrier("l/1").hold()
        assert len(line.asked) == 1

    with scripted(line.methods) as address:
        asyncio.run(main())


def test_a_release_opens_no_barrier_that_was_closed_behind_it() -> None:
    """Its first attempt got no answer, and had opened it: another has closed it before the second one."""
    line = Line(there(b"", 7, 7), TIMED_OUT, pb.TxnResponse(), there(b"", 9, 9))

    async def main() -> None:
        async with m.Client(address) as client:
            await client.barrier("l/1").release()
        assert [txn.compare[0].create_revision for txn in line.deletes(b"l/1")] == [7, 7]

    with scripted(line.methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize("released", [False, True])
def test_a_block_opens_no_barrier_of_another(released: bool) -> None:
    """Its own was opened meanwhile, as by the end of its lease: those that wait would begin too early."""
    closed = pb.TxnResponse(succeeded=True, header=pb.ResponseHeader(revision=7))
    line = Line(closed, *([there(b"", 7, 7), closed] if released else []), there(b"", 9, 9))

    async def main() -> None:
        async with m.Client(address) as client, client.barrier("l/1") as barrier:
            if released:
                await barrier.release()
        assert [txn.compare[0].create_revision for txn in line.deletes(b"l/1")] == [7] * released

    with scripted(line.methods) as address:
        asyncio.run(main())
