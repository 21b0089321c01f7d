"""A shard's leader waits a moment for the clients that it has just answered.

Most clients ask again as soon as they are answered. A leader that makes an entry of what has gathered
meanwhile, in the very tick that it answers in, sees its clients fall into two groups that take turns: twice
the entries, order records, syncs, frames and wake-ups that one group would cost. So the next entry waits
until most of those who were answered are back (decision 33).

It is worth it only where they are back sooner than an entry is in order: the wait is never longer than that
took, twice what it takes as a rule, or ``LONGEST_MS``. One that was in vain is not repeated at once: each
doubles the number of entries until the next try. The timer is ``node.replica.pauses.ReturningTimer``'s.
"""

from __future__ import annotations

from cluster.pacing.pace import Doubt, Pace

LONGEST_MS = 50.0
FEWEST = 64  # answers; for fewer the wait costs throughput and saves nothing
_SHARE = 0.75  # of those answered that are waited for
_SMOOTHING = 0.2


class Returning:
    """Of one shard's leader. What it is to wait for stands in ``pace.awaited``. Times are the caller's, on
    one clock."""

    __slots__ = ("_answered_ms", "_doubt", "_pace", "_taken_ms", "_turn_ms", "fewest", "until_ms")

    def __init__(self, pace: Pace) -> None:
        self.fewest = FEWEST
        self.until_ms: float | None = None  # :meth:`in_vain` is called then; None: nobody is waited for
        self._pace = pace
        self._answered_ms = 0.0
        self._taken_ms = 0.0  # when the last entry was begun
        self._turn_ms = LONGEST_MS / 2  # from answers until most are back, smoothed
        self._doubt = Doubt()

    def answered(self, count: int, queued: int, now_ms: float) -> None:
        """So many requests are answered now, while others are queued already."""
        if count < self.fewest:
            return
        if self._doubt.skips():
            return
        self._answered_ms = now_ms
        patience_ms = min(2 * self._turn_ms, now_ms - self._taken_ms, LONGEST_MS)
        if patience_ms > 0 and self.until_ms is None:
            self._pace.awaited = queued + int(count * _SHARE)
            self.until_ms = now_ms + patience_ms

    def taken(self, now_ms: float) -> None:
        """An entry is made of what is queued."""
        self._taken_ms = now_ms
        if self.until_ms is not None:
            self.end()
            self._doubt.paid()
            self._turn_ms += (now_ms - self._answered_ms - self._turn_ms) * _SMOOTHING

    def in_vain(self) -> None:
        """It is ``until_ms``."""
        self.end()
        self._doubt.in_vain()
        # or slower clients would be waited for in vain for ever
        self._turn_ms = min(2 * self._turn_ms, LONGEST_MS / 2)

    def end(self) -> None:
        """Nobody is waited for any more."""
        self.until_ms = None
        self._pace.awaited = 0
