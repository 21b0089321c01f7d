"""Take one rule out of the store, and the simulator must notice, by the right name.

Implied by others, and so without a test of their own: that a sequencer prepares only after its own first record, that
a shard grants only after applying that record, the floor of ended attempts (a lock that a late copy of a prepare takes
again ends by the question about it), and that an expiry is appended in the term that decided it (it lives in the
coordinator, which dies with the term). Not noticed within a bounded number of runs, and so not here: that a compaction
is acknowledged only once every shard's leader has applied it (H11; the window is a feed's lag).
"""

from __future__ import annotations

import copy

import pytest
from order_mutants import MUTANTS, Mutant
from order_sim import Simulation
from order_world import Violation


def hunt(mutant: Mutant, seeds: int) -> tuple[int, Violation] | None:
    """The first seed that notices; another rule's violation counts as not noticed, unless nothing else is found."""
    for seed in range(mutant.first, mutant.first + seeds):
        try:
            Simulation(seed, copy.copy(mutant.plan)).run()
        except Violation as violation:
            if violation.rule.startswith(mutant.rules):
                return seed, violation
            if violation.rule != "liveness":
                raise
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_simulator_notices_that_a_rule_is_missing(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"
