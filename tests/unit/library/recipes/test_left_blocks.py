"""What is told of a block whose end cannot give up what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import sync
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Code, scripted, watched
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
