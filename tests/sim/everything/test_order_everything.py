"""Everything at once: users, members with joiners and destroyed disks, version 2, leases, installs, moved
leaders, walls that do not agree, backups and what is restored of them, growth in every second
run, users' watches and new addresses of members in the others (``order_everything``). Then the same while
keys move and shards come and go."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.everything.order_everything import Everything, plan_for
from tests.sim.mutants import order_mutants_everything
from tests.sim.world.order_world import Violation
from tests.sim.world.seeds import failed_once, seconds_for, seeds
from tests.soaking import SOAK

SEEDS = seeds(6, soak=34, first=20)  # in these hosts are removed, in each way
MOVING_SEEDS = 10  # of each way in a soak; in CI one


def run(seed: int, shards: int, *ways: str) -> Counter[str]:
    """What happened. ``ways``: of ``plan_for``."""
    simulation = Everything(seed, plan_for(seed, shards, **dict.fromkeys(ways, True)))
    try:
        done = Counter(simulation.run()) + Counter(simulation.v2.did)
        done["switched"] = len(simulation.checker.owners.switched)
        done["born"] = len(simulation.checker.owners.born)
        return done + Counter(simulation.checker.kinds)
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_all_that_an_operator_and_clients_do_at_once(shards: int) -> None:
    done: Counter[str] = Counter()
    for seed in SEEDS:
        done += run(seed, shards, "grows" if seed % 2 else "more")
    # it would prove nothing if nothing happened
    least = {"added": 2, "removed": 2, "joined": 2, "destroyed": 2, "restored": 1}
    least |= {"moved": 2, "watch: confirmed": 5, "watch: denied": 5}
    least |= {"watch: events": 20}  # of three runs here: one has from none to 900
    least |= {"written": 50, "answers": 300, "level": len(SEEDS) // 2}
    assert {what: done[what] for what, count in least.items() if done[what] < count} == {}


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(seeds(1, soak=MOVING_SEEDS)))
@pytest.mark.parametrize(("ways", "shards", "first"), [
    # much happens in these
    ("moves more", 2, 25), ("moves real", 3, 20), ("moves births more", 1, 33), ("moves births more", 3, 20),
    ("moves births more real", 2, 20),
    *([("moves more", 3, 25), ("moves real", 2, 20), ("moves births more", 2, 20),
       ("moves births more real", 1, 28)] if SOAK else []),
])
def test_the_same_while_keys_move(ways: str, shards: int, first: int) -> None:
    done: Counter[str] = Counter()
    for seed in seeds(1, soak=MOVING_SEEDS, first=first):
        done += run(seed, shards, *ways.split())
    # it would prove nothing if nothing happened
    least = {"joined": 1, "answers": 100, "switched": shards > 1, "restored": "real" in ways}
    least["born"] = "births" in ways
    assert {what: done[what] for what, count in least.items() if done[what] < count} == {}


# Seeds that failed once, by ways and shards, with what was wrong
MENDED: dict[tuple[str, int, int], str] = {
    ("silent", 1, 185): "the checker's: what was promised of a lease was held against one of its ID that"
                        " had ended",
    ("silent", 3, 60): "a leader had nothing to be put in order, and nobody kept its next order record: it"
                       " stayed so",
    ("silent", 3, 2019): "the simulator's: a host began at the address of one that had not heard of its"
                         " removal",
    ("silent", 3, 1226): "a new host's replica, which knew of no users, was asked for a hash of a named"
                         " revision",
    ("silent", 3, 1245): "a front that learned late of users had nobody's keep-alives asked in its own"
                         " name",
    ("silent", 3, 1): "a leader that was to go was not told what the others have on disk, and waited for"
                      " it",
    ("more silent", 3, 58): "the sequencer's host, at an address that it never listened at, asked other"
                            " groups to let it go: their leaders had no way to it",
    ("grows silent", 3, 247): "the checker's: a node that did not know yet of a removal had counted a disk"
                              " destroyed since",
    ("grows", 1, 26112718095): "the simulator's: a new host that was removed before it said anything heard"
                               " nothing of that",
    ("more", 2, 26112719018): "the simulator's: a run was over before a host that had moved knew the"
                              " leader",
    ("more", 3, 26113003026): "a leader that had moved and was removed did not say where it is: a host that"
                              " was behind never reached it, and the removal waited for that host",
    ("moves more", 3, 100): "a learner's host dropped nothing that had left it: what came back waited for"
                            " that, the order for what came back, and its vote for the order",
    ("moves births more", 1, 26112711006): "a node that started while a shard retired flushed nothing for"
                                           " its drop, which waited for that",
    ("moves births more", 3, 26112711003): "the checker's: a shard that forms takes in members that are"
                                           " learners once it serves",
    ("moves births more real", 1, 26113007000): "the simulator's: nobody started a removed leader at its"
                                                " new address, so a new host could not answer it",
    ("moves births more", 2, 47): "the checker's: a host without a shard's directory had nothing on it",
}


@pytest.mark.longer
@pytest.mark.parametrize(("ways", "shards", "seed"), failed_once(MENDED))
def test_what_failed_once(ways: str, shards: int, seed: int) -> None:
    run(seed, shards, *ways.split())


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", order_mutants_everything.MUTANTS, ids=str)
def test_the_simulator_notices_that_a_rule_is_missing(
    mutant: order_mutants_everything.Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.remove(monkeypatch)
    for seed in range(mutant.first, mutant.first + 20):
        try:
            Everything(seed, plan_for(seed, mutant.shards, **dict.fromkeys(mutant.ways, True))).run()
        except Violation as violation:
            if violation.rule.startswith(mutant.rules):
                return
            raise
    pytest.fail("20 runs without it, and nobody noticed")
