"""Records of the order that nobody looks at here gather, and are applied together.

A shard's follower applies for whoever reads or watches at it. What each apply costs besides its rows (fold,
position, batch, a table of what was told) is some 150 us, as much as 40 puts; and rows that follow each
other find the write buffer in the CPU's caches. So a follower where nobody looks applies what its feed
brought at most every ``PAUSE_MS``, unless ``MOST_RECORDS`` wait. Whatever asks it for anything but a write
has it caught up first (``ShardRole.catch_up``), so nobody sees anything older than if each record had been
applied as it came (decision 31). Node 0's counterpart is ``cluster.pacing.gathering``.
"""

from __future__ import annotations

PAUSE_MS = 200.0
MOST_RECORDS = 64


class LateFeed:
    """Of one node. Times are the caller's, on one clock."""

    __slots__ = ("_applied_ms", "until_ms")

    def __init__(self) -> None:
        self.until_ms: float | None = None  # what waits is applied by then; None: nothing waits
        self._applied_ms = -PAUSE_MS

    def may_wait(self, records: int, *, unseen: bool, now_ms: float) -> bool:
        """Whether so many records that are here may be applied later, at ``until_ms``. ``unseen``: nobody
        looks at this replica."""
        if records < MOST_RECORDS and unseen:
            until_ms = self._applied_ms + PAUSE_MS
            if until_ms > now_ms:
                self.until_ms = until_ms
                return True
        return False

    def applied(self, now_ms: float) -> None:
        """Those that were here are."""
        self.until_ms = None
        self._applied_ms = now_ms

    def hasten(self) -> None:
        """Nothing may wait any longer."""
        self.until_ms = None
        self._applied_ms = -PAUSE_MS

    def leave(self) -> None:
        """What waits is left as it is."""
        self.until_ms = None
