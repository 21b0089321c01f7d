"""A shard's leader waits for the clients that it has just answered, where that is short."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pacing.pace import Pace
from cluster.pacing.returning import FEWEST, LONGEST_MS, Returning
from node.replica.pacing.pauses import ReturningTimer
from tests.unit.pacing.test_gathering import Clock


class Leader:
    """Its entries take ``round_s`` each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pace = Pace(full_requests=1000)
        self.woken = 0
        self.scarce = True
        loop: Any = self.clock
        self.returning = ReturningTimer(loop, self.pace, self._wake, lambda: self.scarce)

    def _wake(self) -> None:
        self.woken += 1

    def entry(self, count: int, round_s: float = 0.04, queued: int = 0) -> None:
        """One of so many requests is made, put in order, and answered, while others have come."""
        self.returning.taken()
        self.clock.pass_(round_s)
        self.returning.answered(count, queued)

    def due(self, queued: int) -> bool:
        return self.pace.due(0, queued, 100 * queued)


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_the_next_entry_waits_until_most_clients_are_back_and_not_longer(leader: Leader) -> None:
    leader.entry(100, queued=20)
    assert not leader.due(20)
    assert not leader.due(94)
    assert leader.due(95)
    leader.clock.pass_(0.002)
    leader.returning.taken()
    assert leader.due(1)


def test_few_answers_are_not_waited_for(leader: Leader) -> None:
    leader.entry(FEWEST - 1)
    assert leader.due(1)


def test_a_full_entry_does_not_wait(leader: Leader) -> None:
    leader.entry(5000)
    assert leader.due(1000)


def test_nobody_is_waited_for_longer_than_an_entry_takes(leader: Leader) -> None:
    leader.entry(100, round_s=0.003)
    leader.clock.pass_(0.002)
    assert not leader.due(1)
    leader.clock.pass_(0.001)
    assert leader.due(1)
    assert leader.woken == 1  # what is queued is looked at again


def test_the_wait_is_bounded_and_becomes_twice_what_clients_take(leader: Leader) -> None:
    leader.entry(100, round_s=10.0)
    leader.clock.pass_(LONGEST_MS / 1000)
    assert leader.due(1)
    for _ in range(60):
        leader.entry(100)
        leader.clock.pass_(0.004)
    leader.entry(100)
    leader.clock.pass_(0.007)
    assert not leader.due(1)
    leader.clock.pass_(0.002)
    assert leader.due(1)


def test_waits_in_vain_become_rare(leader: Leader) -> None:
    waited = 0
    for _ in range(200):
        leader.entry(100)
        waited += not leader.due(1)
        leader.clock.pass_(0.2)
        assert leader.due(1)
    assert waited < 15


def test_clients_that_come_back_are_waited_for_each_time_again(leader: Leader) -> None:
    for _ in range(200):
        leader.entry(100)
        leader.clock.pass_(0.2)
    tried = 0
    for _ in range(400):
        leader.entry(100)
        tried += not leader.due(1)
        leader.clock.pass_(0.001)
    assert tried > 300  # the first that was not in vain ended the pauses


def test_the_policy_says_until_when_and_holds_no_clock() -> None:
    pace = Pace()
    policy = Returning(pace)
    policy.taken(100.0)
    policy.answered(100, 20, 103.0)
    assert pace.awaited == 95
    assert policy.until_ms == 106.0  # no longer than the entry took
    policy.in_vain()
    assert pace.awaited == 0
    assert policy.until_ms is None


def test_with_its_term_a_leader_stops_waiting(leader: Leader) -> None:
    leader.entry(100)
    leader.returning.close()
    assert leader.due(1)
    leader.clock.pass_(1.0)
    assert leader.woken == 0


def test_clients_that_became_slower_are_waited_for_again(leader: Leader) -> None:
    def served(back_s: float) -> bool:
        leader.entry(100)
        awaited = leader.pace.awaited > 0
        leader.clock.pass_(back_s)
        return awaited and leader.pace.awaited > 0

    for _ in range(100):
        served(0.002)
    assert sum(served(0.010) for _ in range(100)) > 90


def test_with_cpus_to_spare_nothing_waits(leader: Leader) -> None:
    leader.scarce = False
    leader.entry(100)
    assert leader.due(1)
    leader.scarce = True  # other programs came
    leader.entry(100)
    assert not leader.due(1)
