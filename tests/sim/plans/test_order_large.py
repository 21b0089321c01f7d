"""What only large requests do, made everyday, with every kind of trouble: deletes of ranges that are logged
as spans and applied in slices (D8), writes that wait while a leader rests (decision 103), and leases that end
in parts, as those of very long names do."""

from __future__ import annotations

from random import Random

import pytest

from cluster.pacing import resting
from tests.sim.mutants.mutant import LEASES
from tests.sim.world.order_plan import Plan, plan_of
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import in_batches, seconds_for, seeds

_SEEDS = seeds(4, soak=14)
_ENDS = seeds(3, soak=20, first=13)


def run(seed: int) -> dict[str, int]:
    """Every delete of more than one key is logged as spans: for their number, or for their bytes."""
    plan = plan_of(seed)
    if seed % 2:
        plan.many = 1
    else:
        plan.delete_bytes = 0
    assert plan.mix is not None
    plan.mix |= {"delete": 8, "txn": 8, "put": 20}
    try:
        return Simulation(seed, plan).run()
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", in_batches((2, 6), soak=(3, 16)))
def test_deletes_logged_as_spans_are_what_deletes_of_their_keys_would_be(batch: range) -> None:
    done = [run(seed) for seed in batch]
    assert sum(d["spans"] for d in done) > 5  # it would prove nothing if none was logged


# Seeds that failed once, with what was wrong
MENDED = {26112711007: "a rest's timer ended just before the rest by the clock, and began again without end"}


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(_SEEDS))
def test_writes_that_wait_for_a_rest_are_writes_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "LITTLE_BYTES", 0)
    held = answered = 0
    for seed in (*_SEEDS, *MENDED):
        # nearly every write counts as large here, and reads are the others that ask
        simulation = Simulation(
            seed, Plan(shards=1 + seed % 3, large_bytes=8, seconds=2.0, clients=16, think_s=0.005))
        answered += simulation.run()["answers"]
        held += sum(process.node.large.held for process in simulation.nodes.values())
    assert held > 30  # of the nodes that lived to the end
    assert answered > held


def lease_ends(seed: int) -> Plan:
    """A few bytes are more than goes at once. By seed with one shard, with moves between several, or without,
    and with IDs that are granted again and again."""
    r = Random(f"ends {seed}")
    plan = plan_of(seed)
    plan.mix = {**LEASES, "lease_put": 14}
    plan.lease_end_bytes = r.choice((12, 12, 20))
    plan.lease_ids = r.choice((0, 3))
    plan.clients, plan.think_s = 12, 0.01
    plan.shards = 1 if seed % 3 == 0 else max(plan.shards, 2)
    plan.moves = seed % 3 == 1
    return plan


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(_ENDS))
def test_leases_that_end_in_parts_end_as_if_they_ended_at_once() -> None:
    parts = sum(Simulation(seed, lease_ends(seed)).run()["parts"] for seed in _ENDS)
    assert parts >= len(_ENDS)  # it would prove nothing if none was logged
