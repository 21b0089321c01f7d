"""Answers of one round leave together.

An order record puts entries of several shards in order, and their leaders answer some milliseconds apart.
Each portion was a write to every client, and the next requests came back in as many portions. So a busy
leader's answers to writes wait for those of the others with requests of this front under way (decision 33).
What is kept may be overtaken: an answer is the last record of its request.

Nothing waits where little is under way, on a link with watches, or while CPUs are to spare: there the step
costs throughput (``cluster.pacing.scarcity``). The wait is 1.5 times the others'
lateness, ``LONGEST_S`` at most. Each wait without a result doubles the number of rounds until the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from cluster.pacing.pace import Doubt
from proxy.routing.waiting import OK, WRITE, Loop

Answers = list[tuple[int, int, bytes]]

BUSY = 16  # answers in a frame, and requests under way at another leader
LONGEST_S = 0.02
_GRACE_S = 0.001  # the loop's clock is as coarse
_RISING, _FALLING = 0.4, 0.05


class LeaderLink(Protocol):
    """What rounds need of a link to a leader."""

    pending: dict[int, Any]  # rid -> Waiting
    parts: dict[int, Any]  # the subscriptions on it

    def take(self, answers: Answers) -> None: ...


class Rounds:
    def __init__(self, loop: Loop, leaders: Callable[[], Iterable[LeaderLink]], scarce: Callable[[], bool]
                 ) -> None:
        """``scarce()``: whether CPUs are."""
        self.busy = BUSY
        self._scarce = scarce
        self._loop = loop
        self._leaders = leaders
        self._held: list[tuple[LeaderLink, Answers]] = []
        self._answered: set[LeaderLink] = set()  # in this round
        self._began = 0.0
        self._releases = 0
        self._spread_s = LONGEST_S / 2  # from a round's first answers to its last ones, smoothed
        self._doubt = Doubt()
        self._waits = True  # in this round

    def sift(self, link: LeaderLink, answers: Answers) -> Answers:
        """The answers that are passed on now; others come back by ``Link.take``."""
        if len(answers) < self.busy:
            return answers
        if not self._scarce():
            if self._held:
                self.release()
            return answers
        self._note(link)
        if link.parts:
            return answers
        if not self._waits or not any(
                len(other.pending) >= self.busy and other not in self._answered for other in self._leaders()):
            if self._held:
                self._doubt.paid()
                self.release()
            return answers
        pending = link.pending
        now: Answers = []
        kept: Answers = []
        for answer in answers:
            waiting = pending.get(answer[0]) if answer[1] == OK else None
            (now if waiting is None or waiting.route != WRITE else kept).append(answer)
        if kept:
            if not self._held:
                wait_s = min(1.5 * self._spread_s + _GRACE_S, LONGEST_S)
                self._loop.call_later(wait_s, partial(self._in_vain, self._releases))
            self._held.append((link, kept))
        return now

    def _note(self, link: LeaderLink) -> None:
        now = self._loop.time()
        late_s = now - self._began
        if link in self._answered or late_s > 2 * LONGEST_S:
            self.release()
            self._answered.clear()
            self._began = now
            self._waits = not self._doubt.skips()
        else:
            self._spread_s += (late_s - self._spread_s) * (_RISING if late_s > self._spread_s else _FALLING)
        self._answered.add(link)

    def _in_vain(self, releases: int) -> None:
        if releases != self._releases:
            return
        self._doubt.in_vain()
        self._waits = False
        self.release()

    def release(self) -> None:
        """Pass on what is kept."""
        self._releases += 1
        held, self._held = self._held, []
        for link, answers in held:
            link.take(answers)
