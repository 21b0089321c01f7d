"""A host that comes back with an old copy of its data is nobody's voter any more (H10), in the schedule that
loses writes: its peers remember what it had acknowledged."""

from __future__ import annotations

import pytest

from cluster.raft.promises import Promise
from node.links.promises import Promises
from tests.sim.mutants.order_mutants import plan
from tests.sim.world.order_sim import HOSTS, Kept, Simulation
from tests.sim.world.order_world import Violation

COPIED_AT, CUT_AT, PUT_BACK_AT, END = 1.0, 5.5, 6.0, 9.0


def an_old_copy_is_put_back(seed: int, shards: int = 1) -> Simulation:
    """A follower's disk is copied. Later the other follower is cut off, and the first one acknowledges more.
    Then the leader dies, and the copy is put back. Both that are left are a majority, which lacks what was
    acknowledged at last."""
    calm = plan(shards=shards, seconds=END, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    simulation = Simulation(seed, calm)
    copies: dict[int, Kept] = {}
    lonely: list[int] = []

    def leader() -> int:
        return next(p.host for p in simulation._leaders(0))

    def copy() -> None:
        copies.update({host: simulation.copy_disks(host) for host in HOSTS})

    def cut() -> None:
        lonely.append(next(h for h in HOSTS if h != leader()))
        simulation.blocked |= {p for h in HOSTS if h not in lonely for p in ((lonely[0], h), (h, lonely[0]))}

    def lose() -> None:
        dead = leader()
        victim = next(h for h in HOSTS if h not in (dead, *lonely))
        simulation._kill_host(dead, front=True)
        simulation.put_back(victim, copies[victim])
        simulation.heal()

    simulation.at(COPIED_AT, None, copy)
    simulation.at(CUT_AT, None, cut)
    simulation.at(PUT_BACK_AT, None, lose)
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
