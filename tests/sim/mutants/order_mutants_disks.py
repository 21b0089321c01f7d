"""Rules of what is kept on disk taken out, one at a time: what a start knows to be committed, logs that are
truncated, snapshots. As ``order_mutants``."""

from __future__ import annotations

from typing import Any

from node.replica.server import Node
from node.replica.shards.order_role import OrderRole
from node.serving.watch.watches import WatchSource
from node.upkeep.log.floors import Floors
from tests.sim.disks import order_store
from tests.sim.mutants.mutant import HOT, WRONG, Mutant, Patch, plan

SNAPSHOTS = ("kill node", "kill node", "restart", "restart", "flush", "flush", "isolate", "heal", "heal")


def nothing_is_noted(patch: Patch) -> None:
    """I25: what is committed is noted before it is applied, lest a restart takes it back."""
    handle = Node.handle

    def forgetful(self: Any, ready: Any) -> None:
        self._notes = False
        handle(self, ready)

    patch.setattr(Node, "handle", forgetful)


def what_is_logged_is_noted(patch: Patch) -> None:
    """I25: only what is committed is noted."""
    handle = Node.handle

    def hasty(self: Any, ready: Any) -> None:
        handle(self, ready)
        if ready.entries and self._notes:
            self.log.note_committed(self.log.last_index())

    patch.setattr(Node, "handle", hasty)


def truncates_to_what_is_applied(patch: Patch) -> None:
    """H9, I17: the log is truncated up to what a finished flush covers."""
    patch.setattr(order_store.Store, "durable_position", property(lambda self: self.position))


def keeps_no_records_for_siblings(patch: Patch) -> None:
    """I17: order records are kept until the host's other nodes have durably applied them."""
    patch.setattr(Floors, "kept_after", lambda self, least, voters: self.of_majority(voters)[0])


def node_0_keeps_its_own_fold(patch: Patch) -> None:
    """I19, Snapshot contents: the fold comes with the data."""
    replaced = OrderRole.replaced

    def keep(self: Any) -> None:
        fold = self.fold
        replaced(self)
        self.fold = fold

    patch.setattr(OrderRole, "replaced", keep)


def installs_are_no_gaps_for_watches(patch: Patch) -> None:
    """H8: revisions that an install jumps over are read from history."""
    patch.setattr(WatchSource, "lost", lambda self: None)


MUTANTS = [
    Mutant(nothing_is_noted, ("I25",), plan(faults=("kill sequencer", "kill node", "restart", "restart")),
           first=2),
    Mutant(
        what_is_logged_is_noted,
        ("I1 one committed", "I3", *WRONG),
        plan(late=0.2, faults=("kill sequencer", "isolate", "restart", "late", "heal"), fault_every_s=0.1),
        first=3,
    ),
    Mutant(truncates_to_what_is_applied, ("I17", "H10"), plan(snapshot_count=20, faults=SNAPSHOTS)),
    Mutant(keeps_no_records_for_siblings, ("I17",), plan(snapshot_count=20, faults=SNAPSHOTS)),
    Mutant(
        node_0_keeps_its_own_fold,
        ("I3", "I4", "I5", "I6", "I10", "I17", "I19"),
        plan(snapshot_count=20, faults=SNAPSHOTS, seconds=6.0),
        first=1,
    ),
    Mutant(
        installs_are_no_gaps_for_watches,
        ("I16", "I23 every wait", "liveness"),
        plan(snapshot_count=20, faults=SNAPSHOTS, mix={**HOT, "watch": 3}, seconds=6.0),
        first=1,
    ),
]
