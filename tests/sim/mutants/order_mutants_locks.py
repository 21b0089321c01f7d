"""Rules of locks taken out, one at a time. As ``order_mutants``."""

from __future__ import annotations

from typing import Any

import cluster.order.leading.shard_leader
from cluster.evaluate.footprint import Footprint, footprint
from cluster.order.leading.attempts import Attempts
from cluster.order.locks import LockTable
from cluster.order.prepare import Prepare
from tests.sim.mutants.mutant import LEASES, WIDE, WRONG, Mutant, Patch, plan


def no_locks(patch: Patch) -> None:
    """I9: while a lock is held, no conflicting entry is logged."""
    patch.setattr(LockTable, "conflicts", lambda self, wanted: False)


def locks_bind_nobody(patch: Patch) -> None:
    """I9: as ``no_locks``, and the leader itself does not look."""
    no_locks(patch)
    patch.setattr(LockTable, "locks", lambda self, wanted: False)


def locks_leave_reads_alone(patch: Patch) -> None:
    """I9: requests that read what a lock covers wait, too."""

    def writes_only(method: int, body: bytes) -> Footprint:
        return Footprint([], footprint(method, body).writes)

    patch.setattr(cluster.order.leading.shard_leader, "footprint", writes_only)


def prepares_lock_writes_only(patch: Patch) -> None:
    """H4: what a transaction only reads is locked, too."""

    def writes_only(self: Prepare) -> Footprint:
        return Footprint(
            [], [(t.key, t.range_end) for t in self.touches if t.write], {*self.leases, *self.named}
        )

    patch.setattr(Prepare, "footprint", writes_only)


def prepare_does_not_wait(patch: Patch) -> None:
    """H1: answered when everything logged by then is applied."""

    def lock(self: Any, held: Any, begun: int) -> None:
        held.payload.batch = 0

    patch.setattr(Attempts, "_lock", lock)


def prepares_wait_for_each_other(patch: Patch) -> None:
    """H6, I12: a prepare never waits for another attempt's undecided one."""
    patch.setattr(LockTable, "_undecided_before", lambda self, wanted: None)


def locks_outlive_their_sequencer(patch: Patch) -> None:
    """I11: a record of a later sequencer's term ends the locks of older ones."""
    applied = Attempts.applied_record

    def keep(self: Any, order_index: int, order_term: int, attempts: Any) -> None:
        newest = self.sequencer_term
        self.sequencer_term = max(order_term, newest)
        applied(self, order_index, newest, attempts)
        self.sequencer_term = max(order_term, newest)

    patch.setattr(Attempts, "applied_record", keep)


def leases_of_puts_are_not_locked(patch: Patch) -> None:
    """I15: a revoke waits for the multi of a transaction whose puts name the lease."""
    footprint_of = Prepare.footprint

    def without(self: Prepare) -> Footprint:
        found = footprint_of(self)
        found.leases = set(self.leases)
        return found

    patch.setattr(Prepare, "footprint", without)


MUTANTS = [
    Mutant(no_locks, WRONG, plan(fault_every_s=5.0)),
    Mutant(locks_bind_nobody, ("I9 nothing that conflicts",), plan(fault_every_s=5.0)),
    Mutant(locks_leave_reads_alone, WRONG, plan(fault_every_s=5.0), first=5),
    Mutant(prepares_lock_writes_only, WRONG, plan(fault_every_s=5.0)),
    Mutant(prepare_does_not_wait, WRONG, plan(fault_every_s=5.0)),
    Mutant(
        prepares_wait_for_each_other,
        ("I12", "I23", "liveness"),
        plan(
            shards=3,
            mix={"lease_put": 10, "grant": 4, "revoke": 8, "wide": 8, "transfer": 8},
            fault_every_s=9.0,
        ),
    ),
    Mutant(
        locks_outlive_their_sequencer,
        ("I23 every wait", "liveness"),
        plan(
            mix=WIDE,
            faults=("kill sequencer", "restart", "pause sequencer"),
            fault_every_s=0.1,
            busy_s=0.02,
            shards=3,
            clients=12,
        ),
        first=65,
    ),
    Mutant(leases_of_puts_are_not_locked, ("I15",), plan(mix=LEASES), first=15),
]
