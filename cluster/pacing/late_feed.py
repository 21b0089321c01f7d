"""Records of the order that nobody looks at here gather, and are applied together.

A shard's follower applies for whoever reads or watches at it. What each apply costs besides its rows (fold, position,
batch, a table of what was told) is some 150 us, as much as 40 puts; and rows that follow each other find the write buffer in
the CPU's caches. So a follower where nobody looks applies what its feed brought at most every ``PAUSE_S``, unless
``MOST_RECORDS`` wait. Whatever asks it for anything but a write has it caught up first (``ShardNode.catch_up``), so nobody sees
anything older than if each record had been applied as it came (decision 31). Node 0's counterpart is ``cluster.pacing.gathering``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

PAUSE_S = 0.2
MOST_RECORDS = 64


class LateFeed:
    """Of one node. ``unseen()``: nobody looks at this replica; ``wake()``: a tick applies what is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, unseen: Callable[[], bool], wake: Callable[[], None]) -> None:
        self._loop = loop
        self._unseen = unseen
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._applied_at = -PAUSE_S  # loop time

    @property
    def waits(self) -> bool:
        """Whether something is left for later."""
        return self._timer is not None

    def may_wait(self, records: int) -> bool:
        """Whether so many records that are here may be applied later: a tick is woken for them then."""
        if records < MOST_RECORDS and self._unseen():
            left_s = self._applied_at + PAUSE_S - self._loop.time()
            if left_s > 0:
                if self._timer is None:
                    self._timer = self._loop.call_later(left_s, self._late)
                return True
        return False

    def applied(self) -> None:
        """Those that were here are."""
        self.close()
        self._applied_at = self._loop.time()

    def _late(self) -> None:
        self.hasten()
        self._wake()

    def hasten(self) -> None:
        """Nothing may wait any longer."""
        self.close()
        self._applied_at = -PAUSE_S

    def close(self) -> None:
        """What waits is left as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
