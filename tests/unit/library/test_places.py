"""What a lock or a candidate leaves behind, and what it writes over."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import queueing
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.recipes import late
from muster_client.wire import engine

from tests.unit.library.scripted import Answers, Code, say_nothing, scripted, until, watched

Context = grpc.ServicerContext


def held(revision: int = 5) -> pb.TxnResponse:
    """The key was put, and is the oldest."""
    return pb.TxnResponse(
        header=pb.ResponseHeader(revision=revision), succeeded=True, responses=[
            pb.ResponseOp(response_put=pb.PutResponse()),
            pb.ResponseOp(response_range=pb.RangeResponse(
                kvs=[kv_pb2.KeyValue(key=b"l/1", create_revision=revision)], count=1))])


def there(value: bytes, created: int, modified: int) -> pb.TxnResponse:
    """The conditions fail; the key as it is."""
    kv = kv_pb2.KeyValue(key=b"l/1", value=value, create_revision=created, mod_revision=modified)
    found = pb.RangeResponse(kvs=[kv], count=1)
    return pb.TxnResponse(
        header=pb.ResponseHeader(revision=99), responses=[pb.ResponseOp(response_range=found)] * 2)


def nothing(revision: int = 6) -> pb.TxnResponse:
    """A read that finds no key."""
    return pb.TxnResponse(
        header=pb.ResponseHeader(revision=revision), succeeded=True,
        responses=[pb.ResponseOp(response_range=pb.RangeResponse(header=pb.ResponseHeader(revision=revision)))])


def done(revision: int = 0) -> pb.TxnResponse:
    """A change was made."""
    return pb.TxnResponse(header=pb.ResponseHeader(revision=revision), succeeded=True)


class Line:
    """Answers transactions in turn, and keeps them; None: no answer."""

    def __init__(self, *answers: pb.TxnResponse | tuple[grpc.StatusCode, str] | None) -> None:
        self.asked: list[pb.TxnRequest] = []
        self._answers: Iterator[Any] = iter(answers)

    @property
    def methods(self) -> dict[str, Answers]:
        def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
            return pb.LeaseGrantResponse(ID=request.ID, TTL=60)

        def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
            return pb.LeaseRevokeResponse()

        return {"Lease/LeaseGrant": grant, "Lease/LeaseRevoke": revoke, "KV/Txn": self._answer}

    def _answer(self, request: pb.TxnRequest, context: Context) -> pb.TxnResponse:
        self.asked.append(request)
        answer = next(self._answers, pb.TxnResponse(succeeded=True))
        if answer is None:
            say_nothing(context)
        elif isinstance(answer, tuple):
            context.abort(*answer)
        return answer

    def deletes(self, key: bytes) -> list[pb.TxnRequest]:
        return [txn for txn in self.asked for op in txn.success if op.request_delete_range.key == key]


@pytest.mark.parametrize("before", [False, True])
def test_who_is_cancelled_at_the_begin_leaves_the_line(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a lock that was held before: that revision says nothing of the key that may come."""
    monkeypatch.setattr(queueing, "_ANSWERED_IN_S", 0.3)
    line = Line(*([held(), done()] if before else []), None, there(b"", 9, 9), done(10))

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            lock = client.lock("l", lease=lease)
            if before:
                await lock.acquire()
                await lock.release()
            known = len(line.asked)
            taking = asyncio.create_task(lock.acquire())
            await until(lambda: len(line.asked) > known)
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            assert len(line.asked) == known + 3  # put, read, delete what is there
            [last] = line.deletes(b"l/%x" % lease.id)[-1:]
            assert last is line.asked[-1]
            assert [compare.create_revision for compare in last.compare] == [9]

    with scripted(line.methods | {"Watch/Watch": watched}) as address:  # what comes late is waited for
        asyncio.run(main())


def test_who_is_cancelled_waits_for_the_answer() -> None:
    """A key that comes behind its deletion would stay."""
    line, goes_on = Line(held()), threading.Event()
    methods = line.methods
    answer = methods["KV/Txn"]

    def late(request: pb.TxnRequest, context: Context) -> Any:
        found = answer(request, context)
        goes_on.wait(10)
        return found

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            taking = asyncio.create_task(client.lock("l", lease=lease).acquire())
            await until(lambda: line.asked)
            taking.cancel()
            await asyncio.sleep(0.05)
            assert len(line.asked) == 1
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await taking
            [deleted] = line.deletes(b"l/%x" % lease.id)
            assert [compare.create_revision for compare in deleted.compare] == [5]

    with scripted(methods | {"KV/Txn": late}) as address:
        asyncio.run(main())


def test_what_may_land_late_is_not_sent_twice() -> None:
    """Under a given lease, which stays: the key is deleted, if it is there."""
    line = Line((Code.UNAVAILABLE, "etcdserver: request timed out"), there(b"", 6, 6), done(7))

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            with pytest.raises(m.Unavailable):
                await client.lock("l", lease=lease).acquire()
            assert len(line.asked) == 3
            assert len(line.deletes(b"l/%x" % lease.id)) == 1

    with scripted(line.methods | {"Watch/Watch": watched}) as address:  # its put is waited for
        asyncio.run(main())


def test_a_key_that_comes_late_is_deleted() -> None:
    """Its put got no answer, its owner has left; under the lease that stays it would keep others out."""
    line = Line((Code.UNAVAILABLE, "etcdserver: request timed out"), nothing())
    lands = threading.Event()

    def watch(requests: Iterator[pb.WatchRequest], context: Context) -> Iterator[pb.WatchResponse]:
        asked = next(requests).create_request
        yield pb.WatchResponse(created=True)
        lands.wait(10)
        yield pb.WatchResponse(header=pb.ResponseHeader(revision=7), events=[kv_pb2.Event(
            kv=kv_pb2.KeyValue(key=asked.key, create_revision=7, mod_revision=7, version=1))])
        say_nothing(context)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            key = b"l/%x" % lease.id
            with pytest.raises(m.Unavailable):
                await client.lock("l", lease=lease).acquire()
            assert not line.deletes(key)
            lands.set()
            await until(lambda: line.deletes(key))
            assert [compare.create_revision for compare in line.deletes(key)[0].compare] == [7]

    with scripted(line.methods | {"Watch/Watch": watch}) as address:
        asyncio.run(main())


def test_two_tasks_do_not_hold_one_object() -> None:
    line = Line(held(), pb.TxnResponse(succeeded=True), held(8))

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            lock = client.lock("l", lease=lease)
            taking = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="of its own"):
                await lock.acquire()
            await taking
            with pytest.raises(RuntimeError, match="of its own"):
                await lock.try_acquire()
            assert not lock.lost
            await lock.release()
            async with lock:
                assert lock.token == 8

    with scripted(line.methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize("given", [False, True])
def test_a_release_goes_on_where_its_caller_is_cancelled(given: bool) -> None:
    """Else the key would stay, and its lease be renewed, until the client ends."""
    line, revoked = Line(held(), pb.TxnResponse(succeeded=True), held(8)), list[int]()

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            lock = client.lock("l", lease=lease if given else None)
            own = (await lock.acquire()).lease
            goes_on = threading.Event()
            engine.loop().call_soon_threadsafe(goes_on.wait, 10)  # it has not begun when it is cancelled
            releasing = asyncio.create_task(lock.release())
            for _ in range(5):
                await asyncio.sleep(0)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
            goes_on.set()
            await until(lambda: line.deletes(b"l/%x" % own.id) if given else revoked == [own.id])
            assert own.lost is not given
            await until(lambda: not lock._taken.locked())

    with scripted(line.methods | {"Lease/LeaseRevoke": revoke}) as address:
        asyncio.run(main())


def test_a_try_that_is_cancelled_as_it_gives_up_leaves_the_line() -> None:
    """Its revoke is answered by nobody at first; else its key would keep others waiting for a minute."""
    second, revokes, goes_on = held(5), list[int](), threading.Event()
    second.responses[1].response_range.kvs[0].create_revision = 3

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revokes.append(request.ID)
        if len(revokes) == 1:
            goes_on.wait(10)
            context.abort(Code.UNAVAILABLE, "etcdserver: no leader")
        return pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            lock = client.lock("l")
            trying = asyncio.create_task(lock.try_acquire())
            await until(lambda: revokes)
            trying.cancel()
            await asyncio.sleep(0)
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await trying
            await until(lambda: len(revokes) == 2 and not lock._taken.locked())

    with scripted(Line(second).methods | {"Lease/LeaseRevoke": revoke}) as address:
        asyncio.run(main())


def test_a_lease_is_not_renewed_where_its_revoker_is_cancelled() -> None:
    async def main() -> None:
        async with m.Client(address) as client:
            lease = await client.lease(60)
            goes_on = threading.Event()
            engine.loop().call_soon_threadsafe(goes_on.wait, 10)
            revoking = asyncio.create_task(lease.revoke())
            await asyncio.sleep(0)
            revoking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await revoking
            goes_on.set()
            assert await asyncio.wait_for(lease.wait_lost(), 5) == "it was revoked"

    with scripted(Line().methods) as address:
        asyncio.run(main())


def test_a_proclamation_writes_over_no_newer_one() -> None:
    """Each names the value before it, so that an attempt that lands late does nothing; where an attempt
    without an answer was done, the next one sees it."""
    done = pb.TxnResponse(succeeded=True, header=pb.ResponseHeader(revision=6))
    line = Line(
        held(), done, (Code.UNAVAILABLE, "etcdserver: request timed out"), there(b"c", 5, 7),
        there(b"x", 5, 8), pb.TxnResponse(succeeded=True, header=pb.ResponseHeader(revision=9)),
        there(b"other", 10, 10))

    def compared(txn: pb.TxnRequest) -> tuple[int, int]:
        created, modified = txn.compare
        return created.create_revision, modified.mod_revision

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            place = client.election("l").campaign("a", lease=lease)
            await place.campaign()
            await place.proclaim("b")
            await place.proclaim("c")  # no answer, then: it is there
            await place.proclaim("d")  # another value is there: once more, over that
            assert [compared(txn) for txn in line.asked[1:]] == [(5, 5), (5, 6), (5, 6), (5, 7), (5, 8)]
            with pytest.raises(m.NotHeld):
                await place.proclaim("e")
            assert place.lost

    with scripted(line.methods) as address:
        asyncio.run(main())


def test_a_lock_tells_the_revision_at_which_its_turn_had_come() -> None:
    """Of the transaction that put its key, where it was first; else of the look behind the wait."""
    second = held(5)
    second.responses[1].response_range.kvs[0].create_revision = 3
    mine = pb.RangeResponse(
        kvs=[kv_pb2.KeyValue(key=b"l/1", create_revision=5)], count=1, header=pb.ResponseHeader(revision=8))
    look = pb.TxnResponse(
        header=pb.ResponseHeader(revision=8), succeeded=True, responses=[pb.ResponseOp(response_range=mine)])
    line = Line(held(4), pb.TxnResponse(succeeded=True), second, nothing(7), look)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            lock = client.lock("l", lease=lease)
            with pytest.raises(m.NotHeld):
                _ = lock.revision
            for revision, token in ((4, 4), (8, 5)):
                await lock.acquire()
                assert (lock.revision, lock.token) == (revision, token)
                await lock.release()

    with scripted(line.methods) as address:
        asyncio.run(main())


class Late:
    """What lands late: a watch of the key tells it, at that revision, once it is let go."""

    def __init__(self, revision: int) -> None:
        self._revision, self.lands, self.asked = revision, threading.Event(), list[int]()

    def watch(self, requests: Iterator[pb.WatchRequest], context: Context) -> Iterator[pb.WatchResponse]:
        asked = next(requests).create_request
        self.asked.append(asked.start_revision)
        yield pb.WatchResponse(created=True)
        while context.is_active() and not self.lands.wait(0.05):
            pass
        if context.is_active():
            yield pb.WatchResponse(header=pb.ResponseHeader(revision=self._revision), events=[kv_pb2.Event(
                kv=kv_pb2.KeyValue(key=asked.key, create_revision=self._revision,
                                   mod_revision=self._revision, version=1))])
            say_nothing(context)


def test_a_key_that_comes_behind_the_next_owner_is_deleted() -> None:
    """The put without an answer is done when the same lock was held once more, and given up."""
    line = Line((Code.UNAVAILABLE, "etcdserver: request timed out"), nothing(6), nothing(7), held(8),
                there(b"", 8, 8), there(b"", 8, 8),
                pb.TxnResponse(succeeded=True, header=pb.ResponseHeader(revision=9)))
    coming = Late(11)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            key, first = b"l/%x" % lease.id, client.lock("l", lease=lease)
            with pytest.raises(m.Unavailable):
                await first.acquire()
            async with client.lock("l", lease=lease):
                assert not line.deletes(key)
                await first.release()
                assert not line.deletes(key), "it was given up before: the key is another's"
                same = client.lock("l", lease=lease)
                await same.acquire()
                assert not line.deletes(key), "it is held here"
            coming.lands.set()
            await until(lambda: len(line.deletes(key)) == 2)
            assert [txn.compare[0].create_revision for txn in line.deletes(key)] == [8, 11]
            assert coming.asked[-1] == 10

    with scripted(line.methods | {"Watch/Watch": coming.watch}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("held_before", [False, True])
def test_a_key_that_cannot_be_deleted_now_is_deleted_later(
    held_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has left, and keeps the lease alive; whether its put has no answer, or its delete."""
    monkeypatch.setattr(late, "_AGAIN_S", 0.05)
    answers = [held()] if held_before else [(Code.UNAVAILABLE, "etcdserver: request timed out")]
    line, away = Line(*answers), threading.Event()  # type: ignore[arg-type]
    answer = line.methods["KV/Txn"]

    def txn(request: pb.TxnRequest, context: Context) -> Any:
        if line.asked and away.is_set():
            context.abort(Code.DATA_LOSS, "etcdserver: corrupt cluster")  # whatever the deadline
        if line.asked and request.success[0].HasField("request_range"):
            return there(b"", 5, 5)
        return answer(request, context)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            lock, key = client.lock("l", lease=lease), b"l/%x" % lease.id
            away.set()
            with pytest.raises(m.ServerError):
                async with lock:
                    pass
            assert not line.deletes(key)
            away.clear()
            await until(lambda: line.deletes(key))
            assert [compare.create_revision for compare in line.deletes(key)[0].compare] == [5]

    with scripted(line.methods | {"KV/Txn": txn, "Watch/Watch": watched}) as address:
        asyncio.run(main())


def test_who_stands_in_line_again_waits_until_its_key_is_gone() -> None:
    """Its release was cancelled, and goes on behind it: that would delete the key of the next one."""
    line, goes_on = Line(held(5), pb.TxnResponse(succeeded=True), held(8)), threading.Event()
    answer = line.methods["KV/Txn"]

    def txn(request: pb.TxnRequest, context: Context) -> Any:
        found = answer(request, context)
        if request.success[0].HasField("request_delete_range"):
            goes_on.wait(10)
        return found

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            first = await client.lock("l", lease=lease).acquire()
            releasing = asyncio.create_task(first.release())
            await until(lambda: len(line.asked) == 2)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
            with pytest.raises(TimeoutError):  # which leaves in its turn
                async with asyncio.timeout(0.05):
                    await client.lock("l", lease=lease).acquire()
            again = asyncio.create_task(client.lock("l", lease=lease).acquire())
            await asyncio.sleep(0.1)
            assert len(line.asked) == 2
            goes_on.set()
            assert (await again).token == 8
            assert not lease.leaving

    with scripted(line.methods | {"KV/Txn": txn}) as address:
        asyncio.run(main())


def test_a_caller_that_is_cancelled_twice_leaves_no_error_to_asyncio(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(queueing.log, "warning", lambda text, *given: told.append(text % given))

    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        stands, leaves, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def stand(_: bytes) -> bool:
            stands.set()
            return await asyncio.Future()

        async def leave() -> None:
            leaves.set()
            await goes_on.wait()
            raise m.MusterError("user name is empty")

        async with m.Client("127.0.0.1:1") as client:
            lock = client.lock("l")
            monkeypatch.setattr(lock, "_stand", stand)
            monkeypatch.setattr(lock, "_leave", leave)
            waiter = asyncio.create_task(lock.acquire())
            for reached in (stands, leaves):
                await reached.wait()
                waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            goes_on.set()
            await until(lambda: told)
            assert "stays in the line" in told[0]
            del waiter, lock
            gc.collect()
            await asyncio.sleep(0)
        assert not complaints

    asyncio.run(main())
