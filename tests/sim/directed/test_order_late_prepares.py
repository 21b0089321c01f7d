"""Prepares come late to hosts that lead again: no attempt is locked that has ended before their term (H5).

Such a lock would end only once the shard asks about it, after ten heartbeats, and its keys would wait.
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.order.leading.attempts import Attempts
from cluster.order.log import Attempt
from cluster.order.sequencing.coordinator import Coordinator
from tests.sim.mutants.mutant import WIDE, plan
from tests.sim.world.order_sim import Simulation

SEEDS = range(2, 5)


class Late:
    """Of one run: counts locks that a leader gives to attempts whose multis its state held when it began."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.locked = 0
        self.refused = 0  # prepares that were answered so
        self._multis: dict[Attempt, int] = {}
        logged, prepare, made, late = Coordinator.logged, Attempts.prepare, Attempts.__init__, self

        def noted(self: Any, index: int) -> None:
            late._multis.update(dict.fromkeys(self._fates.appending, index))
            logged(self, index)

        def begun(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            self.began_at = self.order_index

        def counted(self: Any, token: Any, wanted: Any, *how: Any) -> bool:
            before = self._table.find(wanted.attempt), len(self._answers)
            locks = prepare(self, token, wanted, *how)
            over = late._multis.get(wanted.attempt, self.began_at + 1) <= self.began_at
            if before[0] is None and over:
                late.locked += self._table.find(wanted.attempt) is not None
                late.refused += len(self._answers) > before[1]
            return locks

        patch.setattr(Coordinator, "logged", noted)
        patch.setattr(Attempts, "__init__", begun)
        patch.setattr(Attempts, "prepare", counted)


def run(seed: int, patch: pytest.MonkeyPatch) -> Late:
    with patch.context() as own:
        late = Late(own)
        wide = plan(shards=3, repeats=0.5, mix=WIDE, faults=("transfer",), fault_every_s=0.1)
        Simulation(seed, wide).run()
    return late


@pytest.mark.timeout(300)
def test_h5_what_has_ended_before_a_leaders_term_is_not_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(seed, monkeypatch) for seed in SEEDS]
    assert sum(late.refused for late in runs) > 0
    assert sum(late.locked for late in runs) == 0


@pytest.mark.timeout(300)
def test_h5_else_a_late_prepare_would_lock_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attempts, "_may_have_ended", lambda self, prepare: False)
    assert any(run(seed, monkeypatch).locked for seed in SEEDS)
