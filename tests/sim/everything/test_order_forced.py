"""One host goes on alone in the midst of everything, and others join it (``order_forced``, H18)."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.order.salvage import CannotBeKept
from tests.sim.everything.order_everything import plan_for
from tests.sim.everything.order_forced import Alone, crash, force
from tests.sim.world.seeds import failed_once, seconds_for, seeds
from tests.soaking import SOAK

SEEDS = 20  # of each way in a soak; in CI one


def run(seed: int, shards: int, *ways: str) -> Counter[str]:
    """What happened."""
    before, host = crash(seed, plan_for(seed, shards, **dict.fromkeys(ways, True)))
    try:
        try:
            forced = force(before, host)
        except CannotBeKept:
            return Counter(refused=1)
        alone = Alone(before, host, forced=forced)
        done = Counter(alone.run())
    except AssertionError as e:
        raise AssertionError(f"seed {seed}: {e}") from e
    owners = before.checker.owners
    done["forced"], done["moving"] = forced is not None, owners.move is not None
    done["switched"] = len(alone.checker.owners.switched) - len(owners.switched)
    return done


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(seeds(1, soak=SEEDS)))
@pytest.mark.parametrize(("ways", "shards", "first"), [
    ("moves births more", 2, 20),  # keys move when the hosts die
    *([("moves more", 3, 20), ("moves births more", 1, 20), ("moves births real", 2, 20)] if SOAK else []),
])
def test_the_host_that_is_left_goes_on_and_moves_keys(ways: str, shards: int, first: int) -> None:
    done: Counter[str] = Counter()
    for seed in seeds(1, soak=SEEDS, first=first):
        done += run(seed, shards, *ways.split())
    # it would prove nothing if nothing happened
    assert {what: done[what] for what in ("forced", "joined", "switched") if not done[what]} == {}


# Seeds that failed once, by ways and shards, with what was wrong
MENDED: dict[tuple[str, int, int], str] = {
    ("moves births more", 2, 23): "the order log ended before what another node of the host had applied: a"
                                  " forced start fell over it",
    ("moves more", 3, 26112718005): "the simulator's: a new host began at an address that was given before",
    ("moves births more", 1, 26112718005): "the simulator's: nobody could tell a host of its removal, for the"
                                           " only member had moved since; then the checker's: entries that"
                                           " were made up had no revisions",
    ("moves births more", 1, 26112719001): "a node that began to lead went by the members of before its last"
                                           " run: after a forced start it took hosts of before in again",
    ("moves births more", 2, 26113003006): "a hash began after its client was judged: a host that caught up"
                                           " showed more than the users of then allowed",
    ("moves births real", 2, 26113003008): "the checker's: a shard was born anew whose former birth the host"
                                           " that was left had not heard of",
    ("moves births more", 1, 26112803015): "a front that just began knew of one shard: it asked no other"
                                           " whether its client may renew a lease",
    ("moves more", 3, 26112911007): "the checker's: the host was the only member already, so nothing was"
                                    " dropped, and what was logged came into the order after the start",
    ("moves more", 3, 26112914015): "the checker's: a host that joined began with a state of before the"
                                    " start, whose members the start had replaced",
    ("moves more", 3, 26112914033): "the checker's: the same, with voters of before",
    ("moves births more", 1, 26113012119): "the simulator's: a host that heard as it started that it was"
                                           " removed started more nodes",
    ("moves births more", 1, 26112921011): "the checker's: the host learned of a new shard only after its"
                                           " start, with voters of before",
}


@pytest.mark.longer
@pytest.mark.parametrize(("ways", "shards", "seed"), failed_once(MENDED))
def test_what_failed_once(ways: str, shards: int, seed: int) -> None:
    run(seed, shards, *ways.split())
