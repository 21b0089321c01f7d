"""Committed entries that nobody looks at here gather, and are applied together.

A follower applies for whoever reads or watches at it. While nobody does, many small runs are only dearer
than few large ones: each is a batch of RocksDB whose rows lie far apart in the write buffer, at the end of a
tick that has used the CPU's caches for something else. So such a replica applies once in ``PAUSE_MS``, or
when ``MOST_ENTRIES`` wait; the first entry after a pause is applied at once.

Nobody sees the difference: whatever asks this replica for anything has it caught up first
(``node.replica.pauses.GatheringTimer``, which holds the timer, too).
"""

from __future__ import annotations

PAUSE_MS = 25.0
MOST_ENTRIES = 32


class Gathering:
    """What is committed and not yet applied, in one replica. Times are the caller's, on one clock."""

    __slots__ = ("_applied_ms", "_first", "committed", "until_ms")

    def __init__(self) -> None:
        self.committed = 0
        self.until_ms: float | None = None  # what waits is applied by then; None: nothing waits
        self._applied_ms = -PAUSE_MS
        self._first = 0  # of those that wait

    def take(self, last: int, *, unseen: bool, now_ms: float) -> bool:
        """Everything up to ``last`` is committed. Whether it is to be applied now; if not, at ``until_ms``.
        ``unseen``: nobody looks at this replica."""
        first, self.committed = self.committed + 1, last
        if not unseen:
            return True
        if self.until_ms is not None:
            return last - self._first >= MOST_ENTRIES
        until_ms = self._applied_ms + PAUSE_MS
        if until_ms <= now_ms:
            return True
        self.until_ms = until_ms
        self._first = first
        return False

    def applied(self, now_ms: float) -> None:
        """All that was committed is."""
        self.until_ms = None
        self._applied_ms = now_ms

    def leave(self) -> None:
        """What waits is left as it is."""
        self.until_ms = None
