"""Connections that have more to do of what has been read: some of them in each turn of the loop.

A connection gives way after some 2 ms. With each of forty going on in every turn a turn took 80 ms, and a put
of somebody else's, which takes several turns, 330 ms at p99. So those that go on share a turn's time, first
come, first served; who has sent little is answered as it is read.

Messages of streams wait likewise once those that were read in a turn have taken as much of it: 256
connections that each created ten watches at once held the loop for 100 ms, and a put of somebody else's took
0.3 s. So do requests over HTTP/1.1: 10,000 that came at once, each on its connection, were a turn of half a
second, since libuv reads all that is ready before it looks at its timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

SHARED_S = 0.002  # of a turn; the last one in it may take its 2 ms beyond that

_UNTOLD_S = SHARED_S / 2  # so long things are taken without asking when the turn ends, which costs something


class Backlog:
    """Who goes on, in order."""

    __slots__ = ("_clock", "_going_on", "_running", "_since", "_soon", "_until", "_waiting")

    def __init__(
        self, soon: Callable[[Callable[[], None]], object], clock: Callable[[], float] = perf_counter
    ) -> None:
        """``soon``: calls something in the next turn of the loop."""
        self._soon = soon
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False
        self._going_on = False  # this is a turn of those that wait
        self._until: float | None = None  # in this turn of the loop what is read is taken; None: not told yet
        self._since: float | None = None  # when the first was read since then, in this turn or one before

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, go_on: Callable[[], None]) -> None:
        """Call this when its turn has come."""
        self._waiting.append(go_on)
        if not self._running:
            self._running = True
            self._soon(self._turn)

    def spent(self) -> bool:
        """Whether what is read waits: others' have had the time that all share."""
        if self._going_on:
            return False
        now = self._clock()
        if self._until is not None:
            return now >= self._until
        if self._since is None:
            self._since = now
        elif now - self._since >= _UNTOLD_S:
            self._until = now + SHARED_S - _UNTOLD_S
            self._soon(self._read)
        return False

    def _read(self) -> None:
        self._until = self._since = None

    def _turn(self) -> None:
        waiting, until = self._waiting, self._clock() + SHARED_S
        self._going_on = True
        try:
            # those that are here now: who comes back at once waits for a turn in which others have been read
            for _ in range(len(waiting)):
                waiting.popleft()()
                if self._clock() >= until:
                    break
        finally:
            self._going_on = False
            self._running = bool(waiting)
            if waiting:
                self._soon(self._turn)
