"""A client process revokes its leases behind its result, and where its run is given up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import h2.events
import pytest

from bench.load.spec import Spec
from bench.load.traffic.recipes import LOCK, UNLOCK
from bench.load.traffic.streams import GRANT, REVOKE
from bench.parent import started
from cluster.pb import lock_pb2
from cluster.pb import rpc_pb2 as pb
from tests.unit.bench.conftest import ScriptedServer

_LIMIT_S = 60.0
_ANSWERS = {LOCK: lock_pb2.LockResponse(key=b"k"), UNLOCK: lock_pb2.UnlockResponse()}


class Leases(ScriptedServer):
    """Grants leases; revokes them, unless it holds these answers back."""

    def __init__(self, *, holds_back: bool = False) -> None:
        super().__init__()
        self.granted: list[int] = []  # their TTLs
        self.held: set[int] = set()
        self.holds_back = holds_back
        self.waiting: list[tuple[int, int]] = []
        self._paths: dict[int, str] = {}

    def request(self, stream_id: int, body: bytes) -> None:
        path = self._paths.pop(stream_id)
        if path == GRANT:
            self.granted.append(pb.LeaseGrantRequest.FromString(body).TTL)
            self.held.add(len(self.granted))
            self.answer(stream_id, pb.LeaseGrantResponse(ID=len(self.granted)).SerializeToString())
        elif path == REVOKE:
            self.waiting.append((stream_id, pb.LeaseRevokeRequest.FromString(body).ID))
            if not self.holds_back:
                self.revoke()
        else:
            self.answer(stream_id, _ANSWERS[path].SerializeToString())

    def revoke(self) -> None:
        for stream_id, lease in self.waiting:
            self.held.discard(lease)
            self.answer(stream_id, pb.LeaseRevokeResponse().SerializeToString())
        self.waiting.clear()

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._paths[event.stream_id] = str(dict(event.headers)[":path"])  # type: ignore[call-overload]
        super()._event(event)


async def said(process: asyncio.subprocess.Process, wanted: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(_LIMIT_S):
        while json.loads(await process.stdout.readline())["event"] != wanted:
            pass


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(_LIMIT_S):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


def test_a_result_does_not_wait_until_all_leases_are_revoked() -> None:
    async def scenario() -> None:
        server = Leases(holds_back=True)
        spec = Spec("lease-grant", (f"127.0.0.1:{await server.start()}",), clients=5, total=60, lease_ttl_s=9)
        process = await started("bench.load.worker", spec.dumps())
        assert process.stdin is not None
        await said(process, "ready")
        process.stdin.write(b"go\n")
        await said(process, "sent")
        process.stdin.write(b"end 60\n")
        await said(process, "result")
        assert server.granted == [9] * 60
        assert len(server.held) == 60
        server.holds_back = False
        server.revoke()
        server.flush()
        assert await ended(process) == 0
        assert server.held == set()
        await server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("until", ["ready", "progress", "sent"])
def test_a_run_that_is_given_up_leaves_no_lease_that_others_would_wait_for(until: str) -> None:
    async def scenario() -> None:
        server = Leases()
        spec = Spec("lock", (f"127.0.0.1:{await server.start()}",), clients=3, duration_s=60,
                    locker="lock-rpc")
        if until == "sent":
            spec = replace(spec, total=6)
        process = await started("bench.load.worker", spec.dumps())
        assert process.stdin is not None
        await said(process, "ready")
        if until != "ready":
            process.stdin.write(b"go\n")
            await said(process, until)
        assert len(server.held) == 3
        process.stdin.close()
        assert await ended(process) == 0
        assert server.held == set()
        assert set(server.granted) == {360}  # longer than the run, and not much
        await server.stop()

    asyncio.run(scenario())
