"""Lone puts by the sequencer's way (decision 22), with every kind of trouble; and its rules, taken out one at
a time."""

from __future__ import annotations

import pytest

from tests.sim.mutants.mutant import Mutant
from tests.sim.mutants.order_mutants_lone import MUTANTS, SCENARIOS, lone
from tests.sim.mutants.test_order_mutants import hunt
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(6, soak=34)


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("trouble", SCENARIOS)
def test_lone_puts_are_puts_like_any(trouble: str) -> None:
    taken = answered = 0
    for seed in SEEDS:
        found = Simulation(seed, lone(shards=2 + seed % 3, faults=SCENARIOS[trouble], seconds=4.0)).run()
        taken += found["lone"]
        answered += found["answers"]
    assert taken > 30  # it would prove nothing if they all went to their leaders
    assert answered > taken


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_simulator_notices_what_a_lone_put_lacks(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"
