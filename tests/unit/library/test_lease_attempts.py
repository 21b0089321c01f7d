"""What is asked of a lease when an attempt is not answered, or answered late."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import lease as leases
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import calls, connections, keeper
from muster_client.wire.endpoints import parsed
from muster_client.wire.keeper import Kept, clock

from tests.unit.library.scripted import Code, say_nothing, scripted, until

Context = grpc.ServicerContext
_TTL_S = 3


def test_a_lease_counts_from_the_attempt_that_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ATTEMPT_S", 1.2)
    asked: list[int] = []

    def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        asked.append(request.ID)
        if len(asked) == 1:
            say_nothing(context)
        return pb.LeaseGrantResponse(ID=request.ID, TTL=1)

    async def main() -> None:
        async with m.Client(address) as client:
            lease = await client.lease(1)
            assert not lease.lost
            assert len(set(asked)) == 1 < len(asked)

    with scripted({"Lease/LeaseGrant": grant}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("endpoints", [1, 3])
def test_a_lease_is_kept_where_each_renewal_takes_a_quarter_of_its_time(endpoints: int) -> None:
    """By servers; how much longer renewals may take is looked at below, without a machine's time."""

    def grant(request: pb.LeaseGrantRequest, context: Context) -> Any:
        return pb.LeaseGrantResponse(ID=request.ID, TTL=6)

    def keep(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Any:
        for request in requests:
            time.sleep(1.5)
            yield pb.LeaseKeepAliveResponse(ID=request.ID, TTL=6)

    async def main() -> None:
        async with m.Client(",".join(addresses)) as client:
            lease = await client.lease(6)
            kept = lease._kept.until + 3  # once it was renewed twice
            await until(lambda: lease.lost or lease._kept.until > kept)
            assert not lease.lost

    methods = {
        "Lease/LeaseGrant": grant,
        "Lease/LeaseRevoke": lambda request, context: pb.LeaseRevokeResponse(),
        "Lease/LeaseKeepAlive": keep,
    }
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(scripted(methods)) for _ in range(endpoints)]
        asyncio.run(main())


class VirtualLoop(asyncio.SelectorEventLoop):
    """Python's own, whose next timer is always due: no machine is too slow. A turn takes a microsecond."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def passed(timeout: float | None) -> Any:
            assert timeout is not None, "nothing would ever happen"
            self.now += max(timeout, 1e-6)
            return select(0)

        self._selector.select = passed  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


class Renewed:
    """A connection to a server whose answers to renewals take so long."""

    def __init__(self, took_s: float, asked: list[float]) -> None:
        self._took_s, self._asked = took_s, asked

    def stream(self, path: str, answer: Any, metadata: Any) -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def read() -> pb.LeaseKeepAliveResponse:
            await asyncio.sleep(begun + self._took_s - loop.time())
            return pb.LeaseKeepAliveResponse(ID=1, TTL=_TTL_S)

        return SimpleNamespace(
            send=lambda request: self._asked.append(begun), read=read, close_send=lambda: None,
            cancel=lambda: None)


@pytest.mark.parametrize(("endpoints", "grant_s", "took_s"), [
    (1, 0.0, 0.75), (2, 0.0, 0.75), (3, 0.0, 0.75), (1, 1.4, 0.75), (1, 0.0, 1.45), (3, 0.0, 1.6),
])  # fmt: skip
def test_a_lease_is_kept_where_each_renewal_takes_a_part_of_its_time(
    monkeypatch: pytest.MonkeyPatch, endpoints: int, grant_s: float, took_s: float
) -> None:
    """Each was given up, though the server had done it or would have in time, and so were its successors; or
    the first one was late, as it counted from the end of a slow grant. A server that is slow got twice as
    many."""
    loop, asked = VirtualLoop(), list[float]()
    for module in (connections, keeper):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
    monkeypatch.setattr(keeper, "clock", loop.time)
    names = ",".join(f"h{n}:1" for n in range(endpoints))
    found = connections.Connections(parsed(names))
    found._opened = [connections.Connection(endpoint) for endpoint in found._endpoints]
    for one in found._opened:
        one.line = Renewed(took_s, asked)  # type: ignore[assignment]

    async def main() -> None:
        keeps = keeper.Keeper(calls.Caller(found, "", "", 10.0), loop.time)
        kept = keeper.Kept(1, _TTL_S, loop.time())
        await asyncio.sleep(grant_s)
        await keeps.keep(kept)
        began = loop.time()
        while loop.time() < began + 10 * _TTL_S:
            await asyncio.sleep(0.01)
            assert not kept.why()
        await keeps.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    # in 30 s: one that was sent beside another takes the place of the next
    assert len(asked) <= (31 if endpoints == 1 else 40)
    if endpoints == 1:
        assert all(after - before > 0.99 for before, after in itertools.pairwise(asked))


def test_a_lease_that_is_lost_does_not_come_back() -> None:
    kept = Kept(1, 2, clock() - 3)
    assert kept.why()
    assert not kept.renewed(clock() + 2, clock())
    assert kept.why()


def test_a_lease_is_renewed_once_by_whom_it_is_asked_for() -> None:
    """What another endpoint may answer is asked again; the cluster's own answer is told at once."""
    answers: list[pb.LeaseKeepAliveResponse | tuple[grpc.StatusCode, str]] = []
    asked: list[int] = []

    def keep_alive(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: Context
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        for request in requests:
            asked.append(request.ID)
            answer = answers.pop(0)
            if isinstance(answer, tuple):
                context.abort(*answer)
            else:
                yield answer

    async def main() -> None:
        async with m.Client(address) as client:
            answers[:] = [(Code.UNAVAILABLE, "etcdserver: no leader"), pb.LeaseKeepAliveResponse(ID=7, TTL=9)]
            await client.renew(7)
            assert asked == [7, 7]
            answers[:] = [pb.LeaseKeepAliveResponse(ID=7, TTL=0)]
            with pytest.raises(m.LeaseNotFound):
                await client.renew(7)
            answers[:] = [(Code.PERMISSION_DENIED, "etcdserver: permission denied")]
            with pytest.raises(m.PermissionDenied):
                await client.renew(7)
            assert asked == [7] * 4

    with scripted({"Lease/LeaseKeepAlive": keep_alive}) as address:
        asyncio.run(main())


def test_a_renewal_stays_open_until_it_is_answered() -> None:
    """Etcd's grpc-proxy drops it once its client has said that it sends no more."""
    def proxied(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        request, ended = next(requests), threading.Event()

        def follow() -> None:
            with contextlib.suppress(Exception):  # of a call that was cancelled
                for _ in requests:
                    pass
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        if ended.wait(0.2):  # so long an answer takes
            context.abort(Code.CANCELLED, "context canceled")
        yield pb.LeaseKeepAliveResponse(ID=request.ID, TTL=9)

    async def main() -> None:
        async with m.Client(address) as client:
            await client.renew(7, timeout=2)

    with scripted({"Lease/LeaseKeepAlive": proxied}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_the_server_ends_what_it_has_answered(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Etcd counts a stream that its client cancels as Unavailable. One that it does not end is cancelled."""
    told: list[str] = []

    def keep_alive(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        context.add_callback(lambda: told.append("gone"))
        yield pb.LeaseKeepAliveResponse(ID=next(requests).ID, TTL=9)
        with contextlib.suppress(Exception):  # of a call that was cancelled
            told.extend("more" for _ in requests)
            told.append("no more")
        if not ends:
            say_nothing(context)

    async def main() -> None:
        async with m.Client(address) as client:
            await client.renew(7)
            await until(lambda: "gone" in told)
            assert not ends or told == ["no more", "gone"]

    if not ends:
        monkeypatch.setattr(keeper, "_ENDED_IN_S", 0.0)
    with scripted({"Lease/LeaseKeepAlive": keep_alive}) as address:
        asyncio.run(main())


def test_a_renewal_that_is_not_answered_ends_in_time() -> None:
    def keep_alive(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        next(requests)
        say_nothing(context)
        yield from ()

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(m.DeadlineExceeded):
                await client.renew(7, timeout=0.2)

    with scripted({"Lease/LeaseKeepAlive": keep_alive}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("ttl_s", [60, 0])
def test_a_grant_that_took_as_long_as_its_lease_lives_is_renewed_before_it_is_told(
    there: bool, ttl_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that hung. The lease was told as one that is lost, and nothing renewed it."""
    took_s, told = itertools.chain([100.0], itertools.repeat(0.0)), list[tuple[grpc.StatusCode, str]]()
    monkeypatch.setattr(leases, "clock", lambda: clock() - next(took_s))
    if there:
        told += [(Code.UNAVAILABLE, "etcdserver: request timed out"),
                 (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")]
    revoked: list[int] = []

    def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        if told:
            context.abort(*told.pop(0))
        return pb.LeaseGrantResponse(ID=request.ID, TTL=60)

    def info(request: pb.LeaseTimeToLiveRequest, context: Context) -> pb.LeaseTimeToLiveResponse:
        return pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=1, grantedTTL=60)

    def keep(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        yield pb.LeaseKeepAliveResponse(ID=next(requests).ID, TTL=ttl_s)

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            if not ttl_s:
                with pytest.raises(m.LeaseNotFound):
                    await client.lease(60)
                return
            lease = await client.lease(60)
            assert lease.left_s() > 50
            assert not revoked

    with scripted({"Lease/LeaseGrant": grant, "Lease/LeaseTimeToLive": info, "Lease/LeaseKeepAlive": keep,
                   "Lease/LeaseRevoke": revoke}) as address:
        asyncio.run(main())


def test_an_id_that_the_caller_chose_may_be_another_s_lease() -> None:
    """Unless an attempt before may have granted it; one that was surely refused has not."""
    told: list[tuple[grpc.StatusCode, str]] = []
    revoked: list[int] = []

    def login(request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        return pb.AuthenticateResponse(token="new")

    def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        context.abort(*told.pop(0))

    def info(request: pb.LeaseTimeToLiveRequest, context: Context) -> pb.LeaseTimeToLiveResponse:
        return pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=60, grantedTTL=60)

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    exists = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    refused = [
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token"),
        (Code.UNAVAILABLE, "etcdserver: no leader"),
        (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner"),
    ]

    async def main() -> None:
        async with m.Client(address, user="ada", password="1") as client:
            for before in ([], *([one] for one in refused)):
                told[:] = [*before, exists]
                with pytest.raises(m.ServerError, match="already exists"):
                    async with await client.lease(60, id=7):
                        pass
            told[:] = [(Code.UNAVAILABLE, "etcdserver: request timed out"), exists]
            lease = await client.lease(60, id=7)
            assert (lease.id, lease.ttl_s) == (7, 60)
        assert not revoked

    with scripted({
        "Auth/Authenticate": login, "Lease/LeaseGrant": grant, "Lease/LeaseTimeToLive": info,
        "Lease/LeaseRevoke": revoke,
    }) as address:
        asyncio.run(main())


def test_a_lease_that_is_gone_is_not_revoked_by_a_chosen_id() -> None:
    """It may be another's by then."""
    ttls = [3]
    revoked: list[int] = []

    def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        return pb.LeaseGrantResponse(ID=request.ID, TTL=1)

    def keep(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        yield pb.LeaseKeepAliveResponse(ID=next(requests).ID, TTL=ttls[0])

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        if request.ID == 9 and len(revoked) == 2:
            context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied")
        return pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            async with await client.lease(1, id=8) as lease:
                await lease.revoke()
            assert revoked == [8], "once"
            lease = await client.lease(1, id=9)
            with pytest.raises(m.PermissionDenied):
                await lease.revoke()
            await lease.revoke()
            assert revoked == [8, 9, 9], "until it is known to be gone"
            ttls[:] = [0]
            async with await client.lease(1, id=7) as lease:
                assert await lease.wait_lost() == "it ended, or was revoked"
            assert revoked == [8, 9, 9]

    with scripted({
        "Lease/LeaseGrant": grant, "Lease/LeaseRevoke": revoke, "Lease/LeaseKeepAlive": keep,
    }) as address:
        asyncio.run(main())


class SlowGrants:
    """A server that holds grants, and refuses the first revoke."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.granted, self.revoked, self.goes_on = list[int](), list[int](), threading.Event()
        self._refusal = code, text

    def grant(self, request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        self.granted.append(request.ID)
        self.goes_on.wait(10)
        return pb.LeaseGrantResponse(ID=request.ID, TTL=60)

    def revoke(self, request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        self.revoked.append(request.ID)
        if len(self.revoked) == 1:
            context.abort(*self._refusal)
        return pb.LeaseRevokeResponse()


@pytest.mark.parametrize("chosen", [0, 7])
def test_a_lease_whose_grant_may_be_done_does_not_stay(chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time was over. One of two attempts may be done behind a revoke that failed or found the other's."""
    monkeypatch.setattr(leases, "_AGAIN_S", 0.01)
    monkeypatch.setattr(calls, "_ATTEMPT_S", 0.3)
    slow = SlowGrants(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out")
    granted, revoked = slow.granted, slow.revoked

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(m.MusterError):
                await client.get("a")  # now it is connected
            with pytest.raises(m.MusterError) as error:
                await client.lease(60, id=chosen, timeout=0.9)
            assert error.value.maybe_done
            assert len(set(granted)) == 1 < len(granted)
            if not chosen:
                await until(lambda: len(revoked) >= 3)
            slow.goes_on.set()
        assert set(revoked) == (set() if chosen else set(granted))

    with scripted({"Lease/LeaseGrant": slow.grant, "Lease/LeaseRevoke": slow.revoke}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("chosen", [0, 7])
def test_a_lease_whose_grant_is_cancelled_does_not_stay(chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the caller chose its ID: that may be another's. Its revoke may come before the grant is done."""
    monkeypatch.setattr(leases, "_AGAIN_S", 0.01)
    slow = SlowGrants(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
    granted, revoked = slow.granted, slow.revoked

    async def main() -> None:
        async with m.Client(address) as client:
            granting = asyncio.create_task(client.lease(60, id=chosen))
            await until(lambda: granted)
            granting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await granting
            if not chosen:
                await until(lambda: len(revoked) == 2)
            slow.goes_on.set()
        assert revoked == ([] if chosen else 2 * granted)

    with scripted({"Lease/LeaseGrant": slow.grant, "Lease/LeaseRevoke": slow.revoke}) as address:
        asyncio.run(main())
