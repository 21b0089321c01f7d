"""Leaders rest between writes (decision 103), with every kind of trouble: what waits there is never lost,
done twice or answered wrongly."""

from __future__ import annotations

import pytest

from cluster.pacing import resting
from tests.sim.world.order_sim import SOAK, Plan, Simulation


@pytest.mark.timeout(600)
def test_writes_that_wait_for_a_rest_are_writes_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "LITTLE_BYTES", 0)
    held = answered = 0
    for seed in range(100 if SOAK else 4):
        # nearly every write counts as large here, and reads are the others that ask
        simulation = Simulation(
            seed, Plan(shards=1 + seed % 3, large_bytes=8, seconds=2.0, clients=16, think_s=0.005))
        answered += simulation.run()["answers"]
        held += sum(process.node.large.held for process in simulation.nodes.values())
    assert held > 30  # of the nodes that lived to the end
    assert answered > held
