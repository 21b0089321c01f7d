"""Committed entries of a replica without readers or watchers gather, and are applied together: many small
batches of RocksDB are dearer than few large ones. Any request has the replica caught up first
(``node.replica.pacing.pauses.GatheringTimer``)."""

from __future__ import annotations

PAUSE_MS = 25.0
MOST_ENTRIES = 32


class Gathering:
    """What is committed and not yet applied, in one replica. Times are the caller's, on one clock."""

    def __init__(self) -> None:
        self.committed = 0
        self.until_ms: float | None = None  # what waits is applied by then; None: nothing waits
        self._applied_ms = -PAUSE_MS
        self._first = 0  # of those that wait

    def take(self, last: int, *, unseen: bool, now_ms: float) -> bool:
        """Everything up to ``last`` is committed. Returns whether to apply it now; if not, at ``until_ms``.
        ``unseen``: the replica has no reader or watcher."""
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
        self.until_ms = None
        self._applied_ms = now_ms

    def leave(self) -> None:
        self.until_ms = None
