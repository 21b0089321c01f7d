"""Transactions over several shards that write and show many rows: here more than one row is many."""

from __future__ import annotations

import pytest

from cluster.order.shown import ShownRows
from tests.sim.world.order_plan import plan_of
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import in_batches


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
@pytest.mark.parametrize("batch", in_batches((2, 6), soak=(3, 24)))
def test_rows_that_are_fetched_afterwards_are_those_of_before(
    batch: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    piece = ShownRows.piece

    def counted(self: ShownRows, *asked: object) -> bytes | None:
        found = piece(self, *asked)  # type: ignore[arg-type]
        pieces.append(found is not None)
        return found

    monkeypatch.setattr(ShownRows, "piece", counted)
    for seed in batch:
        run(seed)
    assert sum(pieces) > 2 * len(batch)  # it would prove nothing if none was fetched
