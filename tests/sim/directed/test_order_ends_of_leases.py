"""A shard has no majority for long, while leases come due one after the other: none can end, since keys of
each may be in any shard. Transactions over the other shards go on."""

from __future__ import annotations

import pytest

from cluster.order.sequencing import coordinator
from cluster.pb import rpc_pb2 as pb
from tests.sim.clients.order_clients import Operation
from tests.sim.mutants.mutant import Patch, plan
from tests.sim.world.order_sim import Simulation

CUT_AT, ASKED_AT, HEALED_AT = 2.5, 7.0, 9.0
LEASES = 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_leases_that_cannot_end_leave_room_for_transactions(seed: int, monkeypatch: Patch) -> None:
    """Each heartbeat that found a lease due queued another end. After 10,000, a quarter of an hour, the
    sequencer refused all transactions over several shards, and all revokes."""
    monkeypatch.setattr(coordinator, "MAX_WAITING", LEASES // 2)
    simulation = Simulation(seed, plan(
        shards=3, seconds=HEALED_AT, fault_every_s=1e9, faults=("heal",), mix={"range": 1}, clients=1,
        think_s=1e6, repeats=0.0))
    granted: list[Operation] = []
    asked: list[Operation] = []

    def front() -> int:
        return simulation.fronts[1]

    def grant(lease: int) -> None:
        granted.append(simulation.clients.ask(
            front(), "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=2)))

    def cut() -> None:
        for process in list(simulation.nodes.values()):
            if process.shard == 1 and process.host != 1:
                simulation.kill(process)

    def ask() -> None:
        (leader,) = simulation._leaders(0)
        assert len(leader.node.lessor) == LEASES
        keys = [next(key for key in simulation.keys if simulation.placement.shard_of(key) == shard)
                for shard in (0, 2)]
        asked.append(simulation.clients.ask(front(), "Txn", pb.TxnRequest(success=[
            pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in keys])))

    for at in range(LEASES):
        simulation.at(1.0 + at * 0.06, None, lambda lease=4000 + at: grant(lease))
    simulation.at(CUT_AT, None, cut)
    simulation.at(ASKED_AT, None, ask)
    simulation.run()
    assert sum(o.ok for o in granted) == LEASES
    (o,) = asked
    assert o.ok, o
    assert o.answered_at < ASKED_AT + 1
    assert not any(len(process.node.lessor) for process in simulation.nodes.values() if not process.shard)
