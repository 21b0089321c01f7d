"""Committed entries that nobody looks at here gather, and are applied together.

A follower applies for whoever reads or watches at it. While nobody does, many small runs are only dearer than few large
ones: each is a batch of RocksDB whose rows lie far apart in the write buffer, at the end of a tick that has used the
CPU's caches for something else. So such a replica applies once in ``PAUSE_S``, or when ``MOST_ENTRIES`` wait; the first
entry after a pause is applied at once.

Nobody sees the difference: whatever asks this replica for anything has it caught up first (:meth:`Gathering.catch_up`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

PAUSE_S = 0.025
MOST_ENTRIES = 32


class Gathering:
    """What is committed and not yet applied, in one replica. ``apply(last)`` applies everything up to there;
    ``unseen()``: nobody looks at this replica; ``wake()``: after an apply that no tick asked for."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, apply: Callable[[int], None], unseen: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._apply = apply
        self._unseen = unseen
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._applied_at = -PAUSE_S  # loop time
        self._first = 0  # of those that wait
        self._stopped = False
        self._goes_on = False  # a turn for what is committed behind a long run is to come
        self.committed = 0

    @property
    def waits(self) -> bool:
        """Whether something is committed and left for later."""
        return self._timer is not None

    def take(self, last: int) -> None:
        """Everything up to ``last`` is committed: apply it now, or later."""
        first, self.committed = self.committed + 1, last
        if not self._unseen():
            self._now()
        elif self._timer is None:
            left_s = self._applied_at + PAUSE_S - self._loop.time()
            if left_s > 0:
                self._timer = self._loop.call_later(left_s, self.catch_up)
                self._first = first
            else:
                self._now()
        elif last - self._first >= MOST_ENTRIES:
            self._now()

    def catch_up(self) -> None:
        """Somebody asks, or it is time."""
        if self._timer is not None:
            self._now()
            self._wake()

    def _now(self) -> None:
        self.close()
        self._apply(self.committed)
        self._applied_at = self._loop.time()

    def later(self) -> None:
        """:meth:`go_on` once the loop has been served."""
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._goes_on = False
        self.go_on()

    def go_on(self) -> None:
        """A long run is applied: what is committed behind it is next."""
        if not self._stopped:
            self._apply(self.committed)
            self._wake()

    def stop(self) -> None:
        """Nothing more is applied."""
        self.close()
        self._stopped = True

    def close(self) -> None:
        """What waits is left as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
