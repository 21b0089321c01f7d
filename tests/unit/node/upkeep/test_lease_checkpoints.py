"""Which checkpoints of leases the leader of shard 0 logs (H7)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.features.lessor import Lessor
from node.serving.leases.checkpoints import LeaseCheckpoints


class Sequencer:
    """A leader of a shard with lease 7, of 600 s, whose log the test looks at."""

    def __init__(self, shard: int = 0, interval_ms: int = 1000) -> None:
        self.log: list[bytes] = []
        self.ending: set[int] = set()
        self.now_ms = 0
        self.lessor = Lessor(1000, checkpoint_interval_ms=interval_ms)
        self.lessor.load([(7, 600, 0)])
        self.lessor.promote(0, election_timeout_ms=0)
        view = SimpleNamespace(changes_lease=self.ending.__contains__)
        self.writes = SimpleNamespace(leader=SimpleNamespace(view=view, append=self.log.append))
        self.confirmations = SimpleNamespace(blocked=lambda lease: None)
        node: Any = SimpleNamespace(
            settings=SimpleNamespace(shard=shard, lease_checkpoint_interval_ms=interval_ms),
            lessor=self.lessor, writes=self.writes, confirmations=self.confirmations,
            now_ms=lambda: self.now_ms, wake=lambda: None)
        self.checkpoints = LeaseCheckpoints(node)

    def look_at(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.checkpoints.look()


def test_what_is_left_is_logged_after_an_interval_and_cleared_once_for_all_that_wait() -> None:
    leader = Sequencer()
    leader.look_at(999)
    assert leader.log == []
    leader.look_at(2000)
    assert leader.log == [records.lease_checkpoint(7, 598)]
    leader.confirmations.blocked(7)
    leader.confirmations.blocked(7)
    assert leader.log == [records.lease_checkpoint(7, 598), records.lease_checkpoint(7, 0)]


@pytest.mark.parametrize(("shard", "interval_ms"), [(1, 1000), (0, 0)])
def test_nobody_else_logs_any(shard: int, interval_ms: int) -> None:
    leader = Sequencer(shard, interval_ms)
    leader.look_at(5000)
    leader.confirmations.blocked(7)
    assert leader.log == []


def test_without_the_feature_what_others_logged_is_cleared() -> None:
    leader = Sequencer(interval_ms=0)
    leader.lessor.checkpointed(7, 300)
    leader.confirmations.blocked(7)
    assert leader.log == [records.lease_checkpoint(7, 0)]


def test_nothing_is_logged_behind_the_end_of_a_lease() -> None:
    """A lease of the same ID may be granted before it is applied."""
    leader = Sequencer()
    leader.lessor.checkpointed(7, 300)
    leader.ending.add(7)
    leader.look_at(5000)
    leader.confirmations.blocked(7)
    assert leader.log == []


def test_who_leads_no_more_logs_nothing() -> None:
    leader = Sequencer()
    leader.writes.leader = None
    leader.look_at(5000)
    leader.confirmations.blocked(7)
    assert leader.log == []
