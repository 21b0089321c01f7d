"""When operations are sent: closed loop (each client waits for its answer) and open loop (a fixed rate).

In an open loop latency counts from the intended time, ``start + i / rate``: a stall of a second shows in a
second of operations, not in one ("coordinated omission"). Hot path: ``_Slot.done``, 0.5 us.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Protocol

from bench.client import RpcError, Status
from bench.client.connection import Callback
from bench.load.spec import Spec
from bench.load.ticker import Ticker
from bench.load.traffic.workloads import Body

_MIN_TICK_S = 0.0002
_BACK_OFF_S = 0.02
_MAX_ERROR_KINDS = 50
_FOREVER = 1 << 62
_PATIENCE = 3  # time limits without an answer before a run is given up


def _late() -> RpcError:
    return RpcError(Status.DEADLINE_EXCEEDED, "no answer within the time limit")


class Caller(Protocol):
    """A connection, or something that answers like one."""

    def call(self, path: str, body: bytes, callback: Callback, /) -> int: ...

    def cancel(self, stream_id: int, /) -> None: ...


class _Slot:
    """One client: at most one operation under way."""

    __slots__ = ("call", "intended", "loop", "place", "sent")

    def __init__(self, loop: Loop, place: int) -> None:
        self.loop = loop
        self.place = place
        self.call = -1  # id of the call under way; 0: it cannot be cancelled; -1: none
        self.intended = 0
        self.sent = 0

    def start(self, intended: int, now: int) -> None:
        loop = self.loop
        self.intended = intended
        self.sent = now
        self.call = loop.callers[self.place].call(loop.path, loop.body(intended), self.done)

    def done(self, error: RpcError | None, body: bytes) -> None:
        call, self.call = self.call, -1
        now = perf_counter_ns()
        loop = self.loop
        if error is None and not call and now - self.sent > loop.limit_ns:  # it could not be cancelled
            error = _late()
        if error is None:
            loop.samples_us.append((now - self.intended) // 1000)
            loop.answered_ns = now
            loop.next(self, now)
        else:
            loop.failed(self, error)


class Loop:
    """Drives ``spec.clients`` clients over ``callers`` (client i on ``callers[i % len]``).

    ``callers`` may change in place while it runs, as a Client's connections do. :meth:`run` once.
    """

    def __init__(self, spec: Spec, callers: Sequence[Caller], path: str, body: Body) -> None:
        self.spec = spec
        self.callers = callers
        self.path = path
        self.body = body
        self.samples_us: list[int] = []  # the worker takes and clears them
        self.errors: Counter[str] = Counter()
        self.started_ns = 0
        self.ended_ns = 0
        self.limit_ns = round(spec.timeout_s * 1e9)
        self.answered_ns = 0  # when the last operation succeeded
        self._slots = [_Slot(self, i % len(callers)) for i in range(spec.clients)]
        self._left = spec.total or _FOREVER
        self._deadline_ns = _FOREVER
        self._active = 0
        self._finished: asyncio.Future[None] | None = None
        # open loop only
        self._interval_ns = 1e9 / spec.rate_per_s if spec.rate_per_s else 0.0
        self._issued = 0
        self._free: deque[_Slot] = deque()
        self._backlog: deque[int] = deque()
        self._scheduling = False

    async def run(self) -> None:
        """Start operations until total or duration, and wait for the last answers (bounded)."""
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.started_ns = self.answered_ns = perf_counter_ns()
        if self.spec.duration_s:
            self._deadline_ns = self.started_ns + round(self.spec.duration_s * 1e9)
        ticker = None
        if self._interval_ns:
            self._scheduling = True
            self._free.extend(self._slots)
            ticker = Ticker(max(self._interval_ns / 1e9, _MIN_TICK_S), self._tick)
            self._tick()
        else:
            self._active = len(self._slots)
            for slot in self._slots:
                self.next(slot, self.started_ns)
        sweeper = loop.create_task(self._sweep())
        try:
            await self._finished
        finally:
            sweeper.cancel()
            if ticker is not None:
                ticker.close()
        self.ended_ns = perf_counter_ns()

    def next(self, slot: _Slot, now: int) -> None:
        """Give an idle client its next operation, or let it rest."""
        if self._interval_ns:
            if self._backlog:
                slot.start(self._backlog.popleft(), now)
            else:
                self._free.append(slot)
                if not self._scheduling and len(self._free) == len(self._slots):
                    self._finish()
        elif self._left > 0 and now < self._deadline_ns:
            self._left -= 1
            slot.start(now, now)
        else:
            self._active -= 1
            if self._active == 0:
                self._finish()

    def stop(self, *, drain: bool = False) -> None:
        """Plan no more operations; :meth:`run` returns once the open ones are answered (bounded).

        With ``drain`` those that were due are still sent (bounded); without it they count as an error.
        """
        self._left = 0
        if self._backlog and not drain:
            self.errors["not sent before the stop"] += len(self._backlog)
            self._backlog.clear()
        if self._interval_ns:
            self._tick()

    def failed(self, slot: _Slot, error: RpcError) -> None:
        """Count a failure; after UNAVAILABLE the client pauses. What waits for a new login is tried again."""
        if (self.spec.user and error.outdated_login
                and perf_counter_ns() - slot.intended < self.limit_ns):  # the connections' client logs in
            slot.call = 0
            asyncio.get_running_loop().call_later(_BACK_OFF_S, self._again, slot)
            return
        where = getattr(self.callers[slot.place], "authority", "")  # of a connection: its endpoint
        kind = f"{where}: {error.name}: {error.message}"[:200].removeprefix(": ")
        self.errors[kind if kind in self.errors or len(self.errors) < _MAX_ERROR_KINDS else "others"] += 1
        pause = _BACK_OFF_S if error.code == Status.UNAVAILABLE else 0.0
        asyncio.get_running_loop().call_later(pause, self._resume, slot)

    def _again(self, slot: _Slot) -> None:
        if self._finished is not None and not self._finished.done():
            slot.start(slot.intended, perf_counter_ns())

    def _resume(self, slot: _Slot) -> None:
        self.next(slot, perf_counter_ns())

    def _tick(self) -> None:
        """Open loop: send what is due, or queue it until a client is free."""
        if not self._scheduling:
            return
        now = perf_counter_ns()
        while True:
            intended = self.started_ns + int(self._issued * self._interval_ns)
            if self._issued >= self._left or intended >= self._deadline_ns:
                self._scheduling = False
                if not self._backlog and len(self._free) == len(self._slots):
                    self._finish()
                return
            if intended > now:
                return
            self._issued += 1
            if self._free:
                self._free.popleft().start(intended, now)
            else:
                self._backlog.append(intended)

    async def _sweep(self) -> None:
        """Give up late calls, a run one time limit after its end, and a dead server's run."""
        limit_ns = self.limit_ns
        patience_ns = _PATIENCE * max(limit_ns, self._interval_ns)
        over_since = 0
        while True:
            await asyncio.sleep(min(0.25, self.spec.timeout_s / 4))
            now = perf_counter_ns()
            for slot in self._slots:
                if slot.call > 0 and now - slot.sent > limit_ns:
                    self.callers[slot.place].cancel(slot.call)
                    slot.call = -1
                    self.failed(slot, _late())
            starting = self._scheduling if self._interval_ns else self._left > 0 and now < self._deadline_ns
            if starting and now - self.answered_ns > patience_ns:
                self.errors[f"gave up: nothing answered for {_PATIENCE} time limits"] += 1
                self._left = 0
                self._scheduling = starting = False
            if starting:
                over_since = 0
            elif not over_since:
                over_since = now
            elif now - over_since > limit_ns + 500_000_000:
                unsent, open_calls = len(self._backlog), sum(slot.call >= 0 for slot in self._slots)
                if unsent:
                    self.errors["not sent before the time limit"] += unsent
                if open_calls:
                    self.errors["no answer before the end of the run"] += open_calls
                self._backlog.clear()
                self._finish()

    def _finish(self) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)
