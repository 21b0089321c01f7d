"""Leases that stay alive until they are given up, and tell when they are lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import grpc

from muster_client.errors import LeaseLost, LeaseNotFound, MusterError, ServerError
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method
from muster_client.wire.following import OnAgain
from muster_client.wire.keeper import Keeper, Kept, clock
from muster_client.wire.retries import passes

# Granting twice under one ID is refused, and revoking twice does nothing: both can be repeated
_GRANT = Method("Lease/LeaseGrant", pb.LeaseGrantResponse, repeatable=True)
_REVOKE = Method("Lease/LeaseRevoke", pb.LeaseRevokeResponse, repeatable=True)
_TIME_TO_LIVE = Method("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse, repeatable=True)
_LEASES = Method("Lease/LeaseLeases", pb.LeaseLeasesResponse, repeatable=True)
log = logging.getLogger("muster_client")
Result = TypeVar("Result")
_NOT_FOUND = "etcdserver: requested lease not found"
_EXISTS = "etcdserver: lease already exists"
LEFT_IN_S = 6.0  # by who gives up waiting, the answer to its own key included; it goes on behind that
_REVOKES, _AGAIN_S = 3, 4.0  # of a lease whose grant was cancelled: a server gives up a grant within 7 s


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """Of any lease: seconds that are left and that were granted, and the keys that it holds."""

    left_s: int
    granted_s: int
    keys: tuple[bytes, ...]


class Lease:
    """A lease, kept alive by a thread of its own until :meth:`revoke`, or the client's end.

    It is *lost* once the cluster says so, or when no renewal was answered for ``ttl_s``: the cluster may have
    ended it then. It ends there no earlier than it is lost here, whatever the clocks show; a lost lease does
    not come back.
    """

    def __init__(self, caller: Caller, keeper: Keeper, kept: Kept) -> None:
        self._caller, self._keeper, self._kept = caller, keeper, kept
        self._origin = kept.origin
        self.late: dict[bytes, Future[None] | None] = {}  # keys that may come: see recipes/late.py
        self.leaving: list[tuple[bytes, Future[None]]] = []  # and those whose owner is on its way out

    @property
    def id(self) -> int:
        return self._kept.id

    @property
    def ttl_s(self) -> int:
        """As granted: at least 2, whatever was asked for."""
        return self._kept.ttl_s

    @property
    def lost(self) -> bool:
        """It may have ended. A process that stood still for long sees it at once."""
        return bool(self._kept.why())

    def left_s(self) -> float:
        """How long it surely lives without another renewal; 0: it is lost."""
        return 0.0 if self.lost else max(0.0, self._kept.until - clock())

    def check(self) -> None:
        """LeaseLost if it is."""
        if why := self._kept.why():
            raise LeaseLost(f"lease {self.id:x} is lost: {why}")

    async def wait_lost(self) -> str:
        """Wait until it is lost or given up; why."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[str] = loop.create_future()

        def resolve(why: str) -> None:
            if not told.done():
                told.set_result(why)

        def tell(why: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(resolve, why)

        self._kept.add(tell)
        try:
            return await told
        finally:
            self._kept.remove(tell)

    def on_lost(self, call: Callable[[str], None]) -> None:
        """Call with the reason once it is lost or given up; at once if it is. From the thread that keeps
        leases alive: be short."""
        self._kept.add(call)

    async def revoke(self, *, timeout: float | None = None) -> None:
        """End it, with its keys. A caller that is cancelled leaves it to its time to live. RuntimeError in a
        process that was forked off: its parent keeps it."""
        try:
            await engine.run(self._keeper.drop(self._kept, "it was revoked"))
        except asyncio.CancelledError:  # perhaps before it began: nobody has it, so it is not renewed
            engine.submit(self._keeper.drop(self._kept, "it was revoked"))
            raise
        if self._kept.gone and self._kept.chosen:  # another program may have been granted its ID since
            return
        with contextlib.suppress(LeaseNotFound):  # it has ended
            await self._caller.unary(_REVOKE, pb.LeaseRevokeRequest(ID=self.id), timeout=timeout)
        self._kept.gone = True

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._origin.is_parent:  # else that keeps it
            await leaves(self.revoke(), error)


async def granted(caller: Caller, keeper: Keeper, ttl_s: int, id: int, timeout: float | None) -> Lease:
    """A new lease, kept alive from now on; ``id`` 0: by lot."""
    chosen, id = bool(id), id or secrets.randbits(62) + 1
    sent: list[float] = []  # of each attempt
    there = False  # certainly
    try:
        try:
            answer = await caller.unary(
                _GRANT, pb.LeaseGrantRequest(TTL=ttl_s, ID=id), timeout=timeout,
                on_send=lambda: sent.append(clock()))
            kept = Kept(id, answer.TTL, sent[-1], chosen)
        except ServerError as error:
            if error.message != _EXISTS or (chosen and not error.maybe_done):
                raise
            there = True  # an attempt of unknown outcome did it, the first at the earliest
            kept = Kept(id, (await info(caller, id, timeout)).granted_s, sent[0], chosen)
        if kept.why():  # the answer took as long as it lives
            there = True
            kept = await _alive(caller, keeper, id, timeout, chosen=chosen)
    except (asyncio.CancelledError, MusterError) as error:
        if not chosen and (there or getattr(error, "maybe_done", True)):  # a chosen one may be another's
            _abandon(caller, id, sent)
        raise
    try:
        return await _kept(caller, keeper, kept)
    except asyncio.CancelledError:
        if not chosen:
            _abandon(caller, id, sent)
        raise


async def taken(caller: Caller, keeper: Keeper, id: int, timeout: float | None) -> Lease:
    """A lease that is there, kept alive from now on. LeaseNotFound."""
    return await _kept(caller, keeper, await _alive(caller, keeper, id, timeout, chosen=True))


async def _alive(caller: Caller, keeper: Keeper, id: int, timeout: float | None, *, chosen: bool) -> Kept:
    """A lease that is there, by a renewal. LeaseNotFound."""
    sent = [clock()]  # before each attempt
    ttl_s = await renewed(caller, keeper, id, timeout, lambda error: sent.append(clock()))
    return Kept(id, ttl_s, sent[-1], chosen)


async def renewed(
    caller: Caller, keeper: Keeper, id: int, timeout: float | None, on_again: OnAgain | None = None
) -> int:
    """The time to live of any lease, which runs again from its beginning. LeaseNotFound."""
    timeout_s = caller.timeout_s if timeout is None else timeout
    answer = await engine.run(keeper.renew(id, timeout_s, on_again))
    if answer.TTL <= 0:
        raise LeaseNotFound(grpc.StatusCode.NOT_FOUND, _NOT_FOUND)
    return answer.TTL


async def _kept(caller: Caller, keeper: Keeper, kept: Kept) -> Lease:
    try:
        await engine.run(keeper.keep(kept))
    except BaseException:  # nobody has it: it is not renewed
        engine.submit(keeper.drop(kept, "its caller was cancelled"))
        raise
    return Lease(caller, keeper, kept)


def _abandon(caller: Caller, id: int, sent: Sequence[float]) -> None:
    """Revoke a lease that nobody has, of an ID by lot: it would stay for its time to live. Attempts of its
    grant may be done later yet, at members that are slow. An ID that the caller chose may be another's."""
    async def revoked() -> None:
        for again in range(_REVOKES):
            if not sent:  # looked at behind the end of the grant, in this loop
                return
            if again:
                await asyncio.sleep(_AGAIN_S)
            try:
                await caller.unary(_REVOKE, pb.LeaseRevokeRequest(ID=id))
            except MusterError as error:
                if not (isinstance(error, LeaseNotFound) or passes(error)):
                    return
            else:
                if len(sent) == 1:
                    return

    if not engine.has_ended():
        engine.submit(revoked())


async def info(caller: Caller, id: int, timeout: float | None) -> LeaseInfo:
    """Of any lease. LeaseNotFound."""
    answer = await caller.unary(_TIME_TO_LIVE, pb.LeaseTimeToLiveRequest(ID=id, keys=True), timeout=timeout)
    if answer.TTL < 0:
        raise LeaseNotFound(grpc.StatusCode.NOT_FOUND, _NOT_FOUND)
    return LeaseInfo(answer.TTL, answer.grantedTTL, tuple(answer.keys))


async def every(caller: Caller, timeout: float | None) -> tuple[int, ...]:
    """The IDs of all leases, in order."""
    answer = await caller.unary(_LEASES, pb.LeaseLeasesRequest(), timeout=timeout)
    return tuple(sorted(one.ID for one in answer.leases))


async def unless_lost(lease: Lease, step: Coroutine[Any, Any, Result]) -> Result:
    """What a step gives. LeaseLost as soon as the lease is lost meanwhile; the step is cancelled then."""
    waiting = asyncio.ensure_future(step)
    lost = asyncio.ensure_future(lease.wait_lost())
    try:
        await asyncio.wait((waiting, lost), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            lease.check()
        return await waiting
    finally:
        waiting.cancel()
        lost.cancel()
        await asyncio.gather(waiting, lost, return_exceptions=True)


async def to_its_end(step: Coroutine[Any, Any, None], limit_s: float | None = None) -> None:
    """Run what tidies up; it goes on where its caller is cancelled, or has waited for so long. Its failure is
    told to the log alone: what it leaves ends with a lease, if it has one."""
    tidying = asyncio.ensure_future(_tidied(step))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await asyncio.shield(tidying)


async def briefly(step: Coroutine[Any, Any, None]) -> None:
    """As :func:`to_its_end`, for a caller that gives up waiting: it waits for :data:`LEFT_IN_S` at most."""
    await to_its_end(step, LEFT_IN_S)


async def leaves(step: Coroutine[Any, Any, None], error: BaseException | None) -> None:
    """Run what gives up what a block held. An error that ended the block goes on: a failure of this is told
    to the log alone then. Who was cancelled, as by a time limit, or interrupted does not wait for long."""
    if error is None:
        await step
    else:
        await (to_its_end if isinstance(error, Exception) else briefly)(step)


async def whole(step: Coroutine[Any, Any, Result]) -> Result:
    """What a step gives that gives something up; it goes on where its caller is cancelled."""
    return await asyncio.shield(asyncio.ensure_future(step))


async def _tidied(step: Coroutine[Any, Any, None]) -> None:
    try:
        await step
    except MusterError as error:
        log.warning("cannot clean up; what is left ends with its lease, if it has one: %s", error)
