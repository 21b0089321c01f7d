"""Transactions that are evaluated ahead of their turn: here every one, on every shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from cluster.evaluate.txns import draft
from cluster.evaluate.txns.draft import Draft
from cluster.order.leading.drafts import ShardDraft
from tests.sim.mutants.order_mutants import plan
from tests.sim.world.order_sim import SOAK, Simulation
from tests.sim.world.order_world import Violation

_BATCH = 4
_BATCHES = 100 if SOAK else 2


@pytest.fixture(autouse=True)
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What came of drafts."""
    found: Counter[str] = Counter()
    outcome = Draft.outcome

    def counted(self: Draft) -> Any:
        result = outcome(self)
        found[f"{type(self).__name__} {'used' if result is not None else 'again'}"] += 1
        return result

    monkeypatch.setattr(draft, "LARGE_OPS", 0)
    monkeypatch.setattr(Draft, "outcome", counted)
    return found


def run(seed: int) -> None:
    mix = {"txn": 20, "put": 8, "delete": 3, "grant": 1, "lease_put": 2, "revoke": 1, "range": 2}
    try:
        Simulation(seed, plan(mix=mix, shards=2 + seed % 2, many=1 if seed % 2 else 256)).run()
    except Violation as e:
        raise Violation(e.rule, f"seed {seed}: {e}") from e


def run_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        run(seed)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_what_is_evaluated_ahead_is_what_its_turn_would_give(batch: int, done: Counter[str]) -> None:
    run_all(range(batch * _BATCH, (batch + 1) * _BATCH))
    assert done["ShardDraft used"] > 10  # it would prove nothing if none was done
    assert done["Draft used"] > 10


@pytest.mark.timeout(600)
def test_unless_what_changed_is_looked_at_in_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardDraft, "_looks_again", lambda self: self._moved)
    with pytest.raises(Violation, match="I22"):
        run_all(range(12))
