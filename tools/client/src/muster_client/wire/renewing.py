"""Many leases that others have granted, renewed over one stream."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import NoReturn

import grpc

from muster_client.errors import DeadlineExceeded, MusterError, of_status
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Caller
from muster_client.wire.connections import Connection, pause_s
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.keeper import KEEP_ALIVE
from muster_client.wire.retries import is_stale

_PARTS = 3  # of its time to live, after which a lease is renewed
_LONGEST_S, _LEAST_S = 5.0, 1.0  # for an answer, as the shortest time to live allows
_MOST = 512  # under way at once


class Renewing:
    """In the engine's loop."""

    def __init__(
        self, caller: Caller, gone: Callable[[int], None], again: Callable[[MusterError], None]
    ) -> None:
        """``gone``: a lease has ended. ``again``: the stream has, by this; another one goes on."""
        self._caller, self._gone, self._again = caller, gone, again
        self._due: list[tuple[float, int]] = []  # a heap: when, which
        self._next: dict[int, float] = {}  # when each is due; other times of it do not count
        self._asked: dict[int, float] = {}  # when each was, the oldest first
        self._limit_s = _LONGEST_S
        self._waits: asyncio.Timeout | None = None
        self._avoid: set[str] = set()
        self._attempts = 0

    async def add(self, lease: int) -> None:
        """Renew it from now on, until it is gone."""
        self._later(time.monotonic(), lease)
        if self._waits is not None and not self._waits.expired():
            self._waits.reschedule(0)

    def remove(self, lease: int) -> None:
        """Renew it no more."""
        self._next.pop(lease, None)

    def _later(self, at: float, lease: int) -> None:
        self._next[lease] = at
        heapq.heappush(self._due, (at, lease))

    async def run(self) -> NoReturn:
        """Stream after stream, whatever ends them, for as long as the program runs."""
        while True:
            try:
                await self._renew()
            except MusterError as error:
                self._again(error)
            for lease in self._asked:
                if lease in self._next:
                    self._later(0.0, lease)
            self._asked.clear()
            await asyncio.sleep(pause_s(self._attempts))
            self._attempts += 1

    async def _renew(self) -> None:
        """Over one stream, until it ends. MusterError."""
        while not self._due:
            await self._until(None, None)
        deadline = time.monotonic() + self._limit_s
        connection = await self._caller.connections.pick(deadline, self._avoid)
        token = await self._caller.token(deadline)
        self._avoid.add(connection.name)  # unless it answers
        if not self._caller.connections.others(self._avoid):
            self._avoid.clear()
        call: Call | None = None
        try:
            while True:
                call = self._ask(call, connection, token)
                if (answer := await self._answer(call, connection)) is not None:
                    self._take(answer)
                    self._avoid.clear()
                    self._attempts = 0
        except CallError as met:
            error = of_status(met.code, met.details, maybe_done=True, endpoint=connection.name)
            if is_stale(error) and self._caller.renews(token):
                return
            raise error from None
        finally:
            if call is not None:
                call.cancel()

    def _ask(self, call: Call | None, connection: Connection, token: str) -> Call | None:
        """For all that are due, over a call that begins with the first."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now and len(self._asked) < _MOST:
            at, lease = heapq.heappop(self._due)
            if self._next.get(lease) != at:
                continue
            self._asked[lease] = now
            request = pb.LeaseKeepAliveRequest(ID=lease)
            if call is None:
                call = self._caller.open(KEEP_ALIVE, request, connection, token)
            else:
                call.send(request)
        return call

    async def _answer(self, call: Call | None, connection: Connection) -> pb.LeaseKeepAliveResponse | None:
        """The next one; None: another lease is due. CallError, MusterError."""
        oldest = next(iter(self._asked.values()), None)
        late = None if oldest is None else oldest + self._limit_s
        if late is not None and late <= time.monotonic():
            connection.suspect()
            raise DeadlineExceeded("renewals were not answered in time", maybe_done=True)
        due = self._due[0][0] if self._due and len(self._asked) < _MOST else None
        answer = await self._until(min((at for at in (late, due) if at is not None), default=None), call)
        if answer is not None:
            connection.answered()
        return answer

    async def _until(self, at: float | None, call: Call | None) -> pb.LeaseKeepAliveResponse | None:
        """An answer; None: it is that late, or there is another lease. CallError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None if at is None else at - time.monotonic()) as self._waits:
                if call is None:
                    await loop.create_future()
                    return None
                answer: pb.LeaseKeepAliveResponse | None = await call.read()
        except TimeoutError:
            return None
        finally:
            self._waits = None
        if answer is None:
            raise CallError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        return answer

    def _take(self, answer: pb.LeaseKeepAliveResponse) -> None:
        if self._asked.pop(answer.ID, None) is None or answer.ID not in self._next:
            return
        if answer.TTL <= 0:
            del self._next[answer.ID]
            self._gone(answer.ID)
            return
        self._limit_s = min(self._limit_s, max(_LEAST_S, answer.TTL / _PARTS))
        self._later(time.monotonic() + answer.TTL / _PARTS, answer.ID)
