"""A host that comes back without its data is nobody's voter any more (H10): by chance, and in the schedule
that loses writes."""

from __future__ import annotations

import pytest

from node.links.incarnations import Incarnations
from tests.sim.directed.forgetting import two_of_three_forget
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(6, soak=44)
CUT_AT, EMPTIED_AT, END = 1.5, 2.5, 6.0
FAULTS = (
    "empty host", "empty host", "empty host", "kill leader", "transfer", "restart", "restart", "isolate",
    "heal", "heal",
)


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_hosts_that_lose_their_disks_and_find_them_again(shards: int) -> None:
    done = {"emptied": 0, "refused": 0}
    for seed in SEEDS:
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

    def forget(victim: int) -> None:
        assert simulation.empty(victim)

    two_of_three_forget(simulation, CUT_AT, EMPTIED_AT, forget)
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
