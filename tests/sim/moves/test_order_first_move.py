"""A front knows of the first switch before the target's leader does: what it sends is not that leader's yet
(G7)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from cluster.evaluate.spans import holds
from cluster.features.moves import Wish
from cluster.leader_placement import SPREAD
from cluster.order.leading.own_keys import OwnKeys
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.moving.switch import Switch
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.table import Move
from cluster.settings import NodeSettings
from tests.sim.moves.order_moving import Moves
from tests.sim.moves.order_mutants_moves import moves
from tests.sim.world.order_host import FrontProcess
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

SEEDS = range(5, 8)
ASKED_S = (0.02, 0.05, 0.1)  # after it is logged
TARGET = 1
BEHIND_S = 0.25  # less than an election's time-out
WRITES = {"put": 8, "delete": 4, "txn": 4, "range": 2}


class Behind:
    """Of one run: where the target's leader is, node 0 stands still from the first switch on, as soon as that
    is logged. So the leader has no word of it, and others have."""

    def __init__(self, patch: pytest.MonkeyPatch, simulation: Simulation) -> None:
        self._simulation = simulation
        self._move: Move | None = None
        self.early = 0  # writes of what moves, that came to the leader before it had applied the switch
        item, submit = Switch.item, ShardLeader.submit

        def logged(switch: Switch, *given: Any) -> bytes | None:
            found = item(switch, *given)
            if found is not None and self._move is None:
                self._stop(switch.move)
            return found

        def counted(leading: Any, token: Any, method: int, body: bytes) -> None:
            self._count(leading, method, body)
            submit(leading, token, method, body)

        somewhere = Moves._somewhere

        def chosen(moves: Moves) -> bytes:
            return somewhere(moves) if self._move is not None else self._directory()

        patch.setattr(Moves, "_somewhere", chosen)
        patch.setattr(Switch, "item", logged)
        patch.setattr(ShardLeader, "submit", counted)

    def _directory(self) -> bytes:
        """One that is not the target's."""
        keys, shard_of = self._simulation.keys, self._simulation.placement.shard_of
        start = next(key[:-1] for key in keys if key.startswith(b"/") and shard_of(key) != TARGET)
        return Wish(start, start[:-1] + b"0", TARGET).encode()

    def _stop(self, move: Move) -> None:
        simulation = self._simulation
        self._move = move
        for leader in simulation._leaders(move.target):
            simulation._pause(simulation.nodes[leader.host, 0], BEHIND_S)
            for host, front in sorted(simulation.fronts.items()):
                if host != leader.host:
                    for later_s in ASKED_S:
                        simulation.at(later_s, None, partial(self._ask, front, move))

    def _ask(self, front: FrontProcess, move: Move) -> None:
        """Writes of what moves, at a front that may know of the switch."""
        clients = self._simulation.clients
        for key in self._simulation.keys:
            if holds((move.start, move.end), key):
                clients.ask(front, "Put", pb.PutRequest(key=key, value=clients._value()))

    def _count(self, leading: Any, method: int, body: bytes) -> None:
        if self._move is not None and leading.shard == self._move.target:
            table: Table = leading._store.placement()
            self.early += table.move == self._move and OwnKeys(leading.shard, table).lacks(method, body)


class Spread(Simulation):
    """No host leads two shards."""

    def node_settings(self, host: int, shard: int) -> NodeSettings:
        return replace(super().node_settings(host, shard), leader_placement=SPREAD)


def run(seed: int, patch: pytest.MonkeyPatch) -> int:
    """How many writes came too early."""
    with patch.context() as own:
        simulation = Spread(seed, moves(
            mix=WRITES, targets=(1, 2), cancels=0.0, clients=4, seconds=2.7, repeats=0.0,
            fault_every_s=1e9, faults=("heal",)))
        behind = Behind(own, simulation)
        simulation.run()
    return behind.early


def run_all(patch: pytest.MonkeyPatch) -> int:
    return sum(run(seed, patch) for seed in SEEDS)


@pytest.mark.timeout(300)
def test_g7_a_target_takes_nothing_of_the_first_move_before_it_has_applied_the_switch(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_all(monkeypatch) > 0


@pytest.mark.timeout(300)
def test_g7_else_it_would_write_over_rows_that_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "settled", property(lambda table: not table.moved))
    with pytest.raises(Violation, match="I22"):
        run_all(monkeypatch)
