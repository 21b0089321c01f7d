"""When a shard's leader gives way because nothing of it is put in order (H13): within an election timeout
what it has committed must be in a cut, or its feed or its way to the sequencer is dead. A long apply excuses
it for a while (D8). A leader whose next order record is kept nowhere gives way, too: only a follower installs
a state."""

from __future__ import annotations

APPLY_LIMIT = 10  # election timeouts that one apply may take (a delete of a million keys takes a few)
Position = tuple[int, int]  # term and index of an entry


class Stuck:
    def __init__(self, election_ms: int) -> None:
        self._election_ms = election_ms
        self._ordered: Position = (0, 0)  # when it last moved
        self._since_ms = 0
        self._order_index = 0  # at the last heartbeat
        self._stands = False  # the order stood still here then, although more of it was committed
        self._stands_since_ms = 0
        self._starved = False

    def look(
        self, committed: Position | None, ordered: Position, order_index: int, more_known: bool, now_ms: int,
        *, starved: bool = False,
    ) -> bool:
        """Each heartbeat: whether this leader is stuck, and looks for a better one.

        ``committed``: the last entry that it reports, None if it does not lead; ``ordered``: the last one in
        order. ``order_index`` is applied here; ``more_known``: more of the order is committed, and comes;
        ``starved``: it does not, as no node keeps the next record.
        """
        self._starved = starved
        waits = committed is not None and (starved or committed > ordered)
        # The order stands still although more of it is committed: a long apply, of its feed's node 0 or its
        # own (D8). An order that moves on without this shard's entries is no excuse, nor a very long stand.
        self._stands = more_known and order_index == self._order_index
        self._order_index = order_index
        if not self._stands:
            self._stands_since_ms = now_ms
        applying = self._stands and now_ms - self._stands_since_ms < APPLY_LIMIT * self._election_ms
        if not waits or ordered != self._ordered or applying:
            self._ordered, self._since_ms = ordered, now_ms
            return False
        return self._is_stuck(now_ms)

    def helped_by(self, peer_order_index: int, order_index: int, now_ms: int) -> bool:
        """Whether a peer with a live feed, and so much of the order applied, is to lead instead."""
        # a peer that stands at the same record is no help
        ahead = peer_order_index - order_index >= (self._stands or self._starved)
        return ahead and self._is_stuck(now_ms)

    def _is_stuck(self, now_ms: int) -> bool:
        return now_ms - self._since_ms >= self._election_ms
