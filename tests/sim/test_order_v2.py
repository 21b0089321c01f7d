"""The v2 tree while everything goes wrong: one event for each index, the same everywhere; whoever waits misses
nothing and is told nothing twice; what a front has shown it never takes back."""

from __future__ import annotations

import pytest
from order_sim import SOAK, Plan, Simulation, plan_of
from order_v2 import BASE_S, V2Clients
from order_world import Process


@pytest.fixture(autouse=True)
def _walls_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """TTLs are moments on the wall: here all hosts have the same."""
    monkeypatch.setattr(Process, "wall_time", lambda self: BASE_S + self.world.now)


def run(seed: int, plan: Plan) -> V2Clients:
    simulation = Simulation(seed, plan)
    clients = V2Clients(simulation)
    try:
        simulation.run()
        clients.check()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e
    return clients


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 2])
def test_the_v2_tree_is_one_everywhere(shards: int) -> None:
    written = told = 0
    for seed in range(200 if SOAK else 4):
        plan = plan_of(seed)
        plan.shards, plan.seconds, plan.clients = shards, 5.0, 2
        clients = run(seed, plan)
        written += clients.did["written"]
        told += sum(len(one.seen) for one in clients.told)
    assert written > 50, "it would prove nothing if nobody wrote"
    assert told > 100
