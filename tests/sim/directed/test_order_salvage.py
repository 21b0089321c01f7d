"""What one host can keep when the others are lost (H18), asked of what crashes have left on each host's
disks."""

from __future__ import annotations

import contextlib
from functools import cache, partial

import pytest

from cluster.effects.records import Item, items
from cluster.order.log import Entries, Fold, decode_cut, entry_count, project
from cluster.order.salvage import CannotBeKept, Kept, Plan, common, kept, planned
from tests.sim.checks.order_replay import RECORD, Folder
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_plan import HOSTS
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

SEEDS = 12


@cache
def crashed(seed: int) -> Simulation:
    """A cluster in the midst of everything, all of whose hosts lose power at once."""
    faults = ("pause leader", "pause node", "kill leader", "kill node", "restart", "slow disk")
    simulation = Simulation(seed, plan(shards=3, faults=faults, fault_every_s=0.3, seconds=2.5))
    simulation.run_faults()
    for _, process in sorted(simulation.nodes.items()):
        simulation.kill(process)
    return simulation


def salvage(simulation: Simulation, host: int, *, match: bool = True) -> tuple[Kept, int]:
    """What a host keeps, and where its order log ends. Without ``match`` every cut is believed."""
    order = simulation.logs[host, 0]
    records = records_of(simulation, host)
    wanted = {
        (shard, cut.index): cut.term
        for _, data in records
        for kind, at, to in items(data)
        if kind == Item.CUT
        for shard, cut in decode_cut(data, at, to)
    }

    def term_at(shard: int, index: int) -> int | None:
        return term_of(simulation, host, shard, index) if match else wanted[shard, index]

    return kept(records, applied_of(simulation, host), term_at), order.last_index()


def records_of(simulation: Simulation, host: int) -> list[tuple[int, bytes]]:
    return [(e.index, e.data if e.kind == RECORD else b"") for e in simulation.logs[host, 0].log]


def applied_of(simulation: Simulation, host: int) -> dict[int, int]:
    return {s: simulation.states[host, s].flushed.position.shard_index for s in simulation.shards}


def term_of(simulation: Simulation, host: int, shard: int, index: int) -> int | None:
    log = simulation.logs[host, shard]
    return log.term(index) if log.position.index < index <= log.last_index() else None


def backed_up(simulation: Simulation, host: int, end: int) -> Kept:
    """Where a backup of its files ends, if its node of shard 0 has applied all that the order log holds."""
    states = {s: simulation.states[host, s].flushed.position.order_index for s in simulation.shards}
    records = records_of(simulation, host)

    def records_from(first: int) -> list[tuple[int, bytes]]:
        return [record for record in records if record[0] >= first]

    begins = simulation.logs[host, 0].position.index
    return common(records_from, begins, applied_of(simulation, host), states | {0: end},
                  partial(term_of, simulation, host))


def logs_of(simulation: Simulation, host: int) -> dict[int, dict[int, tuple[int, int, bytes]]]:
    logs = {s: simulation.logs[host, s].log for s in simulation.shards}
    return {s: {e.index: (e.term, int(e.kind), e.data) for e in log} for s, log in logs.items()}


def folded(simulation: Simulation, host: int, last: int) -> int:
    """The revision at which a host's own logs stand, folded up to an order record; Violation if they do not
    carry it."""
    logs = logs_of(simulation, host)
    logs[0] = {index: entry for index, entry in logs[0].items() if index <= last}
    folder = Folder(logs, simulation.shards)
    folder.advance()
    assert folder.replay.order_index == last
    return folder.replay.revision


def carried(simulation: Simulation, host: int, found: Plan) -> int:
    """The same with entries that are made up, as nodes go about it: they look at the terms and counts of
    their entries."""
    logs = logs_of(simulation, host)
    for shard, entries in found.made_up.items():
        logs[shard] = {index: entry for index, entry in logs[shard].items() if index < entries[0].index}
        logs[shard].update((e.index, (e.term, int(e.kind), e.data)) for e in entries)
    folds = {shard: Fold() for shard in simulation.shards}
    for index, data in records_of(simulation, host):
        if index > found.order_index:
            break
        for shard in simulation.shards:
            for step in folds[shard].take(project(data, shard) if shard else data, shard):
                if isinstance(step, Entries):
                    own = logs[shard]
                    behind = max((i for i in own if i <= step.cut.index and own[i][1] == RECORD), default=0)
                    assert own[step.cut.index][0] == step.cut.term
                    assert (entry_count(own[behind][2]) if behind else 0) == step.cut.count
    assert len({fold.revision for fold in folds.values()}) == 1
    return folds[0].revision


@pytest.mark.timeout(600)
def test_a_host_keeps_the_longest_beginning_of_the_order_that_its_own_logs_carry() -> None:
    whole = cut_short = 0
    for seed in range(SEEDS):
        simulation = crashed(seed)
        replay = simulation.checker.replay
        for host in HOSTS:
            found, end = salvage(simulation, host)
            revision = folded(simulation, host, found.order_index)
            if found.order_index <= replay.order_index:  # what was committed is what it always was
                assert revision == replay.revision_at[found.order_index]
            if found.shard == 0:
                assert found.order_index == end
                whole += 1
                continue
            cut_short += 1
            with pytest.raises(Violation, match="I3"):  # and no longer one
                folded(simulation, host, found.order_index + 1)
    assert whole  # it would prove nothing if there were only one kind
    assert cut_short


@pytest.mark.timeout(600)
def test_with_cuts_that_its_logs_do_not_match_it_would_wait_for_ever() -> None:
    """H18: their entries are nowhere. That the term counts besides the index is shown in tests/unit/order."""
    right = 0
    for seed in range(SEEDS):
        simulation = crashed(seed)
        for host in HOSTS:
            found, end = salvage(simulation, host, match=False)
            assert found == Kept(end)
            with contextlib.suppress(Violation):
                folded(simulation, host, end)
                right += 1
    assert 0 < right < len(HOSTS) * SEEDS


@pytest.mark.timeout(600)
def test_where_more_is_applied_somewhere_entries_are_made_up_that_carry_the_order() -> None:
    """H18: a state never goes back. Here one node of each host has applied all that its order log holds."""
    made_up = refused = 0
    for seed in range(SEEDS):
        simulation = crashed(seed)
        replay = simulation.checker.replay
        for host in HOSTS:
            end = simulation.logs[host, 0].last_index()
            try:
                found = planned(partial(records_of, simulation, host), applied_of(simulation, host), [end],
                                partial(term_of, simulation, host))
            except CannotBeKept:  # a transaction over several shards stands on what is lost
                refused += 1
                saved_at = backed_up(simulation, host, end)
                assert saved_at.shard  # what is refused is a gap, and a backup ends before it
                assert saved_at.order_index < end
                revision = folded(simulation, host, saved_at.order_index)
                if saved_at.order_index <= replay.order_index:
                    assert revision == replay.revision_at[saved_at.order_index]
                continue
            made_up += bool(found.made_up)
            revision = carried(simulation, host, found)
            if end <= replay.order_index:
                assert revision == replay.revision_at[end]
    print(f"made up {made_up}, refused {refused} of {SEEDS * len(HOSTS)}")
    assert made_up
    assert refused


@pytest.mark.timeout(600)
def test_behind_a_cut_that_is_not_matched_no_cut_of_its_shard_is() -> None:
    """Log matching: entries that are made up take the place of all that the host has behind them."""
    behind = 0
    for seed in range(SEEDS):
        simulation = crashed(seed)
        for host in HOSTS:
            applied, missing = applied_of(simulation, host), set[int]()
            for _, data in records_of(simulation, host):
                for kind, at, to in items(data):
                    for shard, cut in decode_cut(data, at, to) if kind == Item.CUT else ():
                        matched = (cut.index <= applied[shard]
                                   or term_of(simulation, host, shard, cut.index) == cut.term)
                        assert not (matched and shard in missing)
                        behind += shard in missing
                        if not matched:
                            missing.add(shard)
    assert behind
