"""The v2 tree while everything goes wrong: one event for each index, the same everywhere; whoever waits
misses nothing and is told nothing twice; what a front has shown it never takes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.evaluate.replica import Leader
from cluster.features.v2.tree import Tree
from node.replica.writes import Writes
from node.serving.v2 import V2Tree
from proxy.v2.waiting.feed import Feed
from tests.sim.clients.order_v2 import BASE_S, V2Clients
from tests.sim.world.order_plan import Plan, plan_of
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Process
from tests.sim.world.seeds import seconds_for, seeds
from tests.unit.v2.tree.random_writes import WRAPS_S

SEEDS = seeds(8, soak=24)
SETTLED_S = 2.0  # a front whose link broke in the last faults follows another, and all its waits look back


@pytest.fixture(autouse=True)
def _walls_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """TTLs are moments on the wall: here all hosts have the same."""
    monkeypatch.setattr(Process, "wall_time", lambda self: BASE_S + self.world.now)
    monkeypatch.setattr("node.serving.v2._SLICE", 2)  # most lists take their turns


def plan_for(seed: int, shards: int) -> Plan:
    plan = plan_of(seed)
    plan.shards, plan.seconds, plan.clients = shards, 5.0, 2
    return plan


def run(seed: int, plan: Plan) -> V2Clients:
    simulation = Simulation(seed, plan)
    clients = V2Clients(simulation, ttls=(0, 1, 100, WRAPS_S))
    try:
        simulation.run()
        simulation.run_until(simulation.now + SETTLED_S)
        clients.check()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e
    return clients


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 2])
def test_the_v2_tree_is_one_everywhere(shards: int) -> None:
    written = told = 0
    for seed in SEEDS:
        clients = run(seed, plan_for(seed, shards))
        written += clients.did["written"]
        told += sum(len(one.seen) for one in clients.told)
    assert written > 50, "it would prove nothing if nobody wrote"
    assert told > 100


def nobody_looks_back_again(patch: pytest.MonkeyPatch) -> None:
    """Another link has other events."""
    patch.setattr(Feed, "_anew", lambda self: None)


def a_leader_keeps_its_tree(patch: pytest.MonkeyPatch) -> None:
    """What it has logged and lost is in it."""
    lead, kept = Writes.lead, dict[Writes, Tree]()

    def leads(self: Writes) -> Leader:
        leader = lead(self)
        leader._v2_tree = kept.setdefault(self, leader._copies.v2())
        return leader

    patch.setattr(Writes, "lead", leads)


def reads_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    """A replica that is behind answers at once."""
    patch.setattr(V2Tree, "read", lambda self, link, rid, body: self._answer(link, rid, body))


def nothing_ends(patch: pytest.MonkeyPatch) -> None:
    """No leader looks whose time is over."""
    patch.setattr(V2Tree, "look", V2Tree._release)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mutant", [nobody_looks_back_again, a_leader_keeps_its_tree, reads_do_not_wait, nothing_ends]
)
def test_what_is_left_out_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    for seed in range(25):
        try:
            run(seed, plan_for(seed, 1 + seed % 2))
        except AssertionError as e:
            if "v2: " not in str(e):
                raise
            return
    pytest.fail("nobody noticed")
