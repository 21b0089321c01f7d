"""Whether requests come: long work then leaves them the CPU between its slices.

A slice of half a millisecond delays little by itself. But three hosts' nodes that read, compact or catch
watchers up take all CPUs, and a put waits for the scheduler on each hop. So long work pauses between its
slices while requests come.
"""

from __future__ import annotations

from collections.abc import Callable

_HOLD_S = 0.02  # from one request on; at 50 a second and more long work never goes on without pauses


class Others:
    """Watches a counter of requests that were served."""

    __slots__ = ("_done", "_seen", "_time", "_until")

    def __init__(self, time: Callable[[], float], done: Callable[[], object]) -> None:
        """``time``: a clock in seconds. ``done``: differs when a request was served since."""
        self._time = time
        self._done = done
        self._seen: object = None
        self._until = 0.0

    def about(self) -> bool:
        """Whether a request was served since the last call, or shortly before it."""
        done, now = self._done(), self._time()
        if done != self._seen:
            self._seen = done
            self._until = now + _HOLD_S
        return now < self._until
