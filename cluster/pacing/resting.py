"""When a leader goes on with large writes while other clients ask: a burst of at most ``BURST_BYTES`` or one
write, then a rest of as long as it took (decision 103). A small request usually waits for one burst, and the
large writer keeps half its throughput. While no other client asks, nothing waits.

Waiting writes are in two lines that take turns: those of at most ``LITTLE_BYTES``, and larger ones. Beyond
``MOST_BYTES`` the first go on without a rest. Times are the caller's, on one clock.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")
LARGE_BYTES = 16 << 10  # a write of more is large, for fronts as well (``proxy.routing.in_turn``)
BURST_BYTES = 256 << 10
LITTLE_BYTES = 64 << 10  # of a burst that no rest follows: a millisecond or two of each loop
MOST_BYTES = 64 << 20  # that wait: a client may give up sooner than its write's turn comes, and send the next
OTHERS_MS = 1000.0  # a client that has asked within this time will ask again
LONGEST_MS = 250.0  # of a rest: a disk that stalls for seconds is no reason to stand still for as long
OVERDUE_MS = 1000.0  # after so long a burst counts as logged before its queue is empty


class Resting(Generic[Item]):
    def __init__(self) -> None:
        self.used = 0  # bytes of the burst that is under way
        self.waiting_bytes = 0
        self.until_ms = 0.0  # the rest's end
        self.rested_ms = 0.0  # in all
        self._began_ms = 0.0  # the burst
        self._heard_ms = float("-inf")  # from others, the last time
        self._little: deque[tuple[int, Item]] = deque()
        self._larger: deque[tuple[int, Item]] = deque()
        self._turn = self._little  # which is next, if both have a write

    def __len__(self) -> int:
        return len(self._little) + len(self._larger)

    def heard(self, now_ms: float) -> None:
        self._heard_ms = now_ms

    def enter(self, size: int, item: Item, now_ms: float) -> bool:
        """Whether a large write goes on now. Otherwise it waits for :meth:`next`."""
        if len(self) or not self._may_begin(size, now_ms):
            (self._little if size <= LITTLE_BYTES else self._larger).append((size, item))
            self.waiting_bytes += size
            return False
        self._begin(size, now_ms)
        return True

    def next(self, now_ms: float) -> Item | None:
        """A write that goes on now, if any may."""
        other = self._larger if self._turn is self._little else self._little
        line = self._turn or other
        if not line or not self._may_begin(line[0][0], now_ms):
            return None
        size, item = line.popleft()
        self.waiting_bytes -= size
        self._turn = self._larger if line is self._little else self._little
        self._begin(size, now_ms)
        return item

    def ended(self, now_ms: float) -> None:
        assert self.used, "only what has begun ends"
        much, self.used = self.used > LITTLE_BYTES, 0
        if much and self._others(now_ms):
            rest_ms = min(now_ms - self._began_ms, LONGEST_MS)
            self.until_ms = now_ms + rest_ms
            self.rested_ms += rest_ms

    def is_overdue(self, now_ms: float) -> bool:
        return self.used > 0 and now_ms - self._began_ms >= OVERDUE_MS

    def drain(self) -> list[Item]:
        items = [item for line in (self._little, self._larger) for _, item in line]
        self._little.clear()
        self._larger.clear()
        self.used = self.waiting_bytes = 0
        self.until_ms = 0.0
        return items

    def _begin(self, size: int, now_ms: float) -> None:
        if not self.used:
            self._began_ms = now_ms
        self.used += size

    def _may_begin(self, size: int, now_ms: float) -> bool:
        if self.waiting_bytes > MOST_BYTES or not self._others(now_ms):
            return True
        return now_ms >= self.until_ms and (not self.used or self.used + size <= BURST_BYTES)

    def _others(self, now_ms: float) -> bool:
        return now_ms - self._heard_ms < OTHERS_MS
