"""How long turns of this process's event loop take.

A timer measures its own delay: a hundred times a second, ten times while the process does little, once where
it does almost nothing. So it costs nothing where work is done, and wakes no idle host.
"""

from __future__ import annotations

import asyncio
import time

from cluster.histogram import Histogram

LONG_S = 0.02  # no turn is to take longer
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the histogram
_PAUSES_S = ((0.05, 0.01), (0.02, 0.1))  # from which share of a CPU on the timer goes off how soon
_IDLE_S = 1.0


def pause_after(share: float) -> float:
    """Seconds until the next look of a process that has used this share of a CPU since the last."""
    return next((pause_s for least, pause_s in _PAUSES_S if share > least), _IDLE_S)


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
        self._next(_PAUSES_S[0][1])

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
        passed_s, used_s = now - self._looked[0], used - self._looked[1]
        self._looked = now, used
        self._next(pause_after(used_s / passed_s if passed_s else 1.0))

    def add(self, late_s: float) -> None:
        """Count a delay."""
        self.late.observe(late_s)
        self.longest_s = max(self.longest_s, late_s)
        self.long += late_s > LONG_S


turns = Turns()  # of this process's loop
