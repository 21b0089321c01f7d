"""A leader's disk hangs: no sync ends, and the heartbeats go on. Another host leads, and no lease ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.raft import Raft
from cluster.settings import NodeSettings
from tests.sim.clients.order_clients import Operation
from tests.sim.mutants.mutant import Patch, plan
from tests.sim.world.order_host import ELECTION_MS
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(3, soak=20)
FAULTS = (
    "hung disk", "hung disk", "hung disk", "transfer", "kill leader", "restart", "isolate", "heal", "heal")
BEGINS_AT, ENDS_AT, END = 2.0, 9.0, 11.0
# a timeout until the leader notices, another one where its heir's disk hangs too, and an election
SOON = BEGINS_AT + 5 * ELECTION_MS / 1000
LEASE, TTL = 4242, 4


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_disks_hang_at_any_time(shards: int) -> None:
    hung = 0
    for seed in SEEDS:
        hung += Simulation(seed, plan(shards=shards, faults=FAULTS, seconds=5.0)).run()["hung"]
    assert hung > 5


class Hang:
    """The disk of shard 0's leader hangs. A client of another host renews a lease, others read and write."""

    def __init__(self, seed: int, shards: int, clients: int = 4, reads: int = 3) -> None:
        self.simulation = simulation = Simulation(seed, plan(
            shards=shards, seconds=END, fault_every_s=1e9, faults=("heal",), mix={"put": 4, "range": reads},
            clients=clients, think_s=0.05, repeats=0.0))
        self.host = 0
        self.renewed: list[Operation] = []
        self.led: list[int] = []
        self.at(BEGINS_AT, self.begin)
        self.at(ENDS_AT, lambda: self.led.extend(process.host for process in simulation._leaders(0)))
        self.at(1.2, lambda: self.ask("LeaseGrant", pb.LeaseGrantRequest(ID=LEASE, TTL=TTL)))
        self.at(1.5, lambda: self.ask("Put", pb.PutRequest(key=b"/lock", value=b"me", lease=LEASE)))
        for second in range(2, int(END)):
            self.at(second, lambda: self.renewed.append(
                self.ask("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=LEASE))))

    def at(self, time: float, event: Any) -> None:
        self.simulation.at(time, None, event)

    def ask(self, method: str, request: Any) -> Operation:
        fronts = self.simulation.fronts
        host = next(host for host in sorted(fronts) if host != self.host)
        return self.simulation.clients.ask(fronts[host], method, request)

    def begin(self) -> None:
        self.host = self.simulation._leaders(0)[0].host
        self.simulation.hang_disk(self.host, ENDS_AT - BEGINS_AT)

    def run(self) -> list[Operation]:
        """What was asked of healthy hosts, and answered, while the disk hung."""
        self.simulation.run()
        return [o for o in self.simulation.clients.operations
                if o.ok and o.front != self.host and o.asked_at > SOON and o.answered_at < ENDS_AT]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 3])
def test_another_host_leads_while_a_disk_hangs(shards: int) -> None:
    for seed in range(3):
        run = Hang(seed, shards)
        answered = run.run()
        assert [host for host in run.led if host != run.host], "nobody else leads"
        assert len(answered) > 50
        kept = [o for o in run.renewed if o.asked_at < BEGINS_AT or o.asked_at > SOON]
        assert all(o.ok and o.response.TTL == TTL for o in kept), kept


@pytest.mark.timeout(600)
def test_reads_go_on_whose_front_has_asked_that_leader_all_it_may() -> None:
    """Questions that were confirmed there, and not applied, kept the front from asking the next leader."""
    answered = Hang(0, 1, clients=24, reads=24).run()
    assert sum(o.method == "Range" and o.answered_at < SOON + 2 for o in answered) > 20


class Spread(Simulation):
    def node_settings(self, host: int, shard: int) -> NodeSettings:
        return replace(super().node_settings(host, shard), leader_placement="spread")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0, 3])
def test_transactions_go_on_while_the_disk_of_another_shards_leader_hangs(seed: int) -> None:
    """They sync nothing of its shard's log, so it goes on leading; but its host's node 0 feeds it no more."""
    simulation = Spread(seed, plan(
        shards=2, seconds=ENDS_AT, fault_every_s=1e9, faults=("heal",), mix={"range": 1}, clients=1,
        think_s=1e6, repeats=0.0))
    asked: list[Operation] = []

    def keys() -> Iterator[bytes]:
        for shard in range(2):
            yield next(key for key in simulation.keys if simulation.placement.shard_of(key) == shard)

    def ask(front: int) -> None:
        simulation.at(0.1, None, lambda: ask(front))
        if simulation.now < ENDS_AT and (not asked or asked[-1].answered_at):
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in keys()]
            asked.append(simulation.clients.ask(
                simulation.fronts[front], "Txn", pb.TxnRequest(success=puts)))

    def begin() -> None:
        (first,), (second,) = simulation._leaders(0), simulation._leaders(1)
        assert first.host != second.host
        simulation.hang_disk(second.host, ENDS_AT - BEGINS_AT)
        ask(first.host)

    simulation.at(BEGINS_AT, None, begin)
    simulation.run()
    assert sum(o.ok and o.answered_at < ENDS_AT for o in asked if o.asked_at > SOON) > 20, asked


def with_slow_disks(seed: int) -> int:
    """From some time on each sync of any host takes longer than an election timeout: the answers then."""
    simulation = Simulation(seed, plan(
        shards=1, seconds=25.0, fault_every_s=1e9, faults=("heal",), mix={"put": 4, "range": 3}, clients=4,
        think_s=0.05, repeats=0.0))

    def slow() -> None:
        for process in simulation.nodes.values():
            process.node.syncer.takes_s = (0.7, 1.3)  # type: ignore[attr-defined]

    simulation.at(BEGINS_AT, None, slow)
    simulation.run()
    return sum(o.ok for o in simulation.clients.operations if o.asked_at > BEGINS_AT)


@pytest.mark.timeout(600)
def test_a_cluster_whose_disks_are_all_slow_keeps_its_leader() -> None:
    assert min(with_slow_disks(seed) for seed in range(3)) > 40


@pytest.mark.timeout(600)
def test_it_would_lose_its_leaders_by_the_election_timeout_alone(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Raft, "_note_sync", lambda raft: None)
    with pytest.raises(Violation, match="follows no leader"):
        with_slow_disks(0)


@pytest.mark.timeout(600)
def test_a_leader_that_does_not_look_at_its_disk_is_noticed(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Raft, "_look_at_the_disk", lambda raft: False)
    run = Hang(0, 1)
    assert not run.run()
    assert run.led == [run.host]
    assert not all(o.ok and o.response.TTL for o in run.renewed)
