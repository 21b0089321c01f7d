"""Committed entries that nobody looks at are applied together, and before anybody looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.pacing.gathering import MOST_ENTRIES, PAUSE_MS, Gathering
from node.replica.pacing.pauses import GatheringTimer

PAUSE_S = PAUSE_MS / 1000


class Clock:
    """A loop's clock and its timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.now + delay_s, callback)
        self.timers.append(timer)
        return timer

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        for timer in [t for t in self.timers if t.when <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Replica:
    def __init__(self) -> None:
        self.clock = Clock()
        self.applied: list[int] = []
        self.unseen = True
        self.woken = 0
        loop: Any = self.clock
        self.gathering = GatheringTimer(loop, self.applied.append, lambda: self.unseen, self._wake)

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_the_first_after_a_pause_is_applied_at_once_and_what_follows_together(replica: Replica) -> None:
    take = replica.gathering.take
    take(1)
    assert replica.applied == [1]
    for last in (2, 3, 4):
        take(last)
    assert replica.applied == [1]
    assert replica.gathering.waits
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1, 4]
    assert replica.woken == 1
    assert not replica.gathering.waits
    replica.clock.pass_(PAUSE_S)
    take(5)
    assert replica.applied == [1, 4, 5]


def test_who_looks_finds_all_that_is_committed(replica: Replica) -> None:
    replica.gathering.take(1)
    replica.gathering.take(2)
    replica.gathering.catch_up()
    assert replica.applied == [1, 2]
    replica.gathering.catch_up()
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1, 2]  # nothing waited any more


def test_while_somebody_watches_or_waits_nothing_gathers(replica: Replica) -> None:
    replica.gathering.take(1)
    replica.gathering.take(2)
    replica.unseen = False
    replica.gathering.take(3)
    replica.gathering.take(4)
    assert replica.applied == [1, 3, 4]
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1, 3, 4]


def test_many_do_not_wait_for_the_time(replica: Replica) -> None:
    for last in range(1, MOST_ENTRIES + 3):
        replica.gathering.take(last)
    assert replica.applied == [1, MOST_ENTRIES + 2]


def test_the_policy_says_until_when_and_holds_no_clock() -> None:
    policy = Gathering()
    assert policy.take(1, unseen=True, now_ms=100.0)
    policy.applied(101.0)
    assert not policy.take(2, unseen=True, now_ms=102.0)
    assert not policy.take(3, unseen=True, now_ms=103.0)
    assert policy.until_ms == 101.0 + PAUSE_MS
    assert policy.take(4, unseen=False, now_ms=104.0)
    policy.applied(104.0)
    assert policy.until_ms is None


def test_a_replica_that_ends_applies_nothing_any_more(replica: Replica) -> None:
    replica.gathering.take(1)
    replica.gathering.take(2)
    replica.gathering.close()
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1]
