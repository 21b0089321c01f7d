"""Leases that are due, ended a few in each turn of the loop: a thousand of them may be due at once.

A store of several shards has this bounded by its sequencer (``cluster.expiries``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from cluster.replica import Leader

KEYS = 400  # a turn's: 8 to 12 us each
_LEASE = 4  # what a lease costs besides its keys, in keys


class Expiry:
    """The due leases of one term."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leader: Callable[[], Leader | None], wake: Callable[[], None]) -> None:
        self._loop = loop
        self._leader = leader
        self._wake = wake
        self._due: deque[int] = deque()
        self._of: Leader | None = None  # whose they are (H7: decided and appended in one and the same term)
        self._scheduled = False

    def add(self, leases: Iterable[int]) -> None:
        """These were found due by the term that leads now."""
        leader = self._leader()
        if leader is not self._of:
            self._due.clear()
            self._of = leader
        self._due.extend(leases)
        if self._due and not self._scheduled:
            self._some()

    def _some(self) -> None:
        self._scheduled = False
        leader = self._leader()
        if leader is None or leader is not self._of:
            self._due.clear()
            return
        left = KEYS
        while self._due and left > 0:
            left -= leader.expire(self._due.popleft()) + _LEASE
        self._wake()
        if self._due:
            self._scheduled = True
            self._loop.call_soon(self._some)
