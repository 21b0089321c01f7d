"""Spans move to shards that are born and away from them again, which then retire: with everything else
(growth.md, section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.placement.table import State
from tests.sim.births.test_order_births import births
from tests.sim.moves.order_mutants_moves import COMPACTED, moves
from tests.sim.plans.test_order_users import MIX_OF_USERS
from tests.sim.world.order_plan import FAULTS, MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import failed_once, seconds_for, seeds
from tests.soaking import SOAK

SEEDS = seeds(2, soak=25, first=4)
QUIET = {"put": 3, "delete": 1, "range": 4, "serializable": 3, "txn": 1, "wide": 1, "hash": 2, "watch": 1,
         "compact": 3}
# a shard that had keys is dropped once their past is compacted: where little is written, or much fails, that
# takes long. Of the hard plan's 25 seeds none drops one in 14 s, and eight in 30
SOAK_S = {"grow_births_quiet": 30.0, "grow_births_hard": 30.0}
PLANS: dict[str, dict[str, Any]] = {
    "grow_births": {"shards": 2, "mix": COMPACTED},
    "grow_births_members": {"shards": 2, "mix": COMPACTED, "members": True, "member_chance": 0.03,
                            "faults": ("kill node", "restart", "restart")},
    "grow_births_hard": {"shards": 2, "mix": {**MIX, "compact": 5}, "faults": FAULTS, "fault_every_s": 0.8,
                         "snapshot_count": 60, "repeats": 0.3, "loses_genesis": 0.1,
                         "birth_timeout_ms": 1000},
    # all hosts come back from before births, moves and drops, whose files have gone
    "grow_births_dark": {"shards": 1, "mix": COMPACTED, "faults": ("blackout", *["flush"] * 4, "kill node"),
                         "fault_every_s": 0.4, "birth_timeout_ms": 1000, "most_born": 2},
    # with few writes moves stand at one revision; spans come back to shards that owned them at none
    "grow_births_quiet": {"shards": 2, "mix": QUIET, "joins": True, "clients": 3, "think_s": 0.2,
                          "real": True, "faults": FAULTS, "fault_every_s": 0.5, "snapshot_count": 10_000,
                          "seconds": 8.0, "birth_timeout_ms": 1000},
    # all keys come back to the only shard that there was at first
    "grow_births_lone": {"shards": 1, "mix": {**QUIET, "hash": 4}, "joins": True, "clients": 3,
                         "think_s": 0.1, "most_born": 1},
    # all keys leave the shards of the beginning, which then retire but for shard 0
    "grow_births_first": {"shards": 2, "mix": COMPACTED, "members": True, "member_chance": 0.03,
                          "faults": ("kill node", "restart", "restart"), "leaves_first": 0.6, "drains": 0.6},
    "grow_births_users": {"shards": 1, "mix": {**MIX_OF_USERS, "compact": 4}, "users": True, "lease_ids": 6,
                          "most_born": 2, "seconds": 5.0},
    "grow_births_watch": {"shards": 3, "mix": {**MIX, "watch": 5, "progress": 2, "compact": 3}},
}


def born(**given: Any) -> Plan:
    """Shards come, get keys, lose them and go."""
    plan = births(**given)
    plan.moves, plan.move_every_s, plan.cancels = True, 0.05, moves().cancels
    return plan


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("name", PLANS)
def test_spans_move_to_shards_that_come_and_go(name: str) -> None:
    emptied: dict[str, Any] = {"drains": 0.6, **({"seconds": SOAK_S.get(name, 14.0)} if SOAK else {})}
    came = went = 0
    switched: list[int] = []
    for seed in SEEDS:
        simulation = Simulation(seed, born(**{**PLANS[name], **emptied}))
        simulation.run()
        owners = simulation.checker.owners
        had = {switch.move.target for switch in owners.switched} & owners.born.keys()
        switched.append(len(owners.switched))
        came += len(had)
        went += sum(owners.born[shard] == State.DROPPED for shard in had)
    assert any(switched)  # it would prove nothing if nothing had moved
    if SOAK:
        assert came
        assert went


@pytest.mark.timeout(600)
def test_a_shard_of_the_beginning_retires() -> None:
    """In one run at least: it must be asked to while it owns nothing and is in no move: by chance."""
    firsts: list[dict[int, State]] = []
    for seed in (34, 6, 2):  # it retires in each today, in a third of all
        simulation = Simulation(seed, born(**PLANS["grow_births_first"]))
        simulation.run()
        firsts.append(simulation.checker.owners.first)
        if firsts[-1] == {0: State.SERVING, 1: State.DROPPED}:
            break
    else:
        pytest.fail(f"it retires in no run: {firsts}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "seed"), [
    ("grow_births_members", 32),  # a new leader told an old configuration, and a promotion began too early
    # a switch waited for old rows to go (G11), these for a shard that was dropped behind it (G10)
    ("grow_births_members", 26_112_714_020),
    ("grow_births", 4),  # a source's answer came behind the end of its move
    ("grow_births_hard", 3),  # a born shard changed the hash of a revision before its birth (I19)
    ("grow_births_hard", 4),  # a front waited for a replica of a shard that was dropped
    # a shard that got another span before its last one had passed left a watch: events twice, or never (I16)
    ("grow_births_quiet", 26_112_715_023),
    ("grow_births_quiet", 6_263_535),  # a serializable range went back: keys moved while it waited (I14)
    # with all keys back in shard 0, the hash of its versions was another one than before (I19)
    ("grow_births_lone", 81_300_001),
])
def test_faults_that_were_found(name: str, seed: int) -> None:
    Simulation(seed, born(**PLANS[name])).run()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "seed", "seconds"), failed_once({
    ("grow_births_members", 26112921024, 3.0): "a watch was told the revision of a compaction that had been"
                                               " refused, not of the one before",
    ("grow_births_hard", 26112921030, 14.0): "the checker's: a leader committed an entry of a dropped shard,"
                                             " which a host had acknowledged before it removed its files",
}))
def test_what_failed_once(name: str, seed: int, seconds: float) -> None:
    Simulation(seed, born(**{**PLANS[name], "drains": 0.6, "seconds": seconds})).run()
