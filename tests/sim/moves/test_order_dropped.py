"""What has moved away goes only once the target's replicas have it on their disks, and so does a retired
shard that it has left (G10)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cluster.placement.table import State
from node.replica.moving.leaving import Leaving
from node.replica.shards.birthing import Birthing, Born
from node.upkeep.log.flushes import Flushes
from tests.sim.births.order_births import told_at_once
from tests.sim.checks.order_owners import Switched
from tests.sim.moves.order_mutants_moves import COMPACTED, calm
from tests.sim.moves.test_order_grow_born import born
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

SEEDS = range(2)
LOOK_S, RESTART_S = 0.005, 0.1


class Loss:
    """Of one run: as soon as no source has a move's rows any more, on any disk, all replicas of the target
    die with what they have not flushed."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.came = False
        self._later()

    def _later(self) -> None:
        self._simulation.at(LOOK_S, None, self._look)

    def _look(self) -> None:
        switched = self._simulation.checker.owners.switched
        gone = next(filter(self._is_gone, switched), None)
        if gone is None:
            self._later()
        else:
            self._lose(gone)

    def _is_gone(self, switch: Switched) -> bool:
        for source in switch.move.sources:
            for host in self._simulation.hosts:
                store = self._simulation.nodes[host, source].node.store
                if store.position.order_index < switch.order_index or switch.move.number in store.left:
                    return False
        return True

    def _lose(self, switch: Switched) -> None:
        simulation, target = self._simulation, switch.move.target
        self.came = True
        for host in simulation.hosts:
            for source in switch.move.sources:
                node = simulation.nodes[host, source]
                node.happens(None, node.node.store.flush)
            simulation.states[host, target].applied.clear()  # type: ignore[union-attr]
            simulation.kill(simulation.nodes[host, target])
            simulation.at(RESTART_S, None, partial(simulation.start_node, host, target))


def run(seed: int) -> bool:
    """Whether it came to that."""
    mix = {"put": 8, "compact": 12, "range": 4}
    simulation = Simulation(seed, calm(mix=mix, move_every_s=0.5, seconds=6.0))
    loss: list[Loss] = []
    simulation.at(1.0, None, lambda: loss.append(Loss(simulation)))
    simulation.run()
    return loss[0].came


@pytest.mark.timeout(300)
def test_a_source_that_dropped_is_not_needed_any_more() -> None:
    assert all(run(seed) for seed in SEEDS)


@pytest.mark.timeout(300)
def test_else_nobody_would_have_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaving, "_is_safe", lambda self, target, order_index: True)
    with pytest.raises(Violation, match=r"liveness|I23"):
        run(SEEDS[0])


FLUSH_S = 2.0  # of a node 0's large state


class PowerLoss:
    """Of one run with one shard, and another that comes and goes: once no host has a node of a dropped shard
    any more, all hosts lose their power, and what is not flushed."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.came = False
        self._look()

    def _look(self) -> None:
        simulation, owners = self._simulation, self._simulation.checker.owners
        had = {switch.move.target for switch in owners.switched} & owners.born.keys()
        if any(owners.born[shard] == State.DROPPED and self._is_gone(shard) for shard in had):
            self.came = True
            simulation.checker.leases.trouble()
            for host in simulation.hosts:
                for shard in simulation.shards_of(host):
                    simulation.states[host, shard].applied.clear()  # type: ignore[union-attr]
                simulation._kill_host(host, front=True, unsynced=False)
            simulation.at(RESTART_S, None, simulation._restart)
        elif not simulation.calm:
            simulation.at(LOOK_S, None, self._look)

    def _is_gone(self, shard: int) -> bool:
        return all(
            (host, shard) not in self._simulation.nodes
            and self._simulation.nodes[host, 0].node.store.placement().shards[shard].state == State.DROPPED
            for host in self._simulation.hosts)


def loses_power(seed: int, patch: pytest.MonkeyPatch) -> bool:
    """Whether it came to that."""
    begin = Flushes._begin

    def late(self: Any) -> None:
        if self._node.settings.shard:
            begin(self)
        else:
            self._running = True
            self._loop.call_later(FLUSH_S, lambda: begin(self))

    patch.setattr(Flushes, "_begin", late)
    simulation = Simulation(seed, born(
        shards=1, most_born=1, drains=0.9, mix=COMPACTED, fault_every_s=1e9, faults=("heal",), seconds=14.0))
    losses: list[PowerLoss] = []
    simulation.at(1.0, None, lambda: losses.append(PowerLoss(simulation)))
    simulation.run()
    return losses[0].came


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [5, 11])
def test_a_dropped_shard_is_not_needed_any_more(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loses_power(seed, monkeypatch)


@pytest.mark.timeout(300)
def test_else_shard_0_would_wait_for_keys_that_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Birthing, "_is_safe", lambda self, shard: True)
    monkeypatch.setattr(Born, "_look_at_drops", told_at_once)  # else the own host has them on its disk
    with pytest.raises(Violation, match=r"liveness|I3|I23"):
        loses_power(5, monkeypatch)
