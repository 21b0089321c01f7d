"""Shards are born and retired while everything else goes on and goes wrong (growth.md, section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.placement.table import State
from node.replica import server
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_plan import FAULTS, HARD_FAULTS, MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import failed_once, seconds_for, seeds

SEEDS = seeds(3, soak=17, first=13)  # much is born in these three
COMPACTED = {**MIX, "compact": 4, "watch": 2}
# those with many faults are long: no shard is born before every host has said which level of data it knows
PLANS: dict[str, dict[str, Any]] = {
    "births": {"shards": 2},
    "births_lone": {"shards": 1, "mix": COMPACTED},
    "births_members": {"shards": 2, "members": True, "member_chance": 0.03, "fault_every_s": 0.8,
                       "faults": ("kill node", "restart", "restart"), "seconds": 16.0},
    "births_faults": {"shards": 2, "faults": FAULTS, "fault_every_s": 0.8, "snapshot_count": 60,
                      "repeats": 0.3, "loses_genesis": 0.1, "birth_timeout_ms": 1000, "seconds": 16.0},
    "births_hard": {"shards": 1, "faults": HARD_FAULTS, "fault_every_s": 0.8, "snapshot_count": 40,
                    "dies": 0.1, "birth_timeout_ms": 1000, "mix": COMPACTED, "seconds": 20.0},
    "births_real": {"shards": 2, "real": True, "snapshot_count": 60, "loses_genesis": 0.1,
                    "faults": FAULTS, "fault_every_s": 0.8},
}


def births(**given: Any) -> Plan:
    """Shards come and go all the time."""
    return plan(**{
        "births": True, "seconds": 8.0, "clients": 4, "think_s": 0.02, "fault_every_s": 1.0, "mix": MIX,
        **given})


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("name", PLANS)
def test_shards_come_and_go_while_all_else_goes_on(name: str) -> None:
    born = dropped = 0
    for seed in SEEDS:
        simulation = Simulation(seed, births(**PLANS[name]))
        simulation.run()
        states = list(simulation.checker.owners.born.values())
        born += len(states)
        dropped += states.count(State.DROPPED)
    assert born > len(SEEDS)  # it would prove nothing if none were born
    assert dropped


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "seed"), failed_once({
    ("births_faults", 13): "G12: all three hosts lost their genesis, and a node without a state led",
    ("births_real", 106): "the checker's: a host that was behind removed files of a shard, others its rows",
    ("births_hard", 13): "a leader reported to a host that had led and lost its disks",
}, beside=[(name, 13) for name in PLANS]))
def test_faults_that_were_found(name: str, seed: int) -> None:
    Simulation(seed, births(**PLANS[name])).run()


@pytest.mark.timeout(600)
def test_a_node_without_a_state_that_leads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """G12: its shard serves, and gets no records for ever."""
    start = server.start_raft

    def campaigns(*given: Any) -> Any:
        raft = start(*given)
        raft.may_campaign = lambda: True
        return raft

    lost = births(shards=2, loses_genesis=1.0, birth_timeout_ms=1000, snapshot_count=60, mix=COMPACTED,
                  faults=("kill node", "restart"), seconds=4.0, rest_s=10.0)
    Simulation(0, lost).run()
    monkeypatch.setattr(server, "start_raft", campaigns)
    with pytest.raises(Violation, match="not every node has grown"):
        Simulation(0, lost).run()
