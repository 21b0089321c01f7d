"""Keeps leases alive, in the engine's loop: whatever a caller's loop does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable

import grpc

from muster_client.errors import DeadlineExceeded, MusterError, ServerError, Unreachable, of_status
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method
from muster_client.wire.following import OnAgain
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.retries import is_stale, passes

log = logging.getLogger("muster_client")
KEEP_ALIVE = Method("Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)
_PARTS = 3  # of its time to live, after which a lease is renewed
_ATTEMPT_S, _ENDPOINTS = 5.0, 3  # an attempt of a lone renewal leaves time for others
_ATTEMPT = 6  # after which another endpoint is asked, beside one that has not answered
_AGAIN = 20  # after which a failed renewal is tried again
_LONGEST_S = 1.0
_PAUSE_S = 0.1  # between attempts at a renewal that is asked for by its ID
_LEAST_S = 1.0  # of such an attempt, whatever the time to live
_LOGINS = 4
_ENDED_IN_S = 5.0  # which a server has to end the stream of a renewal that it has answered


def clock() -> float:
    """Seconds, those included that the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Kept:
    """A lease that is kept alive. ``until``: it surely lives until then, by :func:`clock`: the time to live
    counts from when the renewal was sent. ``chosen``: its ID is not by lot, so another lease may get it
    later."""

    def __init__(self, id: int, ttl_s: int, sent: float, chosen: bool = False) -> None:
        self.id, self.ttl_s, self.until = id, ttl_s, sent + ttl_s
        self.origin = engine.Origin()  # where it was granted
        self.chosen = chosen
        self.gone = False  # the cluster has said so
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
            self.until = max(self.until, until)  # an attempt before may be answered later
            return True

    def told(self) -> bool:
        """Whether tasks that wait for its loss know of it."""
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
            except BaseException:  # SystemExit, too: others are told all the same
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


_Asked = asyncio.Task[tuple[pb.LeaseKeepAliveResponse, float]]


class Keeper:
    """Renews the leases of a client: one task for each."""

    def __init__(self, caller: Caller, now: Callable[[], float] = clock) -> None:
        self._caller, self._clock = caller, now
        self._tasks: dict[Kept, asyncio.Task[None]] = {}

    async def keep(self, kept: Kept) -> None:
        """Begin. In the engine's loop."""
        self._tasks[kept] = asyncio.create_task(self._renew(kept))

    async def drop(self, kept: Kept, why: str) -> None:
        """Renew it no more; it ends with its time to live. RuntimeError in a process that was forked off: its
        parent keeps it."""
        if kept.origin.is_parent:
            raise RuntimeError(f"lease {kept.id:x} is of the process from which this one was forked off")
        if (task := self._tasks.pop(kept, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        kept.end(why)

    async def renew(
        self, id: int, timeout_s: float, on_again: OnAgain | None = None
    ) -> pb.LeaseKeepAliveResponse:
        """Renew any lease once; TTL 0: there is none. MusterError. In the engine's loop."""
        met: MusterError | None = None

        def again(error: MusterError) -> None:
            nonlocal met
            met = error
            if on_again is not None:
                on_again(error)

        try:
            async with asyncio.timeout(timeout_s):
                lone = self.renewals(id, again, limit_s=min(_ATTEMPT_S, timeout_s / _ENDPOINTS))
                async with contextlib.aclosing(lone):
                    return await anext(lone)
        except TimeoutError:
            connections = self._caller.connections
            if not connections.others(()):
                raise Unreachable(connections.reasons(), maybe_done=True) from None
            if isinstance(met, ServerError):
                raise met from None
            raise DeadlineExceeded("no answer in time", maybe_done=True) from None

    async def renewals(
        self, id: int, on_again: OnAgain | None = None, *, limit_s: float = _ATTEMPT_S
    ) -> AsyncGenerator[pb.LeaseKeepAliveResponse, None]:
        """Answers to renewals of any lease, until it is gone. Each endpoint has ``limit_s`` for the first.
        MusterError. In any loop."""
        avoid, logins = set[str](), 0
        while True:
            try:
                answer, _ = await engine.run(self._asked(id, avoid, limit_s, limit_s))
            except MusterError as error:
                if is_stale(error) and logins < _LOGINS and self._caller.renews(""):
                    logins += 1
                    continue
                if not passes(error):
                    raise
                if on_again is not None:
                    on_again(error)
                await asyncio.sleep(_PAUSE_S)
                continue
            yield answer
            if answer.TTL <= 0:
                return
            logins, limit_s = 0, max(_LEAST_S, answer.TTL / _PARTS)
            await asyncio.sleep(answer.TTL / _PARTS)

    async def close(self) -> None:
        for kept in [kept for kept in self._tasks if not kept.origin.is_parent]:
            await self.drop(kept, "the client is closed")

    async def _renew(self, kept: Kept) -> None:
        part_s, slow_s = kept.ttl_s / _PARTS, kept.ttl_s / _ATTEMPT
        pause_s = max(0.0, kept.until - kept.ttl_s + part_s - self._clock())
        asked: list[_Asked] = []  # in the order of their sending
        avoid: set[str] = set()
        newest = self._clock()
        try:
            while not kept.told():
                if (left_s := kept.until - self._clock()) <= 0:
                    self._lose(kept, "it was not renewed in time")
                    break
                done: set[_Asked] = set()
                if asked:
                    done, _ = await asyncio.wait(
                        asked, timeout=min(pause_s, left_s), return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(min(pause_s, left_s))
                if done:
                    pause_s = min(_LONGEST_S, kept.ttl_s / _AGAIN)
                    if good := [task for task in asked if task in done and self._took(kept, task)]:
                        # a later one is worth more, and takes the place of the next
                        pause_s = max(pause_s, newest + part_s - self._clock())
                        await _end(asked[: asked.index(good[-1])])
                        asked = asked[asked.index(good[-1]) :]
                    asked = [task for task in asked if task not in done]
                elif (newest := self._clock()) < kept.until:
                    # it outlives what is left now: an answer to another one may come before its own
                    asked.append(asyncio.create_task(self._asked(kept.id, avoid, kept.ttl_s, slow_s)))
                    # what is slow is asked no more often
                    pause_s = slow_s if self._caller.connections.several() else part_s
        finally:
            await _end(asked)
        self._tasks.pop(kept, None)

    def _took(self, kept: Kept, task: _Asked) -> bool:
        """Whether it has renewed the lease."""
        try:
            answer, sent = task.result()
        except Exception as error:  # whatever it is, the loss is told in time
            log.warning("lease %x: not renewed: %s", kept.id, error)
            return False
        if answer.TTL > 0:
            return kept.renewed(sent + answer.TTL, self._clock())
        kept.gone = True
        self._lose(kept, "it ended, or was revoked")
        return False

    async def _asked(
        self, id: int, avoid: set[str], limit_s: float, slow_s: float
    ) -> tuple[pb.LeaseKeepAliveResponse, float]:
        """The answer to one renewal, and when that was sent; others ask other endpoints first once it takes
        ``slow_s``. MusterError."""
        connection, call, token, slow, answer = None, None, "", None, None
        error: MusterError
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._caller.connections.pick(time.monotonic() + slow_s, avoid)
                token = await self._caller.token(time.monotonic() + limit_s)
                avoid.add(connection.name)  # unless it answers
                if not self._caller.connections.others(avoid):
                    avoid.clear()
                sent = self._clock()
                call = self._caller.open(KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=id), connection, token)
                slow = asyncio.get_running_loop().call_later(slow_s, connection.suspect)
                answer = await call.read()
            if answer is None:
                raise CallError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        except TimeoutError:
            if call is not None and connection is not None:
                connection.suspect()
            error = DeadlineExceeded("a renewal was not answered in time", maybe_done=True)
            error.endpoint = "" if connection is None else connection.name
            raise error from None
        except CallError as met:
            name = "" if connection is None else connection.name
            error = of_status(met.code, met.details, maybe_done=True, endpoint=name)
            if is_stale(error):
                self._caller.renews(token)
            raise error from None
        finally:
            if slow is not None:
                slow.cancel()
            if call is not None:
                _leave(call, answered=answer is not None)
        avoid.clear()
        connection.answered()
        return answer, sent

    def _lose(self, kept: Kept, why: str) -> None:
        log.warning("lease %x is lost: %s", kept.id, why)
        kept.end(why)


def _leave(call: Call, *, answered: bool) -> None:
    """The server ends what it has answered: to its metrics a stream that is cancelled is a failure."""
    if answered:
        call.close_send()
        asyncio.get_running_loop().call_later(_ENDED_IN_S, call.cancel)
    else:
        call.cancel()


async def _end(asked: list[_Asked]) -> None:
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
