"""The whole store under the faults of ``order_faults`` too: power gone everywhere, disks that fail or are
full, long pauses, clocks that drift and jump, five hosts. Fixed seeds; many others with MUSTER_SOAK=1; over
RocksDB in ``test_order_real``."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from tests.sim.mutants.mutant import plan
from tests.sim.mutants.order_mutants_answers import CHECKPOINTS
from tests.sim.world.order_plan import hard_plan_of
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import failed_once, in_batches, seconds_for, seeds

_LEASE_SEEDS = seeds(4, soak=14)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", in_batches((3, 4), soak=(12, 16)))
def test_nothing_is_lost_and_no_answer_is_wrong(batch: range) -> None:
    done: dict[str, int] = {}
    for seed in batch:
        try:
            found = Simulation(seed, hard_plan_of(seed)).run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
        for what, count in found.items():
            done[what] = done.get(what, 0) + count
    assert done["answers"] > 50  # it would prove nothing if nothing happened
    assert done["revisions"] > 50


# Seeds that failed once, as in test_order_sim.
MENDED = {
    57: "the checker's: files need not hold what a majority has applied; those of a host began behind it",
    4088: "a write that shows many rows showed those of its own revision, which its "
          "range had named beforehand",
    20319: "a lock of an attempt that was over: its leader and the sequencer refused and asked "
           "without a pause, ever more often",
    30167: "the checker's: two snapshots that were superseded within 10 ms were just being removed",
    60216: "the checker's: a watch that begins at a revision to come is told of progress only then",
}


@pytest.mark.parametrize("seed", failed_once(MENDED))
def test_what_failed_once(seed: int) -> None:
    Simulation(seed, hard_plan_of(seed)).run()


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(_LEASE_SEEDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_what_is_left_of_a_lease_outlives_its_sequencer(shards: int) -> None:
    """H7: no lease ends before the time that was promised, and a new sequencer adds no more to the time of
    one than an interval and an election."""
    done: Counter[str] = Counter()
    given: dict[str, Any] = {**CHECKPOINTS, "shards": shards, "fault_every_s": 2.0 / shards}
    killed = given | {"faults": ("transfer", "kill sequencer", "restart", "restart")}
    for seed in _LEASE_SEEDS:
        simulation = Simulation(seed, plan(**(killed if seed % 2 else given), lease_keys=seed // 2 % 2))
        try:
            simulation.run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
        done += simulation.checker.kinds
    assert done["a new sequencer counts by a checkpoint"] > 5
    assert done["a lease ended by itself"] > 5


LEASES = {"grant": 4, "keep": 4, "ttl": 2, "lease_put": 4, "put": 2}


def with_clocks_that_drift(seed: int, drift: float) -> Simulation:
    return Simulation(
        seed,
        plan(
            drift=drift, mix=LEASES, faults=("transfer", "kill sequencer", "restart", "jump clock"),
            seconds=5.0,
        ),
    )


@pytest.mark.parametrize("seed", range(2))
def test_leases_end_early_by_no_more_than_the_clock_is_fast(seed: int) -> None:
    with_clocks_that_drift(seed, 0.1).run()


def test_a_clock_that_is_faster_than_assumed_is_noticed() -> None:
    """The check would see a lease that ends earlier than that: clocks run 0.3 faster than the checks are
    told. Not every run has a lease that nobody keeps alive for long enough."""
    rules = []
    for seed in range(1, 20):  # 1 has one
        simulation = with_clocks_that_drift(seed, 0.0)
        simulation.clock_rate = lambda host: 1.3  # type: ignore[method-assign]
        try:
            simulation.run()
        except Violation as violation:
            rules.append(violation.rule)
            break
    assert len(rules) == 1
    assert re.match(r"H7|I15", rules[0])
