"""Long work in slices, each followed by a turn of the event loop.

A slice takes a few hundred microseconds, so that it holds up no apply and no heartbeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter

from node.slicing.yielding import Others

SLICE_S = 0.0004
BESIDE_SLICE_S = 0.0002  # beside writes: what comes in one turn of the loop waits for one slice
_FRESH_SLICES = 4  # more count as long
_BURST = 2  # slices of long work beside writes, each in its own turn of the loop, before a pause
_PAUSE_S = 0.001  # long work gets a fourth of the CPU
Slices = Generator[None, None, None]


class Slicer:
    """Runs generators a slice at a time, round robin, with the loop served in between.

    Long ones go on apart from the others: with pauses and in shorter slices while there are writes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, writes: Callable[[], object] = lambda: None,
                 perf_counter: Callable[[], float] = perf_counter) -> None:
        """``writes``: differs when something was written since."""
        self._loop = loop
        self._perf_counter = perf_counter
        self._fresh: deque[tuple[Slices, int]] = deque()  # with the number of their slices so far
        self._long: deque[Slices] = deque()
        self._writers = Others(perf_counter, writes)
        self._scheduled = self._long_scheduled = False
        self._burst = 0
        self._closed = False
        self.slices = 0

    def start(self, work: Slices, part: bool = False) -> None:
        """Begin a piece of work. ``part``: of something long that was cut into requests."""
        if part:
            self._long.append(work)
            if not self._long_scheduled:
                self._later()
            return
        self._fresh.append((work, 1))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        work, slices = self._fresh.popleft()
        if self._goes_on(work, self._slice_s()):
            if slices < _FRESH_SLICES:
                self._fresh.append((work, slices + 1))
            else:
                self._long.append(work)
                if not self._long_scheduled:
                    self._later()
        if self._fresh and not self._scheduled:  # else the work has begun another
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def _slice_long(self) -> None:
        self._long_scheduled = False
        if self._closed:
            return
        work = self._long.popleft()
        if self._goes_on(work, self._slice_s()):
            self._long.append(work)
        if self._long and not self._long_scheduled:
            self._later()

    def _later(self) -> None:
        self._long_scheduled = True
        self._burst += 1
        if self._burst >= _BURST and self._writers.about():
            self._burst = 0
            self._loop.call_later(_PAUSE_S, self._slice_long)
        else:
            self._loop.call_soon(self._slice_long)

    def _slice_s(self) -> float:
        return BESIDE_SLICE_S if self._writers.about() else SLICE_S

    def _goes_on(self, work: Slices, slice_s: float) -> bool:
        self.slices += 1
        now = self._perf_counter()
        until = now + slice_s
        try:
            while True:
                began = now
                next(work)
                now = self._perf_counter()
                if now + (now - began) / 2 >= until:  # the next step would end far behind it
                    return True
        except StopIteration:
            return False

    def close(self) -> None:
        """What has begun does not go on: its store is about to be closed."""
        self._closed = True

    @property
    def pending(self) -> int:
        return len(self._fresh) + len(self._long)
