"""What has moved away goes only once the target's replicas have it on their disks (G10)."""

from __future__ import annotations

from functools import partial

import pytest

from node.replica.moving.leaving import Leaving
from tests.sim.checks.order_owners import Switched
from tests.sim.moves.order_mutants_moves import calm
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
