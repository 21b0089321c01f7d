"""A shard's leader waits a moment for the clients that it has just answered (decision 33).

An entry made in the very tick of the answers would split its clients into two groups that take turns, at
twice the entries, syncs and wake-ups. So the next entry waits until most of them are back: at most as long as
the last entry took, twice what it usually takes, or ``LONGEST_MS``. A vain wait is not repeated at once. The
timer is ``node.replica.pacing.pauses.ReturningTimer``'s.
"""

from __future__ import annotations

from cluster.pacing.pace import Doubt, Pace

LONGEST_MS = 50.0
FEWEST = 64  # answers; for fewer the wait costs throughput and saves nothing
_SHARE = 0.75  # of those answered that are waited for
_SMOOTHING = 0.2


class Returning:
    """Of one shard's leader; sets ``pace.awaited``. Times are the caller's, on one clock."""

    def __init__(self, pace: Pace) -> None:
        self.fewest = FEWEST
        self.until_ms: float | None = None  # :meth:`in_vain` is called then; None: no wait
        self._pace = pace
        self._answered_ms = 0.0
        self._taken_ms = 0.0  # when the last entry was begun
        self._turn_ms = LONGEST_MS / 2  # from answers until most are back, smoothed
        self._doubt = Doubt()

    def answered(self, count: int, queued: int, now_ms: float) -> None:
        """``count`` requests are answered now, while ``queued`` others wait already."""
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
        self._taken_ms = now_ms
        if self.until_ms is not None:
            self.end()
            self._doubt.paid()
            self._turn_ms += (now_ms - self._answered_ms - self._turn_ms) * _SMOOTHING

    def in_vain(self) -> None:
        self.end()
        self._doubt.in_vain()
        # else every wait for slower clients would be vain
        self._turn_ms = min(2 * self._turn_ms, LONGEST_MS / 2)

    def end(self) -> None:
        self.until_ms = None
        self._pace.awaited = 0
