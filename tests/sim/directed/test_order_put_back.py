"""A host that comes back with an old copy of its data is nobody's voter any more (H10), in the schedule that
loses writes: its peers remember what it had acknowledged."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.raft.promises import Promise
from node.links.promises import Promises
from tests.sim.directed.forgetting import two_of_three_forget
from tests.sim.disks.order_disk import LogDisk, Syncer
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_plan import HOSTS
from tests.sim.world.order_sim import Kept, Simulation
from tests.sim.world.order_world import Violation

COPIED_AT, CUT_AT, PUT_BACK_AT, END = 1.0, 5.5, 6.0, 9.0


def an_old_copy_is_put_back(seed: int, shards: int = 1) -> Simulation:
    """A follower's disk is copied. Later the other follower is cut off, and the first one acknowledges more.
    Then the leader dies, and the copy is put back. Both that are left are a majority, which lacks what was
    acknowledged at last."""
    calm = plan(shards=shards, seconds=END, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    simulation = Simulation(seed, calm)
    copies: dict[int, Kept] = {}

    def copy() -> None:
        copies.update({host: simulation.copy_disks(host) for host in HOSTS})

    simulation.at(COPIED_AT, None, copy)
    two_of_three_forget(
        simulation, CUT_AT, PUT_BACK_AT, lambda victim: simulation.put_back(victim, copies[victim])
    )
    return simulation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.timeout(600)
def test_an_old_copy_helps_nobody_to_be_elected(seed: int, shards: int) -> None:
    simulation = an_old_copy_is_put_back(seed, shards)
    simulation.run()
    assert simulation.did["refused"] == 1
    acknowledged = [o for o in simulation.clients.operations if o.ok]
    assert any(o.asked_at > CUT_AT and o.answered_at < PUT_BACK_AT for o in acknowledged)
    assert not any(PUT_BACK_AT + 0.1 < o.answered_at < END for o in acknowledged)  # one of three is left


@pytest.mark.parametrize("rule", ["promises are told", "promises are kept by all"])
def test_if_it_were_not_refused_it_would(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule == "promises are told":
        monkeypatch.setattr(Promises, "second", lambda self, now: None)
    else:
        monkeypatch.setattr(Promise, "is_kept", lambda self, term, last_index: True)
    with pytest.raises(Violation) as caught:
        an_old_copy_is_put_back(1).run()
    assert caught.value.rule.startswith("I1 ")  # two leaders of a term, or one that lacks what was committed


@pytest.mark.parametrize("seed", range(3))
def test_a_hello_that_is_read_late_is_said_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower asks the other one for its vote, behind a hello that stays in the network. Then the leader
    is back: the follower acknowledges more, and the other one hears of that before it reads the hello."""
    calm = plan(shards=1, seconds=7.0, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    simulation = Simulation(seed, calm)
    late: list[bool] = []
    broken = Promises.broken

    def judged(self: Promises, member_id: int, parts: list[bytes]) -> bytes:
        found = broken(self, member_id, parts)
        late.append(bool(found))
        return found

    def cut() -> None:
        leader = next(p for p in simulation._leaders(0))
        one, other = (h for h in HOSTS if h != leader.host)
        simulation.blocked |= {(one, other), (other, one)}
        simulation._pause(leader, 1.5)

    monkeypatch.setattr(Promises, "broken", judged)
    simulation.at(1.5, None, cut)
    simulation.at(6.0, None, lambda: simulation.heal(broken=0.0))
    simulation.run()
    assert any(late)
    assert "refused" not in simulation.did


def test_each_second_every_replica_looks_whether_its_mark_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    again: Counter[str] = Counter()
    once_more = Syncer.again

    def counted(self: Syncer) -> None:
        again[self._loop.name] += 1
        once_more(self)

    monkeypatch.setattr(LogDisk, "mark_is_behind", lambda self: True)
    monkeypatch.setattr(Syncer, "again", counted)
    calm = plan(shards=2, seconds=4.0, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    Simulation(1, calm).run()
    assert len(again) == 2 * len(HOSTS)
    assert min(again.values()) >= 3
