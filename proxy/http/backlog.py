"""Connections with more to do than they have had in this turn of the loop: some of them go on in each turn.

A connection gives way after some 1 ms. Connections, streams' messages, the gateway's calls and HTTP/1.1
requests that wait share a turn's time, first come, first served; a client that has sent little is answered as
it is read. Unshared, forty connections made a turn of 80 ms and a put's p99 330 ms; 256 that created ten
watches each held the loop for 100 ms; 10,000 HTTP/1.1 requests at once made a turn of half a second.

Connections that stopped in the middle share less of a turn than waiting ones, since a request of another
client takes several turns. One that comes back turn after turn is *loud*; loud ones share least. A turn
itself costs some 0.05 ms, so their share is not smaller still.

Where a turn takes long while others ask, waiting connections get less of the next. Loud ones then rest
between their turns: what comes meanwhile finds the loop idle. Without others, the loop is theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from proxy.http.http2.connection import BRIEF_WORK, TURN_WORK

SHARED_S = 0.002  # of a turn: connections that have not begun; the last one may exceed it
AGAIN_S = 0.001  # of a turn: connections that stopped in the middle
LOUD_S = 0.0005  # of a turn: all loud connections
REST_S = 0.001  # between loud connections' turns, while others ask; a timer takes up to 1 ms more
COMPANY_TURNS = 50  # turns for which a request of others counts: some 0.1 s
LONG_S = 0.004  # a longer turn of the whole loop shortens the next share
LEAST_PART = 0.25  # of these shares

LOUD_TURNS = 24  # a connection that has had more is loud; half are forgotten whenever it has nothing left
_MOST_TURNS = 64  # remembered of one connection
LARGE_BYTES = 4096  # a larger read waits for others
_WARY_S = 1.0  # after a connection was turned out, new ones count as loud
_LOUD_GOES = 64  # of loud connections in one turn
_UNTOLD_S = SHARED_S / 2  # reads are taken for so long before the end of the turn is looked for


class Backlog:
    __slots__ = (
        "_again", "_began", "_clock", "_company", "_ends", "_going_on", "_hasty", "_later", "_loud", "_part",
        "_resting", "_running", "_since", "_soon", "_until", "_waiting", "_wary_until", "at_once", "heard",
    )  # fmt: skip

    def __init__(
        self, soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object], clock: Callable[[], float] = perf_counter,
    ) -> None:
        """``soon`` calls in the next turn of the loop; ``later`` after so many seconds."""
        self._soon = soon
        self._later = later
        self._clock = clock
        # set by readers: a client that sends little asks, and need not wait
        self.heard = self.at_once = False
        self._company = 0  # turns of loud connections for which ``heard`` still counts
        self._hasty = 0  # turns of waiting ones for which ``at_once`` still counts
        self._resting = False  # loud connections do not go on
        self._wary_until = float("-inf")  # until then new connections count as loud
        self._part = 1.0  # of its share that each queue gets now
        self._began = 0.0  # the last turn with waiting connections; 0: the loop was idle
        self._waiting: deque[Callable[[], None]] = deque()
        self._again: deque[Callable[[], None]] = deque()
        self._loud: deque[Callable[[], None]] = deque()
        self._running = False
        self._going_on = False  # inside a turn of waiting connections
        self._ends = 0.0  # no connection begins after that
        self._until: float | None = None  # reads are taken till then in this turn; None: unknown yet
        self._since: float | None = None  # the first read since, in this turn or an earlier one

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again) + len(self._loud)

    def add(self, go_on: Callable[[], None], turns: int = 0) -> int:
        """Call ``go_on`` in its turn. Returns how many turns it has had."""
        if turns > LOUD_TURNS:
            return self.again(go_on, turns)
        self._waiting.append(go_on)
        self._run()
        return turns

    def again(self, go_on: Callable[[], None], turns: int) -> int:
        """The same, for a connection that stopped in the middle after so many turns."""
        (self._again if turns < LOUD_TURNS else self._loud).append(go_on)
        self._run()
        return min(turns + 1, _MOST_TURNS)

    def turned_out(self) -> None:
        """A connection has broken a rule and ends; its client will be back."""
        self._wary_until = self._clock() + _WARY_S

    def newcomers_grace(self) -> int:
        """Bytes that a new connection may send before it is taken for loud; 0: it is not."""
        return LARGE_BYTES if self._clock() < self._wary_until else 0

    def _run(self) -> None:
        if not self._running:
            self._running = True
            self._soon(self._turn)

    def work(self, turns: int, size: int) -> int:
        """Units of work for a connection's turn, by its turns so far and the size read. A large read has a
        short turn where the shared time is spent; a loud connection does nothing outside its turn while
        others ask."""
        if not self._going_on:
            if turns > LOUD_TURNS:
                if self._company:
                    return 0
            elif size <= LARGE_BYTES:
                self.heard = self.at_once = True
        brief = turns > LOUD_TURNS or (size > LARGE_BYTES and self.spent())
        return BRIEF_WORK if brief else TURN_WORK

    def spent(self, turns: int = 0) -> bool:
        """Whether what is read waits: the shared time is spent, or the connection is loud."""
        if self._going_on:
            return False
        if turns > LOUD_TURNS and self._company:
            return True
        now = self._clock()
        if self._until is not None:
            return now >= self._until
        if self._since is None:
            self._since = now
        elif now - self._since >= _UNTOLD_S:
            # connections that wait already have the rest of this turn
            self._until = now if self._waiting else now + SHARED_S - _UNTOLD_S
            self._soon(self._read)
        return False

    def over(self) -> bool:
        """The same for messages of streams; at least one is handed over."""
        return self._clock() >= self._ends if self._going_on else self.spent()

    def _read(self) -> None:
        self._until = self._since = None

    def _turn(self) -> None:
        self._going_on = True
        began = self._clock()
        if self.at_once:
            self.at_once, self._hasty = False, COMPANY_TURNS
        if self._began:
            long = self._hasty > 0 and began - self._began > LONG_S
            self._hasty -= self._hasty > 0
            self._part = max(self._part / 2, LEAST_PART) if long else min(1.25 * self._part, 1.0)
        self._began = began
        part = self._part
        try:
            # only those here now: one that comes back waits for a turn in which others are read
            self._share(self._waiting, part * SHARED_S, len(self._waiting))
            self._share(self._again, part * AGAIN_S, len(self._again))
            if self._loud and not self._resting:
                self._share(self._loud, LOUD_S, _LOUD_GOES)
                self._rest()
        finally:
            self._going_on = False
            self._running = bool(self._waiting or self._again or (self._loud and not self._resting))
            if self._running:
                self._soon(self._turn)
            else:
                self._began, self._part = 0.0, 1.0

    def _rest(self) -> None:
        if self.heard:
            self.heard = False
            self._company = COMPANY_TURNS
        elif self._company:
            self._company -= 1
        if self._company:
            self._resting = True
            self._later(REST_S, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._loud:
            self._run()

    def _share(self, queue: deque[Callable[[], None]], share_s: float, goes: int) -> None:
        if queue:
            clock = self._clock
            until = self._ends = clock() + share_s
            for _ in range(goes):
                queue.popleft()()
                if not queue or clock() >= until:
                    break
