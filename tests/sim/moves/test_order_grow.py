"""Spans move between serving shards, again and again, while everything else goes on and goes wrong
(growth.md, section 4). Births are not in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.moves.order_mixed import Mixed
from tests.sim.moves.order_mutants_moves import COMPACTED, MUTANTS, busy, moves
from tests.sim.mutants.mutant import LEASES, Mutant
from tests.sim.mutants.test_order_mutants import hunt
from tests.sim.world.order_plan import FAULTS, MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import failed_once, seconds_for, seeds

SEEDS = seeds(3, soak=17, first=4)  # much moves in these three
MIXED_SEEDS = seeds(3, soak=17, first=12)  # in a third of all nothing moves
PLANS: dict[str, dict[str, Any]] = {
    "grow": {"mix": COMPACTED, "targets": (1, 2)},
    "grow_hard": {"mix": COMPACTED, "faults": FAULTS, "fault_every_s": 0.5, "snapshot_count": 60,
                  "repeats": 0.3},
    "grow_zero": {"mix": MIX, "shards": 2, "targets": (0, 1)},
    "grow_watch": {"mix": {**MIX, "watch": 5, "progress": 2, "compact": 3}, "cancels": 0.1},
    "grow_lease": {"mix": {**LEASES, "revoke": 8}, "targets": (0, 1, 2)},
    "grow_real": {"mix": COMPACTED, "real": True, "snapshot_count": 60, "targets": (1, 2)},
    "grow_late": {"mix": MIX, "patience_ms": 0, "faults": ("kill node", "restart", "restart"),
                  "fault_every_s": 0.5},
    "grow_disk": {"mix": COMPACTED, "faults": ("empty host", "restart", "restart", "heal", "flush"),
                  "fault_every_s": 1.0, "targets": (1, 2), "seconds": 7.0},
    # answers that show rows are made late, deletes are logged as spans, and compares look at ranges
    "grow_many": {"mix": {**MIX, "delete": 8, "txn": 8, "put": 12, "compact": 3}, "many": 1, "turn_rows": 0,
                  "lease_keys": 0},
}


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("name", PLANS)
def test_spans_move_while_all_else_goes_on(name: str) -> None:
    switched = cancelled = emptied = 0
    for seed in SEEDS:
        simulation = Simulation(seed, moves(**PLANS[name]))
        emptied += simulation.run().get("emptied", 0)
        switched += len(simulation.checker.owners.switched)
        cancelled += simulation.checker.owners.cancelled
    assert switched > len(SEEDS)  # it would prove nothing if nothing moved
    assert cancelled
    assert emptied or name != "grow_disk"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "seed"), failed_once({
    ("grow_many", 2002): "the simulator's: its store hid keys that had just come from a write's late answer",
}))
def test_what_failed_once(name: str, seed: int) -> None:
    Simulation(seed, moves(**PLANS[name])).run()


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(MIXED_SEEDS))
def test_spans_move_once_every_host_is_upgraded() -> None:
    switched = mixed = 0
    for seed in MIXED_SEEDS:
        simulation = Mixed(seed, moves(mix=COMPACTED, repeats=0.3, seconds=6.0))
        found = simulation.run()
        assert found["upgraded"] == len(simulation.hosts)
        switched += len(simulation.checker.owners.switched)
        mixed += simulation.grew_before
    assert switched > len(MIXED_SEEDS)
    assert mixed  # it would prove nothing if the data had not grown before


def shows_the_past(**given: Any) -> Plan:
    return busy(**{"targets": (1, 2), "move_every_s": 0.05, "cancels": 0.01, "fault_every_s": 0.8, **given})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2])
def test_what_a_transaction_shows_of_the_past_is_its_owners_of_then(seed: int) -> None:
    """It was asked for at the owners of today, which have none of it."""
    Simulation(seed, shows_the_past()).run()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_simulator_notices_what_a_move_lacks(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.remove(monkeypatch)
    assert hunt(mutant, mutant.seeds) is not None, f"{mutant.seeds} runs without it, and nobody noticed"
