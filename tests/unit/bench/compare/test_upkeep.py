"""What goes on beside a run, with doubles of the connections."""

from __future__ import annotations

import asyncio

import pytest

from bench.client import RpcError, Status
from bench.compare.loads import upkeep
from bench.load.spec import Spec
from cluster.pb import rpc_pb2 as pb


class Alone:
    """A client that nobody answers."""

    async def close(self) -> None:
        pass


def test_a_compaction_that_fails_is_counted_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """One election ended all compactions of the hour, and the whole result was thrown away."""
    answers: list[int | Exception] = [RpcError(Status.UNAVAILABLE, "no leader"), TimeoutError(), 1500]

    async def run() -> tuple[list[int], dict[str, int]]:
        compacted, done = [], asyncio.Event()

        async def connect(spec: Spec) -> Alone:
            return Alone()

        async def revision_of(client: Alone) -> int:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def compact(client: Alone, revision: int) -> None:
            compacted.append(revision)
            done.set()
            await asyncio.Event().wait()

        for double in (connect, revision_of, compact):
            monkeypatch.setattr(upkeep, double.__name__, double)
        async with upkeep.compacting(Spec("put", ("a:1",)), 0.001, 1000) as failed, asyncio.timeout(10):
            await done.wait()
        return compacted, failed

    assert asyncio.run(run()) == ([500], {
        "compaction: UNAVAILABLE: no leader": 1, "compaction: no answer within the time limit": 1})


class Member(Alone):
    """A client of the one endpoint that leads."""

    async def unary(self, path: str, request: pb.StatusRequest, response: type[pb.StatusResponse]
                    ) -> pb.StatusResponse:
        return pb.StatusResponse(leader=7, header=pb.ResponseHeader(member_id=7))


def test_a_member_that_logs_nobody_in_does_not_hide_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(spec: Spec, endpoints: tuple[str, ...]) -> Member:
        if endpoints == ("b:1",):
            return Member()
        raise RpcError(Status.UNAVAILABLE, "etcdserver: request timed out")

    monkeypatch.setattr(upkeep, "connect", connect)
    assert asyncio.run(upkeep.leader_of(("a:1", "b:1"))) == "b:1"
    with pytest.raises(OSError, match="no leader among a:1, c:1: UNAVAILABLE: etcdserver: request timed"):
        asyncio.run(upkeep.leader_of(("a:1", "c:1")))
