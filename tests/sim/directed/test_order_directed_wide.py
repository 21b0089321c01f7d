"""Transactions over several shards, one of which is gone for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import node.links.fronts
from cluster.order.sequencing import coordinator, fates
from cluster.order.sequencing.coordinator import Coordinator
from tests.sim.mutants.mutant import WIDE, plan
from tests.sim.mutants.order_mutants import locks_are_let_go_at_once
from tests.sim.world.order_plan import HOSTS
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

GONE_AT, BACK_AT = 1.0, 18.0  # three times as long as a front waits
CLIENTS = 6


def the_role(simulation: Simulation, shard: int) -> Any:
    """Of the node that leads a shard; there is just one."""
    (process,) = simulation._leaders(shard)
    return process.node.role


def just_before_it_comes_back(
    simulation: Simulation, shard: int, look: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Run without the nodes of a shard for long; what ``look`` finds before they are started again."""
    found = []

    def gone() -> None:
        for host in HOSTS:
            simulation.kill(simulation.nodes[host, shard])

    def back() -> None:
        found.append(look())
        for host in HOSTS:
            simulation.start_node(host, shard)

    simulation.at(GONE_AT, None, gone)
    simulation.at(BACK_AT, None, back)
    simulation.run()
    (only,) = found
    return only


def waiting_when_the_shard_comes_back(seed: int) -> int:
    """How many transactions wait at the sequencer for a shard that was gone for long: its clients ask one by
    one, and wait until each has timed out."""
    simulation = Simulation(
        seed,
        plan(
            seconds=BACK_AT + 1,
            fault_every_s=1e9,
            faults=("heal",),
            mix={"wide": 1},
            patience=1.0,
            clients=CLIENTS,
        ),
    )
    found = just_before_it_comes_back(simulation, 1, lambda: the_role(simulation, 0).coordinator.statistics())
    return int(found["queued"] + found["running"])


def test_what_has_timed_out_is_not_done_when_its_shard_comes_back() -> None:  # review (b), Multi; I23
    assert 0 < waiting_when_the_shard_comes_back(1) <= CLIENTS


def test_without_looking_at_deadlines_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "_over", lambda self, wide, now_ms: False)
    assert waiting_when_the_shard_comes_back(1) > CLIENTS


def locks_are_asked_about_at_once(patch: pytest.MonkeyPatch) -> None:
    """And the sequencer keeps no fate for long."""
    fate = Coordinator.fate
    locks_are_let_go_at_once(patch)
    patch.setattr(Coordinator, "fate", fate)
    patch.setattr(fates, "_KEPT", 0)


def puts_waiting_when_the_sequencer_comes_back(seed: int) -> int:
    """As above: puts at the leader of a healthy shard, whose last entry waits for its place in the order."""
    simulation = Simulation(
        seed,
        plan(
            seconds=BACK_AT + 1,
            fault_every_s=1e9,
            faults=("heal",),
            mix={"put": 1},
            patience=1.0,
            clients=CLIENTS,
            lone_after=1 << 30,
        ),
    )

    def gather() -> None:
        for host in HOSTS:
            # what comes gathers while an entry is under way
            simulation.nodes[host, 1].node.pace.full_requests = 256

    simulation.at(GONE_AT, None, gather)
    found = just_before_it_comes_back(simulation, 0, lambda: the_role(simulation, 1).leading.statistics())
    return int(found["queued"] + found["locks"])


def test_a_put_that_has_timed_out_in_the_queue_is_not_done() -> None:  # I23
    assert puts_waiting_when_the_sequencer_comes_back(2) <= CLIENTS


def test_without_looking_for_what_is_overdue_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.links.fronts.FrontLink, "awaits", lambda self, rid: self.alive)
    assert puts_waiting_when_the_sequencer_comes_back(2) > CLIENTS


def run_all(seeds: int) -> None:
    for seed in range(seeds):
        Simulation(seed, plan(mix=WIDE)).run()


@pytest.mark.parametrize("seed", range(3))
# I11
def test_a_lock_whose_fate_is_not_kept_ends_by_its_multi(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    locks_are_asked_about_at_once(monkeypatch)
    Simulation(seed, plan(mix=WIDE)).run()


def test_if_it_was_none_the_lock_would_end_before(monkeypatch: pytest.MonkeyPatch) -> None:
    locks_are_asked_about_at_once(monkeypatch)
    monkeypatch.setattr(fates.Fates, "of", lambda self, attempt: self.appended.get(attempt, 0))
    with pytest.raises(Violation, match=r"I11|I9|I15|I22"):
        run_all(10)


@pytest.mark.parametrize("seed", range(3))
# D9
def test_each_waits_for_the_next_record_where_one_fills_a_record(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "MAX_ENTRY_BYTES", 1)
    Simulation(seed, plan(mix=WIDE)).run()
