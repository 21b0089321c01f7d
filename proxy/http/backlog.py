"""Connections that have more to do of what has been read: some of them in each turn of the loop.

A connection gives way after some 1 ms. With each of forty going on in every turn a turn took 80 ms, and a put
of somebody else's, which takes several turns, 330 ms at p99. So those that go on share a turn's time, first
come, first served; who has sent little is answered as it is read.

Messages of streams wait likewise once those that were read in a turn have taken as much of it: 256
connections that each created ten watches at once held the loop for 100 ms, and a put of somebody else's took
0.3 s. So do requests over HTTP/1.1: 10,000 that came at once, each on its connection, were a turn of half a
second, since libuv reads all that is ready before it looks at its timers.

A request of somebody else's takes several turns, each as long as what is done in it. So those that stopped in
the middle share a shorter time of it than those that have not begun, and who comes back turn after turn is
*loud*: they share the shortest. A turn costs some 0.05 ms by itself: that is why they are not shorter still.

Answers, reads and peers have their part of a turn, too. Where all of it together takes long, those that wait
get less of the next one, while others ask who are answered at once.

While others ask, the loud ones rest between their turns: whatever comes then finds the loop idle, and other
processes of the machine a CPU. Without others the loop is theirs, and all of a turn those that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from proxy.http.http2.connection import BRIEF_WORK, TURN_WORK

SHARED_S = 0.002  # of a turn; the last one in it may take its own turn beyond that
AGAIN_S = 0.001  # of a turn, those that stopped in the middle
LOUD_S = 0.0005  # of a turn, all loud ones together, each as often as it fits in
REST_S = 0.001  # of the loud ones between their turns, while others ask; a loop's timers take up to 1 ms more
COMPANY_TURNS = 50  # so long it counts that others have asked: some 0.1 s
LONG_S = 0.004  # a turn of the loop that takes longer, with all else in it, leaves less of the next
LEAST_PART = 0.25  # of these times

LOUD_TURNS = 24  # who has had more of them is loud. Half are forgotten each time that he has nothing left
_MOST_TURNS = 64  # that are remembered
LARGE_BYTES = 4096  # who sends more at once waits for others
_WARY_S = 1.0  # new connections that go on are taken for loud after one was turned out
_LOUD_GOES = 64  # of one turn, by number
_UNTOLD_S = SHARED_S / 2  # so long things are taken without asking when the turn ends, which costs something


class Backlog:
    """Who goes on, in order."""

    __slots__ = (
        "_again", "_began", "_clock", "_company", "_ends", "_going_on", "_hasty", "_later", "_loud", "_part",
        "_resting", "_running", "_since", "_soon", "_until", "_waiting", "_wary_until", "at_once", "heard",
    )  # fmt: skip

    def __init__(
        self, soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object], clock: Callable[[], float] = perf_counter,
    ) -> None:
        """``soon``: calls something in the next turn of the loop; ``later``: after so many seconds."""
        self._soon = soon
        self._later = later
        self._clock = clock
        # whoever reads from clients says that somebody asks who sends little, and that he need not wait
        self.heard = self.at_once = False
        self._company = 0  # turns of the loud ones for which the first counts on
        self._hasty = 0  # turns of those that wait for which the second does
        self._resting = False  # the loud ones are
        self._wary_until = float("-inf")  # new connections that go on are taken for loud
        self._part = 1.0  # of their time that those that wait get now
        self._began = 0.0  # when the last turn of the loop did in which some had theirs; 0: the loop was idle
        self._waiting: deque[Callable[[], None]] = deque()
        self._again: deque[Callable[[], None]] = deque()
        self._loud: deque[Callable[[], None]] = deque()
        self._running = False
        self._going_on = False  # this is a turn of those that wait
        self._ends = 0.0  # then nobody begins anything more in it
        self._until: float | None = None  # in this turn of the loop what is read is taken; None: not told yet
        self._since: float | None = None  # when the first was read since then, in this turn or one before

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting) + len(self._again) + len(self._loud)

    def add(self, go_on: Callable[[], None], turns: int = 0) -> int:
        """Call this when its turn has come; how many it has had, if it is the next one of many."""
        if turns > LOUD_TURNS:
            return self.again(go_on, turns)
        self._waiting.append(go_on)
        self._run()
        return turns

    def again(self, go_on: Callable[[], None], turns: int) -> int:
        """The same, of a connection that stopped in the middle and has had so many turns; how many these are
        now."""
        (self._again if turns < LOUD_TURNS else self._loud).append(go_on)
        self._run()
        return min(turns + 1, _MOST_TURNS)

    def turned_out(self) -> None:
        """A connection has broken a rule, and ends. Who sends such will be back."""
        self._wary_until = self._clock() + _WARY_S

    def newcomers_grace(self) -> int:
        """How many bytes a new connection may send before it is taken for loud; 0: it is not."""
        return LARGE_BYTES if self._clock() < self._wary_until else 0

    def _run(self) -> None:
        if not self._running:
            self._running = True
            self._soon(self._turn)

    def work(self, turns: int, size: int) -> int:
        """What a connection may do in its turn that has had so many turns, and of which so much was read. Who
        sends much has a short turn where others have had the time of this one. Who is loud does nothing but
        in his turn while others ask."""
        if not self._going_on:
            if turns > LOUD_TURNS:
                if self._company:
                    return 0
            elif size <= LARGE_BYTES:
                self.heard = self.at_once = True
        brief = turns > LOUD_TURNS or (size > LARGE_BYTES and self.spent())
        return BRIEF_WORK if brief else TURN_WORK

    def spent(self, turns: int = 0) -> bool:
        """Whether what is read waits: others' have had the time that all share, or the connection has had so
        many turns that it is loud."""
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
            # who came before and waits has the rest of this turn
            self._until = now if self._waiting else now + SHARED_S - _UNTOLD_S
            self._soon(self._read)
        return False

    def over(self) -> bool:
        """The same of messages of streams: those of a connection that goes on wait, too, once its turn is
        over. It hands over one in any case."""
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
            # those that are here now: who comes back at once waits for a turn in which others have been read
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
        """The loud ones have had a turn."""
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
        """Turns of those in a queue, until they have had their share of this turn of the loop."""
        if queue:
            clock = self._clock
            until = self._ends = clock() + share_s
            for _ in range(goes):
                queue.popleft()()
                if not queue or clock() >= until:
                    break
