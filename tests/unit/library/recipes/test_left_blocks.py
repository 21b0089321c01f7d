"""What is told of a block whose end, or begin, cannot give up what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import lease as lease_module
from muster_client import sync
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Answers, Code, say_nothing, scripted, until, watched
from tests.unit.library.test_places import Line, held

Context = grpc.ServicerContext
BLOCKS: dict[str, Callable[[Any], Any]] = {
    "lease": lambda client: client.lease(60),
    "lock": lambda client: client.lock("l"),
    "leadership": lambda client: client.election("l").campaign("v"),
    "barrier": lambda client: client.barrier("l"),
    "registration": lambda client: client.register("s", "a:1")}


@contextlib.contextmanager
def failing() -> Iterator[tuple[str, threading.Event]]:
    """A server that gives nothing up once the event is set."""
    away = threading.Event()

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        if away.is_set():
            context.abort(Code.DATA_LOSS, "etcdserver: corrupt cluster")  # whatever the deadline
        return pb.LeaseRevokeResponse()

    def txn(request: pb.TxnRequest, context: Context) -> pb.TxnResponse:
        if away.is_set():
            context.abort(Code.DATA_LOSS, "etcdserver: corrupt cluster")
        return held()

    with scripted(Line().methods | {
            "KV/Put": lambda *_: pb.PutResponse(), "KV/Range": lambda *_: pb.RangeResponse(),
            "Watch/Watch": watched, "Lease/LeaseRevoke": revoke, "KV/Txn": txn}) as address:
        yield address, away


@pytest.mark.parametrize("block", BLOCKS)
def test_what_ended_a_block_is_told(block: str) -> None:
    """A cancellation, too: a task would go on that nobody cancels a second time."""
    async def used(client: m.Client, error: BaseException | None) -> None:
        away.clear()
        made = BLOCKS[block](client)
        async with await made if block == "lease" else made:
            away.set()
            if error is not None:
                raise error

    async def main() -> None:
        async with m.Client(address) as client:
            for error in (ValueError("the block's"), asyncio.CancelledError("the block's")):
                with pytest.raises(type(error), match="the block's"):
                    await used(client, error)
            with pytest.raises(m.ServerError, match="corrupt"):
                await used(client, None)

    with failing() as (address, away):
        asyncio.run(main())


@pytest.mark.parametrize("block", BLOCKS)
def test_an_interrupt_of_a_block_is_told(block: str) -> None:
    def used(client: sync.Client) -> None:
        with BLOCKS[block](client):
            away.set()
            raise KeyboardInterrupt

    with failing() as (address, away), sync.Client(address) as client, pytest.raises(KeyboardInterrupt):
        used(client)


ENTERS: dict[str, Callable[[Any, Any], Any]] = {
    "lock": lambda client, lease: client.lock("l", lease=lease),
    "leadership": lambda client, lease: client.election("l").campaign("v", lease=lease),
    "barrier": lambda client, lease: client.double_barrier("l", 2, lease=lease),
    "item": lambda client, lease: client.queue("l").take()}


class Waited:
    """A server at which each waits for another, until it is ``away``: it does nothing then until it is
    ``back``, and each is the first."""

    def __init__(self) -> None:
        self.away, self.back = threading.Event(), threading.Event()
        self.watched, self.left = list[bytes](), list[str]()

    @property
    def methods(self) -> dict[str, Answers]:
        return Line().methods | {
            "KV/Txn": self._txn, "Watch/Watch": self._watch, "Lease/LeaseRevoke": self._revoke}

    def _txn(self, request: pb.TxnRequest, context: Context) -> pb.TxnResponse:
        if self.away.is_set():
            self.left.append("txn")
            self.back.wait(10)
            return held(9)
        if request.success[0].HasField("request_put"):
            found = held(5)
            found.responses[1].response_range.kvs[0].create_revision = 3
            return found
        own = kv_pb2.KeyValue(key=b"l/waiters/1", create_revision=5)
        other = kv_pb2.KeyValue(key=b"l/1", create_revision=3)
        of = {b"l/waiters": [own], b"l/": [] if len(request.success) > 1 else [other]}
        return pb.TxnResponse(header=pb.ResponseHeader(revision=6), succeeded=True, responses=[
            pb.ResponseOp(response_range=pb.RangeResponse(kvs=of.get(op.request_range.key, [])))
            for op in request.success])

    def _watch(
        self, requests: Iterator[pb.WatchRequest], context: Context
    ) -> Iterator[pb.WatchResponse]:
        self.watched.append(next(requests).create_request.key)
        yield pb.WatchResponse(created=True)
        say_nothing(context)

    def _revoke(self, request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        if self.away.is_set():
            self.left.append("revoke")
            self.back.wait(10)
        return pb.LeaseRevokeResponse()


@pytest.mark.parametrize(("kind", "given"), [
    *((kind, given) for kind in ("lock", "leadership", "barrier") for given in (False, True)),
    ("item", False)])  # fmt: skip
def test_who_gives_up_waiting_does_not_wait_for_a_cluster_that_is_away(
    kind: str, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit of a second took half a minute. What is left to do goes on, and the same object waits for
    it where it is used again."""
    monkeypatch.setattr(lease_module, "LEFT_IN_S", 0.1)
    server = Waited()

    async def main() -> None:
        async with m.Client(address) as client:
            block = ENTERS[kind](client, await client.lease(60) if given else None)
            entering = asyncio.create_task(block.__aenter__())
            await until(lambda: server.watched)
            server.away.set()
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await entering
            await until(lambda: server.left == (["txn"] if given else ["revoke"]))
            if kind in ("lock", "leadership"):
                again = asyncio.create_task(block.__aenter__())
                await asyncio.sleep(0)
                server.back.set()
                assert (await again).token == 9
            server.back.set()

    with scripted(server.methods) as address:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("block", "given"), [*((block, False) for block in BLOCKS), ("lock", True), ("leadership", True)])
def test_a_block_that_is_cancelled_does_not_wait_for_a_cluster_that_is_away(
    block: str, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit around it took half a minute longer. The same object waits for what goes on."""
    monkeypatch.setattr(lease_module, "LEFT_IN_S", 0.1)
    away, back = threading.Event(), threading.Event()
    left, waited_for = list[str](), list[bool]()

    def ends(request: Any, context: Context) -> Any:
        if away.is_set():
            left.append(type(request).__name__)
            waited_for.append(back.wait(10))
        return held() if isinstance(request, pb.TxnRequest) else pb.LeaseRevokeResponse()

    async def used(block: Any) -> None:
        async with asyncio.timeout(5) as limit, block:
            away.set()
            limit.reschedule(0)
            await asyncio.sleep(10)

    async def main() -> None:
        async with m.Client(address) as client:
            made = ENTERS[block](client, await client.lease(60)) if given else BLOCKS[block](client)
            with pytest.raises(TimeoutError):
                await used(await made if block == "lease" else made)
            await until(lambda: left)
            assert not waited_for
            if block in ("lock", "leadership"):
                again = asyncio.create_task(made.__aenter__())
                await asyncio.sleep(0)
                away.clear()
                back.set()
                await again
            back.set()

    methods = {"KV/Put": lambda *_: pb.PutResponse(), "KV/Range": lambda *_: pb.RangeResponse(),
               "Watch/Watch": watched, "Lease/LeaseRevoke": ends, "KV/Txn": ends}
    with scripted(Line().methods | methods) as address:
        asyncio.run(main())


def test_a_registration_that_is_given_up_does_not_wait_for_a_cluster_that_is_away(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEFT_IN_S", 0.1)
    back, asked, waited_for = threading.Event(), list[str](), list[bool]()

    def away(request: Any, context: Context) -> Any:
        asked.append(type(request).__name__)
        waited_for.append(back.wait(10))
        return pb.PutResponse() if isinstance(request, pb.PutRequest) else pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            registering = asyncio.create_task(client.register("s", "a:1").register())
            await until(lambda: asked)
            registering.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await registering
            assert not waited_for
            await until(lambda: asked == ["PutRequest", "LeaseRevokeRequest"])
            back.set()

    methods = {"KV/Put": away, "KV/Range": lambda *_: pb.RangeResponse(), "Watch/Watch": watched,
               "Lease/LeaseRevoke": away}
    with scripted(Line().methods | methods) as address:
        asyncio.run(main())


def test_who_leaves_a_barrier_in_a_time_limit_does_not_wait_for_a_cluster_that_is_away(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEFT_IN_S", 0.1)
    server = Waited()

    def line(request: pb.RangeRequest, context: Context) -> pb.RangeResponse:
        kvs = [kv_pb2.KeyValue(key=b"l/waiters/%d" % at, create_revision=at, mod_revision=at)
               for at in (1, 2)]  # fmt: skip
        return pb.RangeResponse(header=pb.ResponseHeader(revision=90), kvs=kvs, count=2)

    async def main() -> None:
        async with m.Client(address) as client:
            barrier = client.double_barrier("l", 2)
            barrier._key, barrier._lease, barrier._opened = b"l/waiters/1", await client.lease(60), 4
            leaving = asyncio.create_task(barrier.leave())
            await until(lambda: server.watched)
            server.away.set()
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await leaving
            await until(lambda: server.left == ["revoke"])
            server.back.set()

    with scripted(server.methods | {"KV/Range": line}) as address:
        asyncio.run(main())


def test_who_gives_up_closing_a_barrier_does_not_wait_for_a_cluster_that_is_away(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEFT_IN_S", 0.1)
    server = Waited()
    server.away.set()

    async def main() -> None:
        async with m.Client(address) as client:
            closing = asyncio.create_task(client.barrier("l").hold())
            await until(lambda: server.left == ["txn"])
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await closing
            await until(lambda: server.left == ["txn"] * 2)
            server.back.set()

    with scripted(server.methods) as address:
        asyncio.run(main())
