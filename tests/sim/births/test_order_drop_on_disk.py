"""A host removes the files of a dropped shard only once its node 0 has the drop on its disk. Else it would
come back from before the drop after a power cut, and begin the shard's node anew, without its votes (H10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.features.births import ADD, RETIRE
from cluster.pb import shards_pb2
from cluster.placement.table import State
from node.replica.shards.birthing import Born
from node.upkeep.log.flushes import Flushes
from tests.sim.births.order_births import change_shards, told_at_once
from tests.sim.mutants.mutant import Patch, plan
from tests.sim.world.order_sim import Simulation

BORN = 1
BEGINS_AT, LOOK_S, END_S = 2.0, 0.005, 12.0
FLUSH_S = 1.0  # of a node 0's large state
DARK_S = 0.1


class PowerCut(Simulation):
    """A shard is born and retires, and the first host that has removed its files loses its power."""

    def __init__(self, seed: int, patch: Patch, *, serves: bool) -> None:
        """``serves``: it does before it is dropped."""
        super().__init__(seed, plan(
            shards=1, births=True, birth_every_s=1e9, birth_timeout_ms=1000, seconds=END_S, fault_every_s=1e9,
            faults=("heal",), mix={"put": 1}, clients=2, think_s=0.1))
        self._serves = serves
        self._retires = False
        self._removed: set[int] = set()  # hosts that have removed the shard's files
        self.cut = 0  # the host that lost its power
        self.began_anew: set[int] = set()  # hosts
        self._story = self._what_happens()
        begin = Flushes._begin

        def late(flushes: Any) -> None:
            if flushes._node.settings.shard or not self._retires:
                begin(flushes)
            else:
                flushes._running = True
                flushes._loop.call_later(FLUSH_S, lambda: begin(flushes))

        patch.setattr(Flushes, "_begin", late)
        self.at(BEGINS_AT, None, self._look)

    def start_node(self, host: int, shard: int) -> None:
        if shard == BORN and host in self._removed:
            self.began_anew.add(host)
        if shard == BORN and not self._serves:
            self.nodes.pop((host, shard), None)  # its process cannot start
        else:
            super().start_node(host, shard)

    def remove_node(self, host: int, shard: int) -> None:
        super().remove_node(host, shard)
        if shard == BORN:
            self._removed.add(host)

    def _look(self) -> None:
        if not self.calm:
            self.at(LOOK_S, None, self._look)
            next(self._story, None)

    def _what_happens(self) -> Iterator[None]:
        while self._state() is None:
            change_shards(self, ADD, shards_pb2.AddShardRequest().SerializeToString())
            yield
        while not all(self._is_on_disk(host) for host in self.hosts):
            for host in self.hosts:
                self.nodes[host, 0].node.upkeep.flushes.owe()
            yield
        self._retires = True
        while self._serves and self._state() == State.SERVING:
            change_shards(self, RETIRE, shards_pb2.RetireShardRequest(shard=BORN).SerializeToString())
            yield
        while not self._removed:
            yield
        self.cut = min(self._removed)
        for shard in self.shards_of(self.cut):
            self.states[self.cut, shard].applied.clear()  # type: ignore[union-attr]
        self._kill_host(self.cut, front=True, unsynced=False)
        log = self.logs[self.cut, 0]  # its note of what was committed is lost, too
        log.notes, log.had_applied = [(0, 0)], 0
        self.at(DARK_S, None, lambda: self._start_host(self.cut))

    def _is_on_disk(self, host: int) -> bool:
        """The shard, at a host's node 0."""
        table = self.states[host, 0].flushed.table  # type: ignore[union-attr]
        known = None if table is None else table.shards.get(BORN)
        return known is not None and known.state == (State.SERVING if self._serves else State.FORMING)

    def _state(self) -> State | None:
        """As a leader of shard 0 has applied it."""
        for process in self._leaders(0):
            table = process.node.store.placement()
            if table is not None and BORN in table.shards:
                return State(table.shards[BORN].state)
        return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_no_node_of_a_dropped_shard_begins_anew(
    seed: int, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = PowerCut(seed, monkeypatch, serves=serves)
    simulation.run()
    assert simulation.cut
    assert not simulation.began_anew


@pytest.mark.timeout(300)
@pytest.mark.parametrize("serves", [True, False])
def test_else_one_would(serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Born, "_look_at_drops", told_at_once)
    simulation = PowerCut(0, monkeypatch, serves=serves)
    simulation.run()
    assert simulation.began_anew == {simulation.cut}
