"""Deletes of ranges that are logged as spans and applied in slices (D8): every delete of more than one key is
one here."""

from __future__ import annotations

import pytest

from tests.sim.world.order_sim import SOAK, Simulation, plan_of

_BATCH = 4
_BATCHES = 100 if SOAK else 3


def run(seed: int) -> dict[str, int]:
    plan = plan_of(seed)
    plan.many = 1
    assert plan.mix is not None
    plan.mix |= {"delete": 8, "txn": 8, "put": 20}
    try:
        return Simulation(seed, plan).run()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_deletes_logged_as_spans_are_what_deletes_of_their_keys_would_be(batch: int) -> None:
    done = [run(seed) for seed in range(batch * _BATCH, (batch + 1) * _BATCH)]
    assert sum(d["spans"] for d in done) > 5  # it would prove nothing if none was logged
