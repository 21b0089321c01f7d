"""When entries and order records leave."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pacing.pace import ENOUGH, Company, Pace
from node.replica.pacing.pauses import CompanyTimer
from tests.unit.pacing.test_gathering import Clock


def company(turn_s: float = 0.004) -> Company:
    """One whose shards report so long after their cuts, as they have done for a while; shard 1 has just
    reported."""
    usual = Company()
    for round_ in range(40):
        usual.cut({1: 100}, float(round_))
        usual.reported(1, round_ + turn_s)
    return usual


def test_what_is_queued_leaves_when_nothing_is_under_way_unless_it_is_held() -> None:
    pace = Pace(full_requests=10, full_bytes=1000)
    assert pace.due(0, 1, 10)
    assert not pace.due(1, 9, 999)
    assert pace.due(1, 10, 10)
    assert pace.due(1, 1, 1000)
    pace.held = True
    assert not pace.due(0, 1, 10)
    assert pace.due(0, 10, 10)


def test_what_is_queued_gathers_while_clients_are_awaited() -> None:
    pace = Pace(full_requests=10, full_bytes=1000)
    pace.awaited = 5
    assert not pace.due(0, 4, 10)
    assert pace.due(0, 5, 10)
    assert not pace.due(1, 5, 10)
    assert pace.due(0, 1, 1000)


def test_nobody_is_waited_for_before_it_is_known_how_long_reports_take() -> None:
    fresh = Company()
    fresh.cut({1: 100, 2: 100}, 10.0)
    assert fresh.patience_s(10.0) == 0.0


def test_a_record_waits_for_the_shards_of_busy_cuts_until_they_report() -> None:
    usual = company()
    usual.cut({1: 100, 2: 100}, 100.0)
    assert usual.patience_s(100.001) > 0.005
    usual.reported(2, 100.002)
    assert usual.patience_s(100.002) > 0.004
    usual.reported(1, 100.003)
    assert usual.patience_s(100.003) == 0.0


def test_a_shard_with_little_to_do_is_not_waited_for() -> None:
    usual = company()
    usual.cut({1: 100, 2: 100}, 100.0)
    usual.cut({1: 3, 2: 3}, 100.001)
    assert usual.patience_s(100.001) == 0.0


def test_who_does_not_come_is_waited_for_twice_the_usual_time_and_only_once() -> None:
    usual = company(turn_s=0.004)
    usual.cut({1: 100}, 100.0)
    assert usual.patience_s(100.007) > 0.0
    assert usual.patience_s(100.009) == 0.0
    usual.cut({2: 3}, 100.009)
    assert usual.patience_s(100.010) == 0.0


def test_a_wait_is_bounded_however_slow_reports_have_been() -> None:
    slow = company(turn_s=0.09)
    slow.cut({1: 100}, 100.0)
    assert slow.patience_s(100.099) > 0.0
    assert slow.patience_s(100.101) == 0.0


def test_a_shard_that_paused_is_not_taken_for_a_slow_one() -> None:
    usual = company(turn_s=0.004)
    usual.cut({1: 100}, 100.0)
    usual.reported(1, 107.0)
    usual.cut({1: 100}, 108.0)
    assert 0.007 < usual.patience_s(108.0) < 0.009


def test_reports_that_take_longer_than_before_are_waited_for_soon() -> None:
    usual = company(turn_s=0.002)
    for at in range(10):  # too late to be waited for, and yet they tell how long it takes now
        usual.cut({1: 100}, 100.0 + at)
        usual.reported(1, 100.010 + at)
    usual.cut({1: 100}, 200.0)
    assert usual.patience_s(200.010) > 0.0


@pytest.mark.parametrize(("scarce", "changes", "waits"), [
    (True, ENOUGH, True), (False, ENOUGH - 1, True), (False, ENOUGH, False)])
def test_with_cpus_to_spare_a_record_with_enough_waits_for_no_report(
    scarce: bool, changes: int, waits: bool,
) -> None:
    clock, woken = Clock(), []
    loop: Any = clock
    timer = CompanyTimer(loop, lambda: woken.append(True), lambda: scarce)
    timer.policy = company()
    clock.now = 200.0
    timer.cut({1: 100, 2: 100})
    assert timer.awaited(lambda: changes) is waits
    clock.pass_(0.05)
    assert len(woken) == waits


def test_with_its_term_a_sequencer_stops_waiting() -> None:
    clock, woken = Clock(), []
    loop: Any = clock
    timer = CompanyTimer(loop, lambda: woken.append(True), lambda: True)
    timer.policy = company()
    clock.now = 200.0
    timer.cut({1: 100})
    assert timer.awaited(lambda: 1)
    timer.close()
    clock.pass_(1.0)
    assert not woken
    assert not timer.awaited(lambda: 1)
