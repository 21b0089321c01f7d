"""Raft under every fault the simulator knows: 200 fixed seeds, and many more with MUSTER_SOAK=1."""

from __future__ import annotations

import os

import pytest

from tests.sim.raft.raft_sim import Simulation

_SOAK = os.environ.get("MUSTER_SOAK") == "1"
_BATCH = 20
_BATCHES = 150 if _SOAK else 10
_DURATION_MS = 20_000 if _SOAK else 6_000


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_no_rule_is_broken_and_the_group_recovers(batch: int) -> None:
    for seed in range(batch * _BATCH, (batch + 1) * _BATCH):
        try:
            Simulation(seed, duration_ms=_DURATION_MS).run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
