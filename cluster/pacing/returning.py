"""A shard's leader waits a moment for the clients that it has just answered.

Most clients ask again as soon as they are answered. A leader that makes an entry of what has gathered meanwhile, in the very tick
that it answers in, sees its clients fall into two groups that take turns: twice the entries, order records, syncs, frames and
wake-ups that one group would cost. So the next entry waits until most of those who were answered are back (decision 33).

It is worth it only where they are back sooner than an entry is in order: the wait is never longer than that took, twice what it takes as
a rule, or ``LONGEST_S``. One that was in vain is not repeated at once: each doubles the number of entries until the next try.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.pacing.pace import Doubt, Pace

if TYPE_CHECKING:
    import asyncio

LONGEST_S = 0.05
FEWEST = 64  # answers; for fewer the wait costs throughput and saves nothing
_SHARE = 0.75  # of those answered that are waited for
_SMOOTHING = 0.2


class Returning:
    """Of one shard's leader. What it is to wait for stands in ``pace.awaited``; ``wake()``: the wait is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Pace, wake: Callable[[], None]) -> None:
        self.fewest = FEWEST
        self._loop = loop
        self._pace = pace
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._answered_at = 0.0
        self._taken_at = 0.0  # when the last entry was begun
        self._turn_s = LONGEST_S / 2  # from answers until most are back, smoothed
        self._doubt = Doubt()

    def answered(self, count: int, queued: int) -> None:
        """So many requests are answered now, while others are queued already."""
        if count < self.fewest:
            return
        if self._doubt.skips():
            return
        now = self._answered_at = self._loop.time()
        patience_s = min(2 * self._turn_s, now - self._taken_at, LONGEST_S)
        if patience_s > 0 and self._timer is None:
            self._pace.awaited = queued + int(count * _SHARE)
            self._timer = self._loop.call_later(patience_s, self._in_vain)

    def taken(self) -> None:
        """An entry is made of what is queued."""
        self._taken_at = self._loop.time()
        if self._timer is not None:
            self._end()
            self._doubt.paid()
            self._turn_s += (self._taken_at - self._answered_at - self._turn_s) * _SMOOTHING

    def _in_vain(self) -> None:
        self._end()
        self._doubt.in_vain()
        self._turn_s = min(2 * self._turn_s, LONGEST_S / 2)  # or slower clients would be waited for in vain for ever
        self._wake()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pace.awaited = 0

    def close(self) -> None:
        """This leader's term is over."""
        self._end()
