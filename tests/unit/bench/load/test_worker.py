"""A client process revokes its leases behind its result, and where its run is given up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import h2.events
import pytest

from bench import parent
from bench.load import run
from bench.load.spec import Spec
from bench.load.traffic.recipes import LOCK, UNLOCK
from bench.load.traffic.streams import GRANT, REVOKE
from cluster.pb import lock_pb2
from cluster.pb import rpc_pb2 as pb
from tests.unit.bench.conftest import ScriptedServer
from tests.unit.library.scripted import scripted

_LIMIT_S = 60.0
_ANSWERS = {LOCK: lock_pb2.LockResponse(key=b"k"), UNLOCK: lock_pb2.UnlockResponse()}


class Leases(ScriptedServer):
    """Grants leases, of which it grants some only once revocations come; holds these back if told so."""

    def __init__(self, *, holds_back: bool = False, at_once: int = 1_000_000) -> None:
        super().__init__()
        self.at_once = at_once  # leases
        self.asked: list[int] = []
        self.granted: list[int] = []  # their TTLs
        self.held: set[int] = set()
        self.holds_back = holds_back
        self.waiting: list[tuple[int, int]] = []
        self._paths: dict[int, str] = {}

    def request(self, stream_id: int, body: bytes) -> None:
        path = self._paths.pop(stream_id)
        if path == GRANT:
            self.granted.append(pb.LeaseGrantRequest.FromString(body).TTL)
            self.asked.append(stream_id)
            if len(self.granted) <= self.at_once:
                self.grant()
        elif path == REVOKE:
            self.waiting.append((stream_id, pb.LeaseRevokeRequest.FromString(body).ID))
            self.grant()
            if not self.holds_back:
                self.revoke()
        else:
            self.answer(stream_id, _ANSWERS[path].SerializeToString())

    def grant(self) -> None:
        for stream_id in self.asked:
            self.held.add(stream_id)
            self.answer(stream_id, pb.LeaseGrantResponse(ID=stream_id).SerializeToString())
        self.asked.clear()

    def revoke(self) -> None:
        for stream_id, lease in self.waiting:
            self.held.discard(lease)
            self.answer(stream_id, pb.LeaseRevokeResponse().SerializeToString())
        self.waiting.clear()

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._paths[event.stream_id] = str(dict(event.headers)[":path"])  # type: ignore[call-overload]
        super()._event(event)


async def working(spec: Spec) -> asyncio.subprocess.Process:
    process = await parent.started("bench.load.worker")
    assert process.stdin is not None
    process.stdin.write(spec.dumps().encode() + b"\n")
    return process


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
        process = await working(spec)
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


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_result_is_not_lost_where_ctrl_c_ends_the_revoking_of_leases(
    interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, behind_result = run._Process.stop, asyncio.Event()

    async def noted(process: run._Process, limit_s: float = 5.0) -> None:
        behind_result.set()
        await stopped(process, limit_s)

    monkeypatch.setattr(run._Process, "stop", noted)

    async def scenario() -> dict[str, Any]:
        server = Leases(holds_back=True)
        spec = Spec("lease-grant", (f"127.0.0.1:{await server.start()}",), clients=5, total=60)
        stop = asyncio.Event()
        running = asyncio.ensure_future(run.run(spec, stop=stop))
        async with asyncio.timeout(_LIMIT_S):
            await behind_result.wait()
            if interrupted:
                stop.set()
            await asyncio.sleep(0.1)
            running.cancel()
            await asyncio.sleep(0.1)
            server.holds_back = False
            server.revoke()
            server.flush()
            try:
                return await running
            finally:
                await server.stop()

    if interrupted:
        assert asyncio.run(scenario())["operations"] == 60
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(scenario())


@pytest.mark.parametrize("drains", [False, True])
def test_a_run_that_is_stopped_sends_what_waits_only_if_told_so(drains: bool) -> None:
    async def scenario() -> tuple[int, dict[str, Any]]:
        server = Leases(at_once=1)
        spec = Spec("lease-grant", (f"127.0.0.1:{await server.start()}",), clients=1, duration_s=60,
                    rate_per_s=200)
        stop, unsent = asyncio.Event(), [0]
        running = asyncio.ensure_future(run.run(
            spec, stop=stop, drains=drains, progress=lambda _, errors: unsent.append(errors)))
        async with asyncio.timeout(_LIMIT_S):
            while not server.asked:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.4)
            stop.set()
            while not drains and unsent[-1] <= 20:  # the grant below would be before the stop
                await asyncio.sleep(0.01)
            server.at_once = 1_000_000
            server.grant()
            server.flush()
            result = await running
        await server.stop()
        return len(server.granted), result

    granted, result = asyncio.run(scenario())
    assert result["operations"] == granted
    unsent = result["errors"].get("not sent before the stop", 0)
    assert (granted == 2, unsent > 20) == (not drains, not drains)
    assert drains == (granted > 20)


def test_leases_granted_while_others_are_revoked_are_revoked_too() -> None:
    async def scenario() -> None:
        server = Leases(at_once=5)
        spec = Spec("lease-grant", (f"127.0.0.1:{await server.start()}",), clients=3, duration_s=60)
        process = await working(spec)
        assert process.stdin is not None
        await said(process, "ready")
        process.stdin.write(b"go\n")
        async with asyncio.timeout(_LIMIT_S):
            while len(server.asked) < 3:
                await asyncio.sleep(0.01)
        process.stdin.close()
        assert await ended(process) == 0
        assert (len(server.granted), server.held) == (8, set())
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
        process = await working(spec)
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


def test_a_password_is_in_no_result_and_on_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started, told, seen = parent.started, list[pb.AuthenticateRequest](), list[tuple[str, ...]]()

    def login(request: pb.AuthenticateRequest, context: Any) -> pb.AuthenticateResponse:
        told.append(request)
        return pb.AuthenticateResponse(token="t")

    def put(request: pb.PutRequest, context: Any) -> pb.PutResponse:
        return pb.PutResponse()

    async def noted(module: str, *arguments: str) -> asyncio.subprocess.Process:
        seen.append(arguments)
        return await started(module, *arguments)

    monkeypatch.setattr(parent, "started", noted)
    with scripted({"Auth/Authenticate": login, "KV/Put": put}) as address:
        result = asyncio.run(run.run(Spec("put", (address,), total=3, user="root:hidden")))
    assert (result["operations"], result["settings"]["user"]) == (3, "root")
    assert [(one.name, one.password) for one in told] == [("root", "hidden")]
    assert "hidden" not in json.dumps(result)
    assert "hidden" not in str(seen)


def test_a_worker_ends_where_its_parent_is_gone_before_it_says_what_to_do() -> None:
    async def scenario() -> int:
        process = await parent.started("bench.load.worker")
        assert process.stdin is not None
        process.stdin.close()
        return await ended(process)

    assert asyncio.run(scenario()) == 0
