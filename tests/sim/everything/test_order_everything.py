"""Everything at once: users, members with joiners and destroyed disks, version 2, leases, installs, moved
leaders, walls that do not agree, backups and what is restored of them (``order_everything``)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.everything.order_everything import Everything, plan_for
from tests.sim.mutants import order_mutants_everything
from tests.sim.world.order_sim import SOAK
from tests.sim.world.order_world import Violation


def run(seed: int, shards: int) -> Counter[str]:
    """What happened."""
    simulation = Everything(seed, plan_for(seed, shards))
    try:
        return Counter(simulation.run()) + Counter(simulation.v2.did)
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_all_that_an_operator_and_clients_do_at_once(shards: int) -> None:
    done: Counter[str] = Counter()
    for seed in range(300 if SOAK else 6):
        done += run(seed, shards)
    # it would prove nothing if nothing happened
    least = {"added": 2, "removed": 2, "joined": 2, "destroyed": 2, "restored": 1}
    least |= {"written": 50, "answers": 300}
    assert {what: done[what] for what, count in least.items() if done[what] < count} == {}


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", order_mutants_everything.MUTANTS, ids=str)
def test_the_simulator_notices_that_a_rule_is_missing(
    mutant: order_mutants_everything.Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    for seed in range(mutant.first, mutant.first + 20):
        try:
            Everything(seed, plan_for(seed, mutant.shards)).run()
        except Violation as violation:
            if violation.rule.startswith(mutant.rules):
                return
            raise
    pytest.fail("20 runs without it, and nobody noticed")
