"""Records that nobody looks at are applied together, and before anybody looks."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pacing.late_feed import MOST_CHANGES, MOST_RECORDS, PAUSE_MS, LateFeed
from node.replica.pacing.pauses import LateFeedTimer
from tests.unit.pacing.test_gathering import Clock

PAUSE_S = PAUSE_MS / 1000


def few() -> int:
    """Changes."""
    return 1


class Replica:
    """A follower with a clock that is told; it applies all that it has when it may not wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.records = self.changes = 0
        self.applied: list[int] = []
        self.unseen = True
        loop: Any = self.clock
        self.late = LateFeedTimer(loop, lambda: self.unseen, self.tick)

    def tick(self) -> None:
        if self.records and not self.late.may_wait(self.records, lambda: self.changes):
            self.late.applied()
            self.applied.append(self.records)
            self.records = self.changes = 0

    def fed(self, records: int = 1, changes: int = 0) -> None:
        self.records += records
        self.changes += changes
        self.tick()


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_the_first_after_a_pause_is_applied_at_once_and_what_follows_together(replica: Replica) -> None:
    replica.fed()
    assert replica.applied == [1]
    for _ in range(3):
        replica.fed()
    assert replica.applied == [1]
    assert replica.late.waits
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1, 3]
    assert not replica.late.waits
    replica.clock.pass_(PAUSE_S)
    replica.fed()
    assert replica.applied == [1, 3, 1]


def test_nothing_waits_where_somebody_looks(replica: Replica) -> None:
    replica.unseen = False
    for _ in range(3):
        replica.fed()
    assert replica.applied == [1, 1, 1]
    assert not replica.clock.timers


def test_who_begins_to_look_finds_all(replica: Replica) -> None:
    replica.fed()
    replica.fed(2)
    replica.late.hasten()
    replica.tick()
    assert replica.applied == [1, 2]
    assert not replica.late.waits
    replica.clock.pass_(PAUSE_S)
    assert replica.applied == [1, 2]


def test_many_records_wait_for_nothing(replica: Replica) -> None:
    replica.fed()
    replica.fed(MOST_RECORDS - 1)
    assert replica.applied == [1]
    replica.fed()
    assert replica.applied == [1, MOST_RECORDS]


def test_many_changes_wait_for_nothing(replica: Replica) -> None:
    replica.fed()
    replica.fed(changes=MOST_CHANGES - 1)
    assert replica.applied == [1]
    replica.fed(changes=1)
    assert replica.applied == [1, 2]


def test_what_cannot_be_applied_yet_is_tried_again_by_the_next_tick(replica: Replica) -> None:
    assert not replica.late.may_wait(1, few)
    assert not replica.late.may_wait(1, few)
    assert not replica.late.waits


def test_the_policy_says_until_when_and_holds_no_clock() -> None:
    policy = LateFeed()
    assert not policy.may_wait(1, few, unseen=True, now_ms=100.0)
    policy.applied(101.0)
    assert policy.may_wait(1, few, unseen=True, now_ms=102.0)
    assert policy.until_ms == 101.0 + PAUSE_MS
    assert not policy.may_wait(2, few, unseen=False, now_ms=103.0)
    policy.hasten()
    assert policy.until_ms is None
    assert not policy.may_wait(2, few, unseen=True, now_ms=104.0)


def test_a_replica_that_ends_leaves_what_waits(replica: Replica) -> None:
    replica.fed()
    replica.fed()
    replica.late.close()
    replica.clock.pass_(2 * PAUSE_S)
    assert replica.applied == [1]
