"""Keeps leases alive, in the engine's loop: whatever a caller's loop does meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable

import grpc

from muster_client.errors import DeadlineExceeded, LeaseNotFound, Unreachable, of_status
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Caller, metadata
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.retries import Verdict, judge

log = logging.getLogger("muster_client")
_KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
_PARTS = 3  # of its time to live, after which a lease is renewed
_ATTEMPT_S, _ENDPOINTS = 5.0, 3  # an attempt of a lone renewal leaves time for others
_ATTEMPT = 6  # after which an attempt is given up: another endpoint has its turn in time
_AGAIN = 20  # after which a failed renewal is tried again
_LONGEST_S = 1.0
_PAUSE_S = 0.1  # between attempts at a renewal that is asked for once


def clock() -> float:
    """Seconds, those included that the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Kept:
    """A lease that is kept alive. ``until``: it surely lives until then, by :func:`clock`: the time to live
    counts from when the renewal was sent."""

    def __init__(self, id: int, ttl_s: int, sent: float) -> None:
        self.id, self.ttl_s, self.until = id, ttl_s, sent + ttl_s
        self._lock = threading.Lock()
        self._why = ""  # it is lost; nothing brings it back
        self._calls: list[Callable[[str], None]] = []

    def why(self) -> str:
        """Why it is lost; "": it surely lives. By the clock too: a process that stood still knows at once."""
        with self._lock:
            return self._why or ("" if clock() < self.until else "it was not renewed in time")

    def renewed(self, until: float, now: float) -> bool:
        """It lives until then; whether that is so: a lease that was lost by the clock does not come back."""
        with self._lock:
            if self._why or now >= self.until:
                return False
            self.until = until
            return True

    def told(self) -> bool:
        """Whether those who wait for its loss know of it."""
        return bool(self._why)

    def end(self, why: str) -> None:
        """It is lost, or given up: tell, once."""
        with self._lock:
            if self._why:
                return
            self._why = why
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call(why)
            except Exception:
                log.exception("lease %x: a callback failed", self.id)

    def add(self, call: Callable[[str], None]) -> None:
        """Call it once that is so; at once if it is."""
        with self._lock:
            if not self._why:
                self._calls.append(call)
                return
        call(self._why)

    def remove(self, call: Callable[[str], None]) -> None:
        """Call it no more."""
        with self._lock:
            if call in self._calls:
                self._calls.remove(call)


class Keeper:
    """Renews the leases of a client: one task for each."""

    def __init__(self, caller: Caller, now: Callable[[], float] = clock) -> None:
        self._caller, self._clock = caller, now
        self._tasks: dict[Kept, asyncio.Task[None]] = {}

    async def keep(self, kept: Kept) -> None:
        """Begin. In the engine's loop."""
        self._tasks[kept] = asyncio.create_task(self._renew(kept))

    async def drop(self, kept: Kept, why: str) -> None:
        """Renew it no more; it ends with its time to live."""
        if (task := self._tasks.pop(kept, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        kept.end(why)

    async def renew(self, id: int, timeout_s: float) -> None:
        """Renew any lease once. MusterError. In the engine's loop."""
        kept, avoid = Kept(id, math.ceil(timeout_s) + 1, self._clock()), set[str]()
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._answered(kept, avoid, min(_ATTEMPT_S, timeout_s / _ENDPOINTS)):
                    if kept.told():
                        raise LeaseNotFound(grpc.StatusCode.NOT_FOUND, f"lease {id:x}: {kept.why()}")
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            connections = self._caller.connections
            if not connections.others(()):
                raise Unreachable(connections.reasons(), maybe_done=True) from None
            raise DeadlineExceeded("no answer in time", maybe_done=True) from None
        except CallError as error:
            raise of_status(error.code, error.details) from None

    async def _answered(self, kept: Kept, avoid: set[str], limit_s: float) -> bool:
        """The same as :meth:`_ask`. CallError: another attempt is of no use."""
        try:
            async with asyncio.timeout(limit_s):
                return await self._asked(kept, avoid)
        except TimeoutError:
            return False  # another endpoint has its turn
        except CallError as error:
            verdict = judge(error.code, error.details)
            if verdict is Verdict.FINAL or (verdict is Verdict.STALE_TOKEN and not self._caller.renews("")):
                raise
            return False

    async def close(self) -> None:
        for kept in list(self._tasks):
            await self.drop(kept, "the client is closed")

    async def _renew(self, kept: Kept) -> None:
        pause_s = kept.ttl_s / _PARTS
        avoid: set[str] = set()
        while not kept.told():
            left_s = kept.until - self._clock()
            if left_s <= 0:
                self._lose(kept, "it was not renewed in time")
                break
            await asyncio.sleep(min(pause_s, left_s))
            if (left_s := kept.until - self._clock()) <= 0:
                continue
            try:
                async with asyncio.timeout(min(left_s, kept.ttl_s / _ATTEMPT)):
                    renewed = await self._ask(kept, avoid)
            except Exception as error:  # whatever it is, the loss is told in time
                log.warning("lease %x: not renewed: %s", kept.id, str(error) or "no answer in time")
                renewed = False
            pause_s = kept.ttl_s / _PARTS if renewed else min(_LONGEST_S, kept.ttl_s / _AGAIN)
        self._tasks.pop(kept, None)

    async def _ask(self, kept: Kept, avoid: set[str]) -> bool:
        """Renew it once; whether that was done."""
        try:
            return await self._asked(kept, avoid)
        except CallError as error:
            log.warning("lease %x: not renewed: %s", kept.id, error.details or error.code.name)
            return False

    async def _asked(self, kept: Kept, avoid: set[str]) -> bool:
        """Renew it once; whether it lives. CallError."""
        connection = await self._caller.connections.pick(time.monotonic() + kept.ttl_s, avoid)
        token = await self._caller.token(time.monotonic() + kept.ttl_s)
        avoid.add(connection.name)  # unless it answers
        if not self._caller.connections.others(avoid):
            avoid.clear()
        sent = self._clock()
        call: Call | None = None
        try:
            call = connection.stream(_KEEP_ALIVE, pb.LeaseKeepAliveResponse, metadata(token, True))
            call.send(pb.LeaseKeepAliveRequest(ID=kept.id))
            call.close_send()
            answer = await call.read()
            if answer is None:
                raise CallError(grpc.StatusCode.UNAVAILABLE, "it ended the stream")
        except asyncio.CancelledError:
            if kept in self._tasks:  # not given up: no answer in time
                connection.suspect()
            raise
        except CallError as error:
            if judge(error.code, error.details) is Verdict.STALE_TOKEN:
                self._caller.renews(token)
            raise
        finally:
            if call is not None:
                call.cancel()
        avoid.clear()
        connection.answered()
        if answer.TTL <= 0:
            self._lose(kept, "it ended, or was revoked")
            return False
        return kept.renewed(sent + answer.TTL, self._clock())

    def _lose(self, kept: Kept, why: str) -> None:
        log.warning("lease %x is lost: %s", kept.id, why)
        kept.end(why)
