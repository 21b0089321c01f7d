"""Raft under every fault the simulator knows: 200 fixed seeds; many others with MUSTER_SOAK=1."""

from __future__ import annotations

import pytest

from tests.sim.raft.raft_sim import Simulation
from tests.sim.world.seeds import in_batches
from tests.soaking import SOAK

_DURATION_MS = 20_000 if SOAK else 6_000


def simulate(batch: range, size: int = 0) -> None:
    for seed in batch:
        try:
            Simulation(seed, duration_ms=_DURATION_MS, size=size).run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}{f' of {size} members' if size else ''}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", in_batches((10, 20), soak=(17, 20)))
def test_no_rule_is_broken_and_the_group_recovers(batch: range) -> None:
    simulate(batch)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", in_batches((1, 5), soak=(2, 20)))
def test_seven_members_recover_as_well(batch: range) -> None:
    simulate(batch, size=7)
