"""The data grows while everything goes wrong, and never before every member knows it (G16)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.features.growth import LEVEL, Growth
from node.upkeep.group.growing import Growing
from tests.sim.mutants.mutant import CHANGES, Mutant, plan
from tests.sim.mutants.test_order_mutants import hunt
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(3, soak=24)
PLAN = plan(grows=True, faults=CHANGES, fault_every_s=0.4, seconds=4.0)


@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("members", [False, True])
def test_data_grows_once_every_member_knows_it(shards: int, members: bool) -> None:
    for seed in SEEDS:
        found = Simulation(seed, plan(
            shards=shards, grows=True, members=members, faults=CHANGES, fault_every_s=0.4, seconds=4.0)).run()
        assert found["level"] == LEVEL


def growth_before_all_know(patch: pytest.MonkeyPatch) -> None:
    """G16: whatever members have said."""
    patch.setattr(Growth, "lacking", lambda self, level, members: [])


def levels_are_given_twice(patch: pytest.MonkeyPatch) -> None:
    """G16: a level that is there is granted again without an item."""
    grow = Growth.grow

    def forgets(self: Growth, level: int, members: Any) -> None:
        self.level = 0
        grow(self, level, members)
        self.level = 0

    patch.setattr(Growth, "grow", forgets)
    patch.setattr(Growing, "look", lambda self: None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", [
    Mutant(growth_before_all_know, ("G16 no growth",), PLAN),
    Mutant(levels_are_given_twice, ("G16 levels",), PLAN),
], ids=str)
def test_the_simulator_notices_growth_that_comes_too_soon(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"
