"""Users and roles that change while everything goes wrong: nobody is answered what he may not ask,
nobody is refused what he may, and nothing comes into effect that is forbidden (``order_users``)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.mutants import order_mutants_users
from tests.sim.world.order_plan import MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS, LEASE_SEEDS = seeds(8, soak=34), seeds(4, soak=14)
MIX_OF_USERS = {
    **{name: weight for name, weight in MIX.items() if name not in ("watch", "progress")},
    "lease_put": 4,
    "grant": 2,
    "revoke": 2,
    "keep": 2,
    "ttl": 2,
}


def plan_for(seed: int, shards: int) -> Plan:
    return Plan(
        shards=shards,
        seconds=3.0,
        clients=8,
        think_s=0.01,
        fault_every_s=(0.4, 0.8)[seed % 2],
        snapshot_count=(10_000, 40)[seed % 3 == 0],
        mix=MIX_OF_USERS,
        users=True,
    )


def run(seed: int, plan: Plan) -> Counter[str]:
    """What was asked and told."""
    simulation = Simulation(seed, plan)
    try:
        simulation.run()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e
    return simulation.clients.permissions.counts  # type: ignore[attr-defined,no-any-return]


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_who_may_what_is_told_by_the_order(shards: int) -> None:
    done: Counter[str] = Counter()
    for seed in SEEDS:
        done.update(run(seed, plan_for(seed, shards)))
    # it would prove nothing if nothing happened
    least = {
        "answered": 400,
        "applied": 150,
        "states": 80,
        "refused: etcdserver: permission denied": 100,
        "refused: etcdserver: invalid auth token": 30,
        "refused: etcdserver: user name is empty": 20,
        "refused: etcdserver: revision of auth store is old": 20,
    }
    assert {what: done[what] for what, count in least.items() if done[what] < count} == {}


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(LEASE_SEEDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_leases_whose_ids_are_granted_again_and_again_are_each_ones_own(shards: int) -> None:
    refused = 0
    for seed in LEASE_SEEDS:
        refused += run(seed, order_mutants_users.with_leases(plan_for(seed, shards)))[
            "refused: etcdserver: permission denied"]
    assert refused > 50


# Seeds that failed once, by shards, with what was wrong; each was mended in the commit that added it
MENDED = {
    (3, 9): "a put under a lease was judged by keys of other shards that were asked for before it",
    (3, 10): "what was let pass came into effect after it was acknowledged that it is forbidden",
    (
        1,
        8,
    ): "a write without a name was not judged that came before its leader had applied that users are enabled",
}


@pytest.mark.longer
@pytest.mark.parametrize(("shards", "seed"), sorted(MENDED))
def test_what_failed_once(shards: int, seed: int) -> None:
    run(seed, plan_for(seed, shards))


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", order_mutants_users.MUTANTS, ids=str)
def test_the_simulator_notices_that_a_rule_is_missing(
    mutant: order_mutants_users.Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    for seed in range(mutant.first, mutant.first + 20):
        try:
            Simulation(seed, mutant.plan(plan_for(seed, mutant.shards))).run()
        except Violation as violation:
            if violation.rule.startswith(mutant.rules):
                return
            if not violation.rule.startswith("P"):
                raise
    pytest.fail("20 runs without it, and nobody noticed")
