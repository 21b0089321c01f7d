"""A sequencer's record waits for the reports of busy shards, unless it has enough while CPUs are to spare."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold
from cluster.order.sequencing.reports import Reports
from cluster.pacing.pace import ENOUGH, Pace
from node.replica.pacing.pauses import CompanyTimer
from node.replica.shards.order_role import OrderRole
from tests.unit.pacing.test_gathering import Clock

REPORTED = 100


class Sequencing:
    """What OrderRole's rule looks at: shard 1 is busy and has reported, shard 2 is busy and has not."""

    def __init__(self, *, scarce: bool) -> None:
        loop: Any = Clock()
        self.pace = Pace()
        self.writes: Any = SimpleNamespace(queued=0, due=False, uncommitted=0)
        self.reports = Reports()
        self.reports.take(Report(1, 9, 4, REPORTED, 0), 11)
        fold = Fold(30, {1: Cut(6, 4, 0), 2: Cut(5, 3, 5)})
        self.sequencer: Any = SimpleNamespace(
            coordinator=SimpleNamespace(busy=False), tail=SimpleNamespace(fold=fold))
        self.company = CompanyTimer(loop, lambda: None, lambda: scarce)
        self.company.policy._turn_s = 0.004
        self.company.cut({2: 100})

    def _changes(self) -> int:
        role: Any = self
        return OrderRole._changes(role)

    def waits(self, queued: int) -> bool:
        role: Any = self
        self.writes.queued = queued
        self.pace.held = OrderRole._expects_company(role, self.sequencer.coordinator)
        return self.pace.held

    @property
    def has_room(self) -> bool:
        role: Any = self
        getter: Any = OrderRole.has_room.fget
        return bool(getter(role))


@pytest.mark.parametrize(("scarce", "queued", "waits"), [
    (False, 0, True), (False, ENOUGH - REPORTED - 1, True), (False, ENOUGH - REPORTED, False),
    (True, 500, True)])
def test_what_is_reported_and_what_is_queued_count(scarce: bool, queued: int, waits: bool) -> None:
    assert Sequencing(scarce=scarce).waits(queued) is waits


@pytest.mark.parametrize("scarce", [False, True])
def test_while_it_waits_enough_of_its_own_writes_wake_it(scarce: bool) -> None:
    sequencer = Sequencing(scarce=scarce)
    assert sequencer.waits(1)
    assert not sequencer.has_room
    sequencer.writes.queued = ENOUGH
    assert sequencer.has_room is not scarce
    sequencer.pace.held = False
    assert not sequencer.has_room
