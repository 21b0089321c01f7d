"""Which shards' leaders a control record waits for (I20): those that may show or accept anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold
from cluster.order.sequencing.reports import Askable, Reports
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State, Table

ALL = 1 << 62
SWITCH, REVISION = 20, 7


@pytest.fixture
def table() -> Table:
    """Shard 0 owns all keys; 1 and 2 are born."""
    made = Table.initial(Base(1))
    for shard in (1, 2):
        for state in (State.FORMING, State.SERVING):
            made = take_shard(made, shard, state, shard, (1,))
    return made


def moved(table: Table, source: int, target: int, revision: int = REVISION) -> Table:
    number = table.last_move + 1
    copying = take_move(table, Move(number, b"a", END, (source,), target), revision)
    return take_moved(copying, Moved(number, True, revision, 0), revision)


def reports(**applied: int) -> Reports:
    found = Reports()
    for shard, index in applied.items():
        found.take(Report(int(shard[1:]), 5, 1, 0, index), 7)
    return found


def test_a_shard_that_never_had_keys_holds_up_nothing(table: Table) -> None:
    askable = Askable()
    askable.follow(table, 10)
    assert askable.applied(Reports(), Fold()) == ALL


def test_one_whose_keys_may_be_asked_for_at_an_old_revision_does(table: Table) -> None:
    askable = Askable()
    askable.follow(moved(moved(table, 0, 1), 1, 2, REVISION + 1), SWITCH)
    assert askable.applied(reports(s2=30), Fold()) == -1
    assert askable.applied(reports(s1=19, s2=30), Fold()) == 19


def test_one_that_lost_its_past_does_until_its_leader_knows(table: Table) -> None:
    """The compaction that took the past out waits for it, and so does all that comes before it knows."""
    askable = Askable()
    askable.follow(once := moved(moved(table, 0, 1), 1, 2, REVISION + 1), SWITCH)
    askable.follow(pruned := take_compact(once, REVISION + 2), 25)
    assert not pruned.may_be_asked_of(1)
    assert askable.applied(reports(s2=30), Fold()) == -1
    assert askable.applied(reports(s1=24, s2=30), Fold()) == 24
    deposed = Fold(0, {1: Cut(6, 2, 0)})
    assert askable.applied(reports(s1=25, s2=30), deposed) == -1, "another leader's cut stands in the order"
    assert askable.applied(reports(s1=25, s2=30), Fold()) == 30
    assert askable.applied(reports(s2=40), Fold()) == 40, "from here on it may have no leader"


def test_one_that_was_dropped_does_not(table: Table) -> None:
    askable = Askable()
    askable.follow(once := moved(moved(table, 0, 1), 1, 2, REVISION + 1), SWITCH)
    pruned = take_compact(once, REVISION + 2)
    askable.follow(pruned, 25)
    for state in (State.RETIRING, State.DROPPED):
        askable.follow(pruned := take_shard(pruned, 1, state, 1, ()), 26)
    assert askable.applied(reports(s2=30), Fold()) == 30


@pytest.mark.parametrize("anew", [False, True])
def test_a_node_that_has_not_seen_all_tables_waits_until_each_leader_is_heard(
    table: Table, anew: bool
) -> None:
    """It may have had keys, and its leader may be behind the record that took the last of them."""
    askable = Askable()
    if anew:
        askable.follow(table, 10)
    pruned = take_compact(moved(moved(table, 0, 1), 1, 2, REVISION + 1), REVISION + 2)
    askable.follow(pruned, 25, anew=anew)
    assert askable.applied(reports(s2=30), Fold()) == -1
    assert askable.applied(reports(s1=25, s2=30), Fold()) == 30


def test_keys_that_come_and_go_within_one_run_count(table: Table) -> None:
    askable = Askable()
    askable.follow(copying := take_move(table, Move(1, b"a", END, (0,), 1), REVISION), 10)
    switched = take_moved(copying, Moved(1, True, REVISION, 0), REVISION)
    askable.follow(take_compact(moved(switched, 1, 2, REVISION + 1), REVISION + 2), 25)
    assert askable.applied(reports(s2=30), Fold()) == -1


def test_the_base_s_shards_count_while_they_have_keys() -> None:
    base = Table.initial(Base(3))
    askable = Askable()
    askable.follow(base, 0)
    assert askable.applied(reports(s1=9), Fold()) == -1
    assert askable.applied(reports(s1=9, s2=8), Fold()) == 8
    askable.follow(replace(base, generation=1), 1)
    assert askable.applied(reports(s1=9, s2=8), Fold()) == 8
