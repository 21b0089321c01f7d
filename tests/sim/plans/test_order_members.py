"""Hosts leave every group and come back while everything else goes on and goes wrong (H12, I21)."""

from __future__ import annotations

import pytest

from cluster.members import goals, host_changes
from cluster.members.host_changes import HostChange
from cluster.raft import Configuration
from node.members.changes import Changes
from node.replica.shards.order_role import OrderRole
from tests.sim.mutants.mutant import CHANGES, Mutant, plan
from tests.sim.mutants.test_order_mutants import hunt
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(4, soak=34)
PLAN = plan(members=True, faults=CHANGES, fault_every_s=0.4, seconds=5.0)


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_hosts_leave_and_come_back_in_every_group(shards: int) -> None:
    changes = 0
    for seed in SEEDS:
        found = Simulation(
            seed, plan(shards=shards, members=True, faults=CHANGES, fault_every_s=0.4, seconds=5.0)
        ).run()
        changes += found["changes of hosts"]
    assert changes > 10  # it would prove nothing if nobody came or went


def group_0_goes_with_the_others(patch: pytest.MonkeyPatch) -> None:
    """H12: a host joins group 0 first and leaves it last."""
    patch.setattr(host_changes, "next_groups", lambda change, committed: [
        group for group, configuration in enumerate(committed) if not change.done(configuration)])


def the_next_change_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """I21: it begins when every group has committed the last one; here, when group 0 has."""
    patch.setattr(host_changes, "may_begin", lambda committed: True)
    patch.setattr(goals, "_begun", lambda hosts, committed: None)
    patch.setattr(Changes, "_caught_up", lambda self, member_id: member_id in self._groups[0].peers)
    patch.setattr(OrderRole, "covers", lambda self, voters, last: True)  # or no change stays the next one


def two_go_at_once(patch: pytest.MonkeyPatch) -> None:
    """I21: one member at a time; here whoever is asked to let one host go lets another one go with it."""
    target = HostChange.target

    def both(self: HostChange, current: Configuration) -> Configuration:
        found = target(self, current)
        return (
            Configuration(frozenset(sorted(found.voters)[:1]))
            if len(found.voters) < len(current.voters)
            else found
        )

    patch.setattr(HostChange, "target", both)
    patch.setattr(Configuration, "check_step", lambda self, new: None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mutant",
    [
        Mutant(group_0_goes_with_the_others, ("H12",), PLAN),
        Mutant(the_next_change_does_not_wait, ("I21 the next",), PLAN),
        Mutant(two_go_at_once, ("I21 one change",), PLAN),
    ],
    ids=str,
)
def test_the_simulator_notices_groups_that_do_as_they_please(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"
