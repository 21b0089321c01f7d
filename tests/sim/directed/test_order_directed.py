"""Rules whose absence only shows in a schedule made for it."""

from __future__ import annotations

import pytest

import cluster.order.leading.shard_leader
import node.replica.opening
import node.replica.writes
from cluster.order.leading.shard_leader import ShardLeader
from cluster.raft import Raft, Role
from node.replica.shards.handover import HandOver
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_plan import HOSTS
from tests.sim.world.order_sim import Simulation

CUT_AT, HEALED_AT = 1.6, 6.0


def served_while_the_leader_cannot_reach_the_sequencer(seed: int) -> int:
    """Writes of shard 1 that were acknowledged although the pair of hosts of its leader and the sequencer was
    cut, after some time to hand over: both can still talk to the third host."""
    simulation = Simulation(
        seed, plan(seconds=HEALED_AT, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    )

    def leader(shard: int) -> int:
        return next(p.host for p in simulation._leaders(shard))

    def apart() -> None:
        sequencer, other = leader(0), simulation.nodes[leader(1), 1]
        if other.host == sequencer:
            target = next(h for h in HOSTS if h != sequencer)
            other.happens(None, lambda: (other.node.raft.transfer_leadership(target), other.node.wake()))

    def cut() -> None:
        a, b = leader(0), leader(1)
        assert a != b
        simulation.blocked |= {(a, b), (b, a)}

    simulation.at(CUT_AT - 0.2, None, apart)
    simulation.at(CUT_AT, None, cut)
    simulation.run()
    return sum(
        o.method == "Put" and o.ok and o.asked_at > CUT_AT + 1.5 and o.answered_at < HEALED_AT
        and simulation.placement.shard_of(o.request.key) == 1 for o in simulation.clients.operations)


def test_a_leader_cut_off_from_the_sequencer_does_not_keep_its_shard_hostage() -> None:  # H13
    assert served_while_the_leader_cannot_reach_the_sequencer(1) > 5


def test_without_handing_over_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandOver, "heartbeat", lambda self: None)
    assert served_while_the_leader_cannot_reach_the_sequencer(1) == 0


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_proposed_that_raft_would_drop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is dropped would be lost although it was evaluated: the process must end then. Here next
    to nothing may be uncommitted, and much is asked for; all of it is answered."""
    config, looked = node.replica.opening.Config, [0, 0]
    takes = Raft.takes_proposals.fget
    assert takes is not None

    def look(raft: Raft) -> bool:
        looked[takes(raft)] += raft.role is Role.LEADER
        return bool(takes(raft))

    monkeypatch.setattr(
        node.replica.opening, "Config", lambda **given: config(**given, max_uncommitted_bytes=50)
    )
    monkeypatch.setattr(Raft, "takes_proposals", property(look))
    done = Simulation(seed, plan(shards=3, clients=16)).run()
    assert done["answers"] > 100
    assert looked[False] > 100  # it would prove nothing if there always was room


@pytest.mark.parametrize("seed", range(4))
def test_what_waited_for_a_lock_goes_on_entry_by_entry(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request fills an entry here, and few may be ahead of the order: whoever was let go on finds no
    room, over and over, and still stands before what conflicts with it and came later."""
    for place in (cluster.order.leading.shard_leader, node.replica.writes):
        monkeypatch.setattr(place, "MAX_ENTRY_BYTES", 1)
    monkeypatch.setattr(cluster.order.leading.shard_leader, "_MAX_UNORDERED_BYTES", 60)
    advance, held_up = ShardLeader._advance, [0]

    def look(self: ShardLeader[object]) -> None:
        advance(self)
        held_up[0] += self._held_up

    monkeypatch.setattr(ShardLeader, "_advance", look)
    done = Simulation(seed, plan(clients=16)).run()
    assert done["answers"] > 100
    assert held_up[0] > 5
