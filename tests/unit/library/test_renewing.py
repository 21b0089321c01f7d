"""Leases that a program copies are renewed over one stream, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import grpc
import muster_client as m
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.renewing import Renewing

from tests.unit.library.scripted import Code, say_nothing, scripted, until

Requests = Iterator[pb.LeaseKeepAliveRequest]
Told = Iterator[pb.LeaseKeepAliveResponse]


def test_many_leases_take_one_stream_and_go_on_with_the_next_where_it_ends() -> None:
    """Two streams end in the middle, one of them by a failure that does not pass; one says nothing."""
    renewed: list[Counter[int]] = []
    gone: list[int] = []
    errors: list[str] = []

    def keep(requests: Requests, context: grpc.ServicerContext) -> Told:
        mine: Counter[int] = Counter()
        renewed.append(mine)
        number = len(renewed)
        for request in requests:
            mine[request.ID] += 1
            if number == 3:
                say_nothing(context)
            if number < 3 and mine.total() == 300:
                context.abort((Code.UNAVAILABLE, Code.PERMISSION_DENIED)[number - 1], f"failure {number}")
            yield pb.LeaseKeepAliveResponse(ID=request.ID, TTL=0 if request.ID == 7 else 3)

    async def main() -> None:
        async with m.Client(address) as client:
            renewing = Renewing(client._caller, gone.append, lambda error: errors.append(str(error)))
            running = engine.submit(renewing.run())
            for lease in range(1, 1001):
                await engine.run(renewing.add(lease))
            await until(lambda: len(renewed) > 3 and min(renewed[3][i] for i in range(1, 1001) if i != 7) > 1)
            await engine.run(renewing.add(2000))  # is noticed at once
            await asyncio.wait_for(until(lambda: renewed[3][2000]), 0.5)
            for lease in (2000, 2000, 2001):  # what was removed and comes again is asked for once
                renewing.remove(lease)
                await engine.run(renewing.add(lease))
            renewing.remove(2001)
            before = renewed[3][2000], renewed[3][2001]
            await until(lambda: renewed[3][2000] > before[0] + 2)
            assert renewed[3][2001] <= before[1] + 1
            assert sum(lease == 2000 for _, lease in renewing._due) <= 1
            assert running.cancel()

    with scripted({"Lease/LeaseKeepAlive": keep}) as address:
        asyncio.run(asyncio.wait_for(main(), 30))
    assert len(renewed) == 4
    assert gone == [7]
    assert [text.rpartition(": ")[2] for text in errors[:2]] == ["failure 1", "failure 2"]
    assert len(errors) == 3
    assert "not answered in time" in errors[2]
