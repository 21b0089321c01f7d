"""Whether a replica can wait for news of commits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.pacing.patience import HURRY_S, Patience


class Replica:
    """What a node shows of itself."""

    def __init__(self) -> None:
        self.now = 100.0
        self.raft = SimpleNamespace(patient=False)
        self.watches = SimpleNamespace(active=False)
        self.reads: Any = SimpleNamespace(waiting=[])
        self.patience = Patience(
            self.raft, lambda: self.now, lambda: bool(self.reads.waiting), lambda: self.watches.active
        )

    @property
    def patient(self) -> bool:
        self.patience.look()
        return bool(self.raft.patient)


def test_a_replica_that_nobody_looks_at_can_wait() -> None:
    assert Replica().patient


def test_a_watch_cannot_wait_as_long_as_it_stands() -> None:
    replica = Replica()
    replica.watches.active = True
    assert not replica.patient
    replica.watches.active = False
    assert replica.patient


def test_after_a_read_that_waited_the_next_ones_are_not_kept_waiting() -> None:
    replica = Replica()
    replica.reads.waiting = ["a read"]
    assert not replica.patient
    replica.reads.waiting = []
    replica.now += HURRY_S / 2
    assert not replica.patient
    replica.now += HURRY_S
    assert replica.patient


def test_a_front_that_waits_for_a_revision_cannot_wait() -> None:
    replica = Replica()
    replica.patience.hurried()
    assert not replica.patient


def test_other_nodes_that_want_records_at_once_cannot_wait() -> None:
    replica = Replica()
    replica.watches.active = True  # or whoever else looks at all of it
    assert not replica.patient
