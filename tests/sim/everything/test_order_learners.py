"""A learner that nobody promotes, while keys move to and fro: what has left goes at its host, too (G10)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from cluster.members.table import Host
from cluster.pb import rpc_pb2 as pb
from cluster.placement.table import Move
from cluster.wire.messages import MEMBER_ADD
from node.replica.moving.copying import Copying
from node.replica.moving.leaving import Leaving
from tests.sim.everything.order_everything import Everything, Operator, plan_for
from tests.sim.world.order_world import Violation

SEEDS, HOSTS = range(20, 22), 3


class AddsALearner(Operator):
    """It has no other wish."""

    def _wish(self, members: list[Host]) -> None:
        if len(members) == HOSTS:
            self._simulation.urls += 1
            url = f"http://n{self._simulation.urls}:1000"
            self._ask(MEMBER_ADD, 0, pb.MemberAddRequest(peerURLs=[url], isLearner=True))


class Learns(Everything):
    """Nothing goes wrong. Compactions let sources drop what has left them, and much comes back."""

    def __init__(self, seed: int) -> None:
        plan = plan_for(seed, 2, moves=True)
        super().__init__(seed, replace(
            plan, hosts=HOSTS, seconds=8.0, fault_every_s=1e9, faults=("heal",), member_chance=0.5,
            move_every_s=0.05, mix={**plan.mix, "compact": 5}))

    def _operator(self) -> Operator:
        return AddsALearner(self)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(600)
def test_a_learners_host_drops_what_has_left_it(seed: int) -> None:
    simulation = Learns(seed)
    simulation.run()
    assert simulation.did["joined"] == 1
    assert len(simulation.checker.owners.switched) > HOSTS


@pytest.mark.timeout(600)
def test_else_what_comes_back_would_wait_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """G11. A peer's state, asked for once the order has waited for long, would be another way on."""

    def voters(self: Leaving) -> Collection[int]:
        return set(self._voters())

    def nothing(self: Copying, move: Move) -> None:
        pass

    monkeypatch.setattr(Leaving, "_asked", voters)
    monkeypatch.setattr(Copying, "_miss_state", nothing)
    with pytest.raises(Violation, match=r"liveness: G15"):
        Learns(SEEDS[0]).run()
