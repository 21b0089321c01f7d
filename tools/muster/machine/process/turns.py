"""How long turns of this process's event loop take.

A timer measures its own delay, a hundred times a second, or ten times while the process is idle: that costs
nothing where work is done.
"""

from __future__ import annotations

import asyncio
import time

from cluster.histogram import Histogram

LONG_S = 0.02  # no turn is to take longer
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the histogram
_BUSY_S, _IDLE_S = 0.01, 0.1
_BUSY_SHARE = 0.05  # of a CPU


class Turns:
    """Delays of a loop, in seconds."""

    def __init__(self) -> None:
        self.late = Histogram(BOUNDS_S)  # by delay
        self.longest_s = 0.0
        self.long = 0  # turns of more than LONG_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._looked = (0.0, 0.0)  # when, and the CPU time used by then

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, from inside the loop."""
        self._loop = loop
        self._looked = loop.time(), time.process_time()
        self._next(_BUSY_S)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _next(self, pause_s: float) -> None:
        assert self._loop is not None
        self._due = self._loop.time() + pause_s
        self._timer = self._loop.call_later(pause_s, self._look)

    def _look(self) -> None:
        assert self._loop is not None
        now, used = self._loop.time(), time.process_time()
        self.add(max(now - self._due, 0.0))
        passed, share = now - self._looked[0], used - self._looked[1]
        self._looked = now, used
        self._next(_BUSY_S if share > _BUSY_SHARE * passed else _IDLE_S)

    def add(self, late_s: float) -> None:
        """Count a delay."""
        self.late.observe(late_s)
        self.longest_s = max(self.longest_s, late_s)
        self.long += late_s > LONG_S


turns = Turns()  # of this process's loop
