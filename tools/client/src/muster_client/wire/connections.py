"""The connections to all endpoints: which are connected, and which one the next call takes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc

from muster_client.errors import MusterError, Unreachable
from muster_client.wire import engine
from muster_client.wire.endpoints import Endpoint
from muster_client.wire.http2 import connection as http2
from muster_client.wire.http2.answers import NOT_SENT, CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.http2.dialing import DialError, dial
from muster_client.wire.http2.sending import Metadata

Code = grpc.StatusCode

_SUSPECT_S, _MOST_SUSPECT_S = 5.0, 60.0  # how long an endpoint that did not answer is the last choice
_CLOSED_IN_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_lot = random.SystemRandom()  # for pauses: what a program draws is its own
CLOSED = "the client is closed"


class Connection:
    """To one endpoint, and what is known of it. ``line`` is there while it is ``ready``; ``trouble`` says why
    it is not."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.line: http2.Connection | None = None
        self.trouble = ""
        self.suspect_until = self._suspect_s = 0.0

    @property
    def ready(self) -> bool:
        return self.line is not None

    def stream(self, path: str, answer: Any, metadata: Metadata) -> Call:
        """Begin a call of many messages. CallError."""
        return self._line().stream(path, answer, metadata)

    async def unary(self, path: str, body: bytes, timeout_s: float | None, metadata: Metadata) -> bytes:
        """The answer to one attempt. CallError; a caller that is cancelled ends it."""
        line = self._line()
        told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(error: CallError | None, answer: bytes) -> None:
            if not told.done():
                if error is None:
                    told.set_result(answer)
                else:
                    told.set_exception(error)

        number = line.unary(path, body, timeout_s, metadata, done)
        try:
            return await told
        except asyncio.CancelledError:
            line.cancel(number)
            raise

    def _line(self) -> http2.Connection:
        if self.line is None:  # it was lost meanwhile
            raise CallError(Code.UNAVAILABLE, f"{NOT_SENT}{self.trouble}")
        return self.line

    def suspect(self) -> None:
        """It is connected, and did not answer: others first, each time for longer."""
        now = time.monotonic()
        if now >= self.suspect_until:  # calls that were under way together count once
            self._suspect_s = min(2 * self._suspect_s, _MOST_SUSPECT_S) if self._suspect_s else _SUSPECT_S
            self.suspect_until = now + self._suspect_s

    def answered(self) -> None:
        """It is as good as others."""
        self.suspect_until = self._suspect_s = 0.0


class Connections:
    """One to each endpoint, in the engine's loop. ``in_order``: the first one that is connected is taken, not
    one by lot. ``on_change`` is called there with an endpoint's name, and its trouble or "".
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], *, in_order: bool = False,
        on_change: Callable[[str, str], None] | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._in_order, self._on_change = in_order, on_change
        self._opened: list[Connection] = []
        self._lines: list[http2.Connection] = []  # all that are not closed
        self._followers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._closed = False
        self._origin = engine.Origin()  # of these connections

    async def pick(
        self, deadline: float | None, avoid: Collection[str] = (), only: str = ""
    ) -> Connection:
        """A connected endpoint, by lot: turns would bind calls that come in pairs. Those to avoid, and those
        that did not answer, come last; ``only`` this one, if it is named. Waits for one until the deadline
        (of ``time.monotonic()``): Unreachable. MusterError: the client is closed."""
        if self._closed:
            raise MusterError(CLOSED)
        self._own()
        if not self._opened:
            self._open()
        opened = self._opened if not only else [one for one in self._opened if one.name == only]
        if not opened:
            raise ValueError(f"{only!r} is no endpoint of this client")
        ready = [one for one in opened if one.ready]
        if not ready:
            await self._connected(deadline, opened)
            ready = [one for one in opened if one.ready]
        if not ready:  # it came and went
            return await self.pick(deadline, avoid, only)
        now = time.monotonic()
        return min(ready, key=lambda one: (
            one.name in avoid, one.suspect_until > now, 0.0 if self._in_order else random.random()))

    def any_ready(self) -> Connection | None:
        """A connected endpoint by lot, unless one is to be waited for, or did not answer lately."""
        self._own()
        opened = self._opened
        if not opened:
            return None
        one = opened[0] if len(opened) == 1 or self._in_order else random.choice(opened)
        return one if one.line is not None and not one.suspect_until else None

    def others(self, avoid: Collection[str]) -> bool:
        """Whether an endpoint is connected that is not to be avoided."""
        return self.other(avoid) is not None

    def other(self, avoid: Collection[str] = ()) -> Connection | None:
        """One that is connected, and not to be avoided."""
        return next((one for one in self._opened if one.ready and one.name not in avoid), None)

    def several(self) -> bool:
        """Whether more than one endpoint is connected."""
        return sum(one.ready for one in self._opened) > 1

    async def close(self) -> None:
        self._closed = True
        self._own()
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        for one in self._opened:
            one.line = None
        for line in self._lines:
            line.close(CLOSED)
        await self._tell()
        for line in self._lines:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSED_IN_S):  # wait_for of Python 3.11 swallows a cancellation
                    await line.gone.wait()

    def _own(self) -> None:
        """In a process that was forked off: these connections, and the loop that they are on, are its
        parent's."""
        if self._origin.is_parent:
            self._origin = engine.Origin()
            self._changed = asyncio.Condition()
            self._opened, self._lines, self._followers = [], [], []

    def _open(self) -> None:
        self._opened = [Connection(endpoint) for endpoint in self._endpoints]
        self._followers = [asyncio.create_task(self._follow(one)) for one in self._opened]

    async def _follow(self, one: Connection) -> None:
        """Connect, and connect again: at once behind one that served or lasted, else with longer pauses."""
        failures = 0
        while True:
            lost = asyncio.Event()
            try:
                line = await dial(one.endpoint, lost.set)
            except DialError as error:
                one.trouble = str(error)
                self._changes(one)
                await asyncio.sleep(pause_s(failures))
                failures += 1
                continue
            # one of which a server that goes away said so may have calls under way
            self._lines = [*(other for other in self._lines if not other.gone.is_set()), line]
            one.line, one.trouble = line, ""
            self._changes(one)
            await self._tell()
            began = time.monotonic()
            await lost.wait()
            one.line, one.trouble = None, line.lost
            self._changes(one)
            await self._tell()
            if line.served or time.monotonic() - began > _LONGEST_PAUSE_S:
                failures = 0
            elif failures:
                await asyncio.sleep(pause_s(failures))  # it takes connections, and ends them
            failures += 1

    def _changes(self, one: Connection) -> None:
        if self._on_change is not None:
            self._on_change(one.name, one.trouble)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def names(self) -> list[str]:
        """Of all endpoints, as they were given."""
        return [endpoint.name for endpoint in self._endpoints]

    async def _connected(self, deadline: float | None, opened: Sequence[Connection]) -> None:
        """Wait until one of these endpoints is connected."""
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s), self._changed:
                await self._changed.wait_for(lambda: self._closed or any(one.ready for one in opened))
            return
        if not self._closed and not any(one.ready for one in opened):
            raise Unreachable(self.reasons(opened))

    def reasons(self, opened: Sequence[Connection] = ()) -> dict[str, str]:
        """Why each endpoint cannot be used."""
        return {
            one.name: "it is connected, and does not answer" if one.ready
            else one.trouble or "no answer to an attempt to connect"
            for one in opened or self._opened}


def pause_s(attempt: int) -> float:
    """How long to wait before the attempt of that number, from 1: longer each time, and never in step with
    other clients."""
    return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10)) * _lot.uniform(0.5, 1.0))
