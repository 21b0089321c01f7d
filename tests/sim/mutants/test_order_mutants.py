"""Take one rule out of the store, and the simulator must notice, by the right name.

Implied by others, and so without a test of their own: that a sequencer prepares only after its own first
record (it has no coordinator before), and D6's short cuts. Rules that need a schedule made for them are in
``test_order_directed``, those of what the simulator has no disks for in ``tests/unit/storage``
(``docs/design/invariants.md``).
"""

from __future__ import annotations

import copy

import pytest

from tests.sim.mutants import (
    order_mutants,
    order_mutants_answers,
    order_mutants_disks,
    order_mutants_locks,
    order_mutants_lone,
    order_mutants_rest,
)
from tests.sim.mutants.mutant import Mutant
from tests.sim.world.order_sim import ENDLESS, Simulation
from tests.sim.world.order_world import Violation


def hunt(mutant: Mutant, seeds: int) -> tuple[int, Violation] | None:
    """The first seed that notices; another rule's violation counts as not noticed, unless nothing else is
    found."""
    for seed in range(mutant.first, mutant.first + seeds):
        try:
            Simulation(seed, copy.copy(mutant.plan)).run()
        except Violation as violation:
            if violation.rule.startswith(mutant.rules):
                return seed, violation
            if violation.rule not in ("liveness", ENDLESS):
                raise
    return None


MUTANTS = [
    mutant
    for module in (order_mutants, order_mutants_locks, order_mutants_rest, order_mutants_disks,
                   order_mutants_answers)
    for mutant in module.MUTANTS
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_simulator_notices_that_a_rule_is_missing(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"


def with_every_rule() -> list[Mutant]:
    """One mutant of each plan and first seed."""
    return list({f"{m.first} {m.plan}": m for m in (*MUTANTS, *order_mutants_lone.MUTANTS)}.values())


@pytest.mark.soak  # a fifth of all simulated time; what the store itself does wrong, CI's plans show
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mutant", with_every_rule(), ids=str)
def test_with_every_rule_in_its_place_there_is_nothing_to_notice(mutant: Mutant) -> None:
    """Else a mutant might be noticed for what its plan does to the store as it is."""
    assert Simulation(mutant.first, copy.copy(mutant.plan)).run()["answers"] > 0
