"""Whether this host could go on alone, with all that is in order, if the others were lost for good
(``--force-new-cluster``, H18).

The other nodes of a host tell its node 0 how far they have applied the order (FEED_ACK). What one of them
has not applied, its log may lack: a forced start would then drop what follows in the order. Nodes are
always a moment behind, so only what node 0 has had for ``LATE_S`` counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import structlog

log = structlog.get_logger("sequencer")

LATE_S = 10.0


class Alone:
    def __init__(self, shard_count: int) -> None:
        self._applied = dict.fromkeys(range(1, shard_count), 0)  # 0: not said since this start
        self._committed: deque[tuple[float, int]] = deque()  # when, and how much of the order was here then
        self.lacking: dict[int, int] = {}  # shard -> order records that its node here lacks

    def follow(self, shards: Iterable[int]) -> None:
        """The cluster has these shards now. One that is born has all that was in order then."""
        born = self._committed[-1][1] if self._committed else 0
        self._applied = {shard: self._applied.get(shard, born) for shard in shards if shard}

    def said(self, shard: int, applied: int) -> None:
        if shard in self._applied:
            self._applied[shard] = applied

    @property
    def records(self) -> int:
        """The order records of the past that would be in danger."""
        return max(self.lacking.values(), default=0)

    def look(self, committed: int, now: float) -> None:
        """Each second. ``committed``: the last order record that is here."""
        known = self._committed
        known.append((now, committed))
        while len(known) > 1 and known[1][0] <= now - LATE_S:
            known.popleft()
        due = known[0][1] if known[0][0] <= now - LATE_S else 0
        could = not self.lacking
        self.lacking = {shard: due - index for shard, index in self._applied.items() if index < due}
        if could and self.lacking:
            log.warning("this host lacks order records: a forced start of it alone would lose writes",
                        shards=list(self.lacking), records=self.records)
        elif not could and not self.lacking:
            log.info("this host has all order records again")
