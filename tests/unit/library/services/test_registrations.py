"""What a registration leaves behind, whoever gives up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine

from tests.unit.library.scripted import Answers, scripted, until, watched

Context = grpc.ServicerContext


class Leases:
    """Grants them for 2 s; ``kept``: renewals find them."""

    def __init__(self) -> None:
        self.granted: list[int] = []
        self.revoked: list[int] = []
        self.asked: list[int] = []  # to be revoked
        self.kept = True
        self.revokes = threading.Event()
        self.revokes.set()

    @property
    def methods(self) -> dict[str, Answers]:
        return {"Lease/LeaseGrant": self._grant, "Lease/LeaseRevoke": self._revoke,
                "Lease/LeaseKeepAlive": self._renew, "KV/Put": lambda *_: pb.PutResponse(),
                "KV/Range": lambda *_: pb.RangeResponse(), "Watch/Watch": watched}

    def _grant(self, request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        self.granted.append(request.ID)
        return pb.LeaseGrantResponse(ID=request.ID, TTL=2)

    def _revoke(self, request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        self.asked.append(request.ID)
        self.revokes.wait(10)
        self.revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    def _renew(self, requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        for request in requests:
            kept = self.kept or self.granted[0] != request.ID
            yield pb.LeaseKeepAliveResponse(ID=request.ID, TTL=2 if kept else 0)


def test_an_instance_is_given_up_also_where_its_caller_is_cancelled() -> None:
    """Else its lease would be renewed until the client ends."""
    leases = Leases()

    async def main() -> None:
        async with m.Client(address) as client:
            registration = await client.register("s", "a:1").register()
            goes_on = threading.Event()
            engine.loop().call_soon_threadsafe(goes_on.wait, 10)
            ending = asyncio.create_task(registration.unregister())
            await asyncio.sleep(0.05)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            goes_on.set()
            await until(lambda: leases.revoked == leases.granted)
            assert not registration.found

    with scripted(leases.methods) as address:
        asyncio.run(main())


def test_an_instance_that_ends_while_it_is_registered_anew_leaves_no_lease() -> None:
    """The one before is still being revoked."""
    leases = Leases()
    leases.kept = False

    async def main() -> None:
        async with m.Client(address) as client:
            leases.revokes.clear()
            registration = await client.register("s", "a:1").register()
            await until(lambda: leases.asked)
            first, second = leases.granted
            ending = asyncio.create_task(registration.unregister())
            await until(lambda: second in leases.asked)
            leases.revokes.set()
            await ending
            await until(lambda: {first, second} <= set(leases.revoked))  # each by a call of its own

    with scripted(leases.methods) as address:
        asyncio.run(main())


def test_an_instance_is_registered_again_in_another_loop() -> None:
    leases, asked = Leases(), list[float]()

    async def healthy() -> bool:
        asked.append(asyncio.get_running_loop().time())
        return True

    async def main(registration: m.Registration) -> None:
        async with registration:
            await asyncio.sleep(0.3)
            assert registration.found

    with scripted(leases.methods) as address:
        registration = m.Client(address).register("s", "a:1", healthy=healthy)
        for _ in range(2):
            asyncio.run(main(registration))
    assert len(asked) < 5, "it is asked three times in a time to live"


@pytest.mark.parametrize("anew", [False, True])
def test_who_waits_for_a_loss_hears_of_the_clients_end(anew: bool) -> None:
    """Nothing renews it from then on. A thread that waited without a time limit held up its program's end."""
    async def main() -> None:
        client, told = m.Client(address), list[m.MusterError]()
        registration = await client.register("s", "a:1", anew=anew).register()
        registration.on_lost(told.append)
        waiting = asyncio.create_task(registration.wait_lost())
        await asyncio.sleep(0)
        await client.close()
        async with asyncio.timeout(5):
            error = await waiting
        assert isinstance(error, m.LeaseLost)
        assert "the client is closed" in str(error)
        await until(lambda: registration.lost is not None)
        assert await registration.wait_lost() is registration.lost
        assert told == [error]

    with scripted(Leases().methods) as address:
        asyncio.run(main())
