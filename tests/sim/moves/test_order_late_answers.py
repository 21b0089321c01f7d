"""A late answer shows the keys that its request saw, where a switch stands behind it at the same revision
(G6)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pb import rpc_pb2 as pb
from node.serving.txns.past import Past
from tests.sim.clients.order_clients import Clients
from tests.sim.moves.order_mutants_moves import moves
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

SEED = 2


def _shows(self: Any) -> tuple[str, Any]:
    """A transaction that writes nothing, as it turns out, and shows a directory or all keys."""
    key = self._key()
    request = pb.TxnRequest(compare=[pb.Compare(key=key, result=0, target=0, version=9999)])
    request.success.add().request_put.CopyFrom(pb.PutRequest(key=key, value=self._value()))
    prefix = key.rpartition(b"/")[0]
    some = prefix and self.random.random() < 0.7
    span = (prefix + b"/", prefix + b"0") if some else (b"\0", b"\0")
    request.failure.add().request_range.CopyFrom(pb.RangeRequest(key=span[0], range_end=span[1]))
    return "Txn", request


def run(patch: pytest.MonkeyPatch) -> None:
    """Followers' syncs are slow: much of the order is applied together."""
    patch.setattr(Clients, "_transfer", _shows)
    simulation = Simulation(SEED, moves(
        shards=2, mix={"put": 3, "transfer": 20, "compact": 1}, many=1, clients=8, think_s=0.004, seconds=4.0,
        cancels=0.0, faults=("slow disk", "slow disk", "heal"), fault_every_s=0.3))
    simulation.run()
    assert simulation.checker.owners.switched


@pytest.mark.timeout(300)
def test_g6_a_late_answer_shows_what_its_request_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)


@pytest.mark.timeout(300)
def test_g6_else_it_would_lack_what_a_switch_behind_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "shown", lambda self: None)
    with pytest.raises(Violation, match="I22"):
        run(monkeypatch)
