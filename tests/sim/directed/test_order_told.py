"""What waits at a shard's leader goes on once the leader has heard of all that is applied: before, its store
shows revisions that are pending, and a compare with one of them would be decided wrongly (D6)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.order.following.placing import Placed
from cluster.order.leading.shard_leader import ShardLeader
from node.replica.shards.shard_role import ShardRole
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_sim import Simulation

SEED = 4
MIX = {"put": 8, "txn": 12, "transfer": 8}


class Evaluated:
    """Of one run: counts requests that a leader evaluates after a wait."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.all = 0
        self.early = 0  # while what its store shows is pending
        evaluate, seen = ShardLeader._evaluate, self

        def counted(
            self: Any, token: Any, method: int, body: bytes, queued: Any, looked: Any = None, who: Any = None
        ) -> None:
            if queued is not None:
                pending = self._sealed.entries
                seen.all += 1
                seen.early += bool(pending) and pending[0].index <= self._store.position.shard_index
            evaluate(self, token, method, body, queued, looked, who)

        patch.setattr(ShardLeader, "_evaluate", counted)


def run(seed: int, patch: pytest.MonkeyPatch) -> Evaluated:
    with patch.context() as own:
        evaluated = Evaluated(own)
        Simulation(seed, plan(mix=MIX, clients=12, busy_s=0.02, think_s=0.001, fault_every_s=9.0)).run()
    return evaluated


def test_d6_what_waits_goes_on_once_all_that_is_applied_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = run(SEED, monkeypatch)
    assert evaluated.all > 0
    assert evaluated.early == 0


def test_d6_else_its_store_would_show_what_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = ShardRole._tell

    def locks_end_first(self: ShardRole, placed: Placed) -> None:
        if self.leading is not None and self.leading.serving:
            self.leading.applied_records(placed.records)
            placed.records = []
        tell(self, placed)

    monkeypatch.setattr(ShardRole, "_tell", locks_end_first)
    assert run(SEED, monkeypatch).early > 0
