"""Order records of a shard's follower without readers or watchers gather, and are applied together: an apply
costs 150 us besides its rows. Any request but a write has it caught up first (``ShardRole.catch_up``;
decision 31)."""

from __future__ import annotations

PAUSE_MS = 200.0
MOST_RECORDS = 64


class LateFeed:
    def __init__(self) -> None:
        self.until_ms: float | None = None  # what waits is applied by then; None: nothing waits
        self._applied_ms = -PAUSE_MS

    def may_wait(self, records: int, *, unseen: bool, now_ms: float) -> bool:
        """Whether this many records may be applied later, at ``until_ms``. ``unseen``: see ``Gathering``."""
        if records < MOST_RECORDS and unseen:
            until_ms = self._applied_ms + PAUSE_MS
            if until_ms > now_ms:
                self.until_ms = until_ms
                return True
        return False

    def applied(self, now_ms: float) -> None:
        self.until_ms = None
        self._applied_ms = now_ms

    def hasten(self) -> None:
        self.until_ms = None
        self._applied_ms = -PAUSE_MS

    def leave(self) -> None:
        self.until_ms = None
