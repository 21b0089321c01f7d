"""Shard 0's leader gives a new shard up, and is cut off before others hear of it: the next one lets it serve
(G13). Later the first one leads again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.features.births import ADD
from cluster.features.moves import MOVE, Wish
from cluster.pb import rpc_pb2 as pb
from cluster.pb import shards_pb2
from cluster.placement.table import END, State
from node.replica.shards.birthing import Birthing
from tests.sim.births.order_births import change_shards
from tests.sim.clients.order_clients import Operation
from tests.sim.mutants.mutant import Patch, plan
from tests.sim.world.order_sim import Simulation

BORN = 1
BEGINS_AT, LOOK_S, END_S, ANSWERED_S = 2.0, 0.1, 15.0, 2.0


class LostDrop(Simulation):
    def __init__(self, seed: int, patch: Patch) -> None:
        super().__init__(seed, plan(
            shards=1, births=True, birth_every_s=1e9, birth_timeout_ms=1000, seconds=END_S, fault_every_s=1e9,
            faults=("heal",), mix={"put": 1}, clients=1, think_s=1e6, repeats=0.0, patience=1.0))
        self.held_back: list[int] = []  # hosts whose nodes of the new shard are held back
        self.first = 0  # the host that gives the shard up
        self.asked: list[Operation] = []
        self._story = self._what_happens()
        step = Birthing.step

        def watched(birthing: Birthing) -> None:
            step(birthing)
            if birthing._dropped and not self.first:  # before it is sent
                self.first = birthing._role.node.settings.common.member_id
                self.blocked |= {p for h in self.hosts for p in ((self.first, h), (h, self.first))}

        patch.setattr(Birthing, "step", watched)
        self.at(BEGINS_AT, None, self._look)

    def start_node(self, host: int, shard: int) -> None:
        if shard == BORN and not self.first:
            self.held_back.append(host)
        else:
            super().start_node(host, shard)

    def _look(self) -> None:
        if not self.calm:
            self.at(LOOK_S, None, self._look)
            next(self._story, None)

    def _what_happens(self) -> Iterator[None]:
        while not self.first:
            change_shards(self, ADD, shards_pb2.AddShardRequest().SerializeToString())
            yield
        for host in self.held_back:
            super().start_node(host, BORN)
        while not self._serves():
            yield
        self.heal()
        while not self.checker.owners.switched:
            change_shards(self, MOVE, Wish(END, END, BORN).encode())
            yield
        while [process.host for process in self._leaders(0)] != [self.first]:
            self._hand_back()
            yield
        while True:
            key = self.keys[len(self.asked) % len(self.keys)]
            self.asked.append(self.clients.ask(self.fronts[self.first], "Put", pb.PutRequest(key=key)))
            yield

    def _serves(self) -> bool:
        """At another leader."""
        for process in self._leaders(0):
            table = process.node.store.placement()
            known = None if table is None else table.shards.get(BORN)
            if process.host != self.first and known is not None and known.state == State.SERVING:
                return True
        return False

    def _hand_back(self) -> None:
        for process in self._leaders(0):
            process.happens(None, lambda node=process.node: (  # type: ignore[misc]
                node.raft.transfer_leadership(self.first), node.wake()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_a_shard_whose_drop_was_lost_is_heard(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = LostDrop(seed, monkeypatch)
    simulation.run()
    assert len(simulation.asked) > 30
    assert all(o.ok and o.answered_at - o.asked_at < ANSWERED_S for o in simulation.asked)


@pytest.mark.timeout(300)
def test_else_it_would_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Birthing.begin
    monkeypatch.setattr(Birthing, "begin", lambda self: (self._dropped.clear(), begin(self)))
    monkeypatch.setattr(Birthing, "end", lambda self: None)
    simulation = LostDrop(0, monkeypatch)
    simulation.run_faults()
    assert len(simulation.asked) > 30
    assert not any(o.ok for o in simulation.asked)
