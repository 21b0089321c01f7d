"""Whether others are about: long work then leaves them the CPU between its slices.

A slice of half a millisecond delays nobody much by itself. But three hosts' nodes that read, compact or catch
watchers up as fast as they can take all CPUs there are, and on every hop a put waits until the scheduler
takes one of them away. So work that is long lets time pass between its slices while requests come, and none
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

_HOLD_S = 0.02  # from one request on; at 50 a second and more long work never goes on without pauses


class Others:
    """Sees a counter of what was done for others go on."""

    __slots__ = ("_done", "_seen", "_time", "_until")

    def __init__(self, time: Callable[[], float], done: Callable[[], object]) -> None:
        """``time``: a clock in seconds. ``done``: anything that differs when something was done since."""
        self._time = time
        self._done = done
        self._seen: object = None
        self._until = 0.0

    def about(self) -> bool:
        """Whether something was done since the last question, or shortly before it."""
        done, now = self._done(), self._time()
        if done != self._seen:
            self._seen = done
            self._until = now + _HOLD_S
        return now < self._until
