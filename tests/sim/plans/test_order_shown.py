"""Transactions over several shards that write and show many rows: here more than one row is many."""

from __future__ import annotations

import pytest

from cluster.order.shown import ShownRows
from tests.sim.world.order_plan import SOAK, plan_of
from tests.sim.world.order_sim import Simulation

_BATCH = 24 if SOAK else 6  # among hundreds, six in a row may fetch little
_BATCHES = 25 if SOAK else 2


def run(seed: int) -> None:
    plan = plan_of(seed)
    plan.many = 1
    plan.shards = max(2, plan.shards)
    assert plan.mix is not None
    plan.mix |= {"wide": 20, "delete": 6, "compact": 2}
    try:
        Simulation(seed, plan).run()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_rows_that_are_fetched_afterwards_are_those_of_before(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    piece = ShownRows.piece

    def counted(self: ShownRows, *asked: object) -> bytes | None:
        found = piece(self, *asked)  # type: ignore[arg-type]
        pieces.append(found is not None)
        return found

    monkeypatch.setattr(ShownRows, "piece", counted)
    for seed in range(batch * _BATCH, (batch + 1) * _BATCH):
        run(seed)
    assert sum(pieces) > 2 * _BATCH  # it would prove nothing if none was fetched
