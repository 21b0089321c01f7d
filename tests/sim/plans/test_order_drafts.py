"""Transactions that are evaluated ahead of their turn: here every one, on every shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from cluster.evaluate.steps import Steps, finish
from cluster.evaluate.txns import draft
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.view import Outcome
from cluster.order.leading import attempts
from cluster.order.leading.attempts import Attempts, Reading
from cluster.order.leading.drafts import ShardDraft
from cluster.order.sequencing.drafts import WideDraft
from cluster.order.sequencing.evaluator import Evaluator
from cluster.order.sequencing.granted import rows_in_steps
from cluster.order.sequencing.parts import parts_of
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import in_batches

_FOR_OTHERS = 20  # steps
_BATCHES = in_batches((2, 4), soak=(10, 4))


@pytest.fixture(autouse=True)
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What came of drafts."""
    found: Counter[str] = Counter()
    outcome = Draft.outcome

    def counted(self: Draft) -> Any:
        result = outcome(self)
        found[f"{type(self).__name__} {'used' if result is not None else 'again'}"] += 1
        return result

    def read(self: Reading) -> Steps[None]:
        yield from steps(self)
        yield
        found["Reading"] += 1

    steps = Reading.steps
    monkeypatch.setattr(draft, "LARGE_OPS", 0)
    monkeypatch.setattr(attempts, "_STEPS_AT_ONCE", 0)
    monkeypatch.setattr(Draft, "outcome", counted)
    monkeypatch.setattr(Reading, "steps", read)
    return found


MIX = {"txn": 20, "put": 8, "delete": 3, "grant": 1, "lease_put": 2, "revoke": 1, "range": 2}
WIDE = {"wide": 12, "transfer": 12, "put": 10, "delete": 2, "grant": 1, "lease_put": 2, "revoke": 1,
        "range": 2}


def run(seed: int, mix: dict[str, int] | None = None) -> None:
    try:
        Simulation(seed, plan(mix=mix or MIX, shards=2 + seed % 2, many=1 if seed % 2 else 256)).run()
    except Violation as e:
        raise Violation(e.rule, f"seed {seed}: {e}") from e


def run_all(seeds: Iterable[int], mix: dict[str, int] | None = None) -> None:
    for seed in seeds:
        run(seed, mix)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", _BATCHES)
def test_what_is_evaluated_ahead_is_what_its_turn_would_give(batch: range, done: Counter[str]) -> None:
    run_all(batch)
    assert done["ShardDraft used"] > 10  # it would prove nothing if none was done
    assert done["Draft used"] > 10


@pytest.mark.timeout(600)
def test_unless_what_changed_is_looked_at_in_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardDraft, "_looks_again", lambda self: self._moved)
    with pytest.raises(Violation, match="I22"):
        run_all(range(12))


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several shards, with time for others in between."""
    steps = WideDraft.steps

    def and_others(self: WideDraft) -> Steps[None]:
        yield from steps(self)
        for _ in range(_FOR_OTHERS):
            yield

    monkeypatch.setattr(WideDraft, "steps", and_others)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("batch", _BATCHES)
def test_what_is_evaluated_ahead_over_several_shards_is_what_its_turn_would_give(
    batch: range, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    txn = Evaluator._txn

    def both(self: Any, view: Any, wide: Any) -> Outcome:
        outcome = txn(self, view, wide)
        ahead, wide.draft = wide.draft, None
        expected = txn(self, view, wide) if ahead is not None and ahead.fit else outcome
        wide.draft = ahead
        for name in ("items", "changed", "revision"):
            assert getattr(outcome, name) == getattr(expected, name), name
        own, others = ([(key, version) for key, version in of.writes if self._placement.shard_of(key) == 0]
                       for of in (outcome, expected))
        assert own == others  # nothing else is kept of them here
        if isinstance(ahead, WideDraft) and ahead.fit:
            done["of ranges"] += not wide.footprint.single
            assert ahead.parts == parts_of(view, self._placement, 0, expected.items)
        assert list(outcome.ranges) == list(expected.ranges)
        return outcome

    monkeypatch.setattr(Evaluator, "_txn", both)
    run_all(batch, WIDE)
    assert done["WideDraft used"] > 10
    assert done["WideDraft again"]
    assert done["Reading"] > 10
    assert done["of ranges"] > 10


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("slowly")
def test_unless_what_changed_in_shard_0_is_looked_at_in_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WideDraft, "_looks_again", lambda self: self._moved)
    with pytest.raises(Violation, match="I22"):
        run_all(range(12), WIDE)


@pytest.mark.timeout(600)
def test_unless_the_rows_that_a_grant_shows_are_read_under_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Attempts.prepare

    def reads_at_once(self: Any, token: Any, asked: Any, *rest: Any) -> bool:
        rows = finish(rows_in_steps(self._store, asked))
        locks = prepare(self, token, asked, *rest)
        held = self._table.find(asked.attempt)
        if held is not None and held.payload.answer is None:
            held.payload.rows = rows
        return locks

    monkeypatch.setattr(Attempts, "prepare", reads_at_once)
    with pytest.raises(Violation):
        run_all(range(12), WIDE)
