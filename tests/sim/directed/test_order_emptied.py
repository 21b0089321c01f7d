"""A host that comes back without its data is nobody's voter any more (H10): by chance, and in the schedule
that loses writes."""

from __future__ import annotations

import pytest

from node.links.incarnations import Incarnations
from tests.sim.mutants.order_mutants import plan
from tests.sim.world.order_sim import HOSTS, SOAK, Simulation
from tests.sim.world.order_world import Violation

CUT_AT, EMPTIED_AT, END = 1.5, 2.5, 6.0
FAULTS = (
    "empty host", "empty host", "empty host", "kill leader", "transfer", "restart", "restart", "isolate",
    "heal", "heal",
)


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 3])
def test_hosts_that_lose_their_disks_and_find_them_again(shards: int) -> None:
    done = {"emptied": 0, "refused": 0}
    for seed in range(400 if SOAK else 6):
        found = Simulation(seed, plan(shards=shards, faults=FAULTS, seconds=5.0)).run()
        for what in done:
            done[what] += found.get(what, 0)
    assert done["emptied"] > 2  # it would prove nothing if nothing happened
    assert done["refused"] > 2


def a_voter_forgets_what_only_it_and_the_dead_have(seed: int) -> Simulation:
    """One host is cut off, the others commit; then one of those two dies, the other loses its disks and comes
    back to the one that was cut off. Both together are a majority of each group, which lacks what was
    acknowledged."""
    simulation = Simulation(
        seed, plan(seconds=END, fault_every_s=1e9, faults=("heal",), mix={"put": 1}, patience=0.0)
    )
    lonely: list[int] = []

    def leader() -> int:
        return next(p.host for p in simulation._leaders(0))

    def cut() -> None:
        lonely.append(next(h for h in HOSTS if h != leader()))
        simulation.blocked |= {p for h in HOSTS if h not in lonely for p in ((lonely[0], h), (h, lonely[0]))}

    def lose() -> None:
        dead = leader()
        victim = next(h for h in HOSTS if h not in (dead, *lonely))
        assert simulation.empty(victim)
        simulation._kill_host(dead, front=True)
        simulation.heal()

    simulation.at(CUT_AT, None, cut)
    simulation.at(EMPTIED_AT, None, lose)
    return simulation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.timeout(600)
def test_an_emptied_host_helps_nobody_to_be_elected(seed: int) -> None:
    simulation = a_voter_forgets_what_only_it_and_the_dead_have(seed)
    simulation.run()
    assert simulation.did["refused"] == 1
    acknowledged = [o for o in simulation.clients.operations if o.ok]
    assert any(o.asked_at > CUT_AT and o.answered_at < EMPTIED_AT for o in acknowledged)
    assert not any(EMPTIED_AT + 0.1 < o.answered_at < END for o in acknowledged)  # one of three is left


def test_if_it_were_not_refused_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    accept, agree = Incarnations.accept, Incarnations.agree
    monkeypatch.setattr(Incarnations, "accept", lambda self, *hello: accept(self, *hello) or True)
    monkeypatch.setattr(Incarnations, "agree", lambda self, records: agree(self, records) and [])
    with pytest.raises(Violation) as caught:
        a_voter_forgets_what_only_it_and_the_dead_have(1).run()
    assert caught.value.rule.startswith("I1 ")  # two leaders of a term, or one that lacks what was committed
