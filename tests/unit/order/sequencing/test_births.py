"""Shards that are born and retire: the sequencer's machine, and what the fold and the reports hold to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features import births, growth
from cluster.members.table import Host
from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold, encode_cut
from cluster.order.sequencing.reports import Reports
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.births import Births, Step
from cluster.placement.changes import shard_item, take_shard
from cluster.placement.table import Move, Piece, State
from cluster.wire.frames import HIGHEST

HOSTS = {i: Host(i, f"h{i}", (f"http://h{i}:1",)) for i in (1, 2, 3)}
FACTS = births.Facts(dict.fromkeys(HOSTS, HIGHEST), True, HOSTS)
LIMIT_MS = 1000


def grown(level: int = growth.LEVEL) -> growth.Growth:
    known = growth.Growth()
    known.take([growth.row(i, growth.OWN.encode()) for i in HOSTS])
    known.grow(level, HOSTS)
    return known


def table(*states: State) -> Table:
    """One shard of the base, and one that went through these states."""
    found = Table.initial(Base(1))
    for state in states:
        found = take_shard(found, 1, state, 1 if state == State.FORMING else 0, tuple(HOSTS))
    return found


def test_a_shard_serves_once_its_leader_has_reported() -> None:
    machine, forming = Births(LIMIT_MS), table(State.FORMING)
    assert machine.look(forming, {}, 0) == []
    assert machine.look(forming, {1: None}, 500) == [Step(1, State.SERVING)]
    assert machine.look(table(State.FORMING, State.SERVING), {}, 5000) == []


def test_a_shard_that_does_not_come_is_dropped_and_another_id_is_tried_once() -> None:
    machine, forming = Births(LIMIT_MS), table(State.FORMING)
    assert machine.look(forming, {}, 100) == []
    assert machine.look(forming, {}, 1099) == []
    assert machine.look(forming, {}, 1100) == [Step(1, State.DROPPED, again=True)]
    second = take_shard(table(State.FORMING, State.DROPPED), 2, State.FORMING, 1, tuple(HOSTS))
    assert machine.look(second, {}, 1100) == []
    assert machine.look(second, {}, 2100) == [Step(2, State.DROPPED)]
    third = take_shard(take_shard(second, 2, State.DROPPED, 0, ()), 3, State.FORMING, 1, tuple(HOSTS))
    assert machine.look(third, {}, 9000) == []
    assert machine.look(third, {}, 10_000) == [Step(3, State.DROPPED, again=True)], "it was asked for anew"


def test_another_sequencer_gives_a_forming_shard_its_whole_time() -> None:
    assert Births(LIMIT_MS).look(table(State.FORMING), {}, 1 << 40) == []


def test_a_retiring_shard_is_dropped_once_it_owns_nothing_and_has_no_past() -> None:
    machine, retiring = Births(LIMIT_MS), table(State.FORMING, State.SERVING, State.RETIRING)
    assert machine.look(retiring, {}, 0) == [Step(1, State.DROPPED)]
    for owning in (
        Table(retiring.base, retiring.shards, spans=(Piece(b"a", b"b", 1, 2),)),
        Table(retiring.base, retiring.shards, past=(Piece(b"a", b"b", 1, 2, 5),)),
    ):
        assert machine.look(owning, {}, 0) == [], "G10"


def test_what_may_not_be_added_or_retired_is_refused_with_a_reason() -> None:
    def refused(kind: errors.ErrorKind, *given: object) -> None:
        check = births.check_add if isinstance(given[-1], births.Facts) else births.check_retire
        with pytest.raises(EtcdError) as caught:
            check(*given)  # type: ignore[arg-type]
        assert caught.value.text.startswith(kind.text.partition("{")[0])

    serving = table(State.FORMING, State.SERVING)
    owning = replace(serving, spans=(Piece(b"a", b"b", 1, 1),))
    births.check_add(HOSTS, serving, FACTS)
    births.check_retire(grown(), serving, 1, False)
    births.check_retire(grown(), owning, 1, True)
    refused(errors.SHARD_BUSY, HOSTS, table(State.FORMING), FACTS)
    refused(errors.SHARD_HOSTS_CHANGE, HOSTS, serving, FACTS._replace(settled=False))
    refused(errors.SHARD_HOSTS_UNSURE, HOSTS, serving, FACTS._replace(linked={1: HIGHEST, 2: 10}))
    refused(errors.SHARD_UNKNOWN, grown(), serving, 2, True)
    refused(errors.SHARD_STAYS, grown(), serving, 0, True)
    refused(errors.SHARD_OWNS_KEYS, grown(), owning, 1, False)
    refused(errors.SHARD_LEVEL, grown(births.BIRTHS), owning, 1, True)
    refused(errors.SHARD_BUSY, grown(), table(State.FORMING, State.SERVING, State.RETIRING), 1, False)
    for move in (Move(1, b"a", b"c", (0, 1), 2), Move(1, b"b", b"c", (0,), 1)):
        refused(errors.SHARD_BUSY, grown(), replace(owning, move=move), 1, True)
    many = table(State.FORMING, State.SERVING)
    for shard in range(2, births.MOST_SHARDS):
        many = take_shard(many, shard, State.FORMING, shard, (1,))
        many = take_shard(many, shard, State.SERVING, 0, ())
    refused(errors.SHARD_LIMIT, HOSTS, many, FACTS)


def test_ids_are_never_used_again_and_slots_are() -> None:
    dropped = table(State.FORMING, State.DROPPED)
    assert (births.next_id(dropped), births.next_slot(dropped)) == (2, 1)
    assert births.running(dropped) == [0]


def cut_of(shard: int) -> bytes:
    return encode_cut({shard: Cut(1, 1, 0)})


def test_no_cut_of_a_shard_is_in_order_before_it_serves_or_after_it_was_dropped() -> None:
    fold = Fold()
    fold.take(shard_item(1, State.FORMING, 1, (1,)), 0)
    with pytest.raises(AssertionError, match="G12"):
        fold.copy().take(cut_of(1), 0)
    fold.take(shard_item(1, State.SERVING), 0)
    fold.copy().take(cut_of(1), 0)
    fold.take(shard_item(1, State.RETIRING) + shard_item(1, State.DROPPED), 0)
    with pytest.raises(AssertionError, match="G13"):
        fold.take(cut_of(1), 0)
    again = Fold()  # as after a start
    again.know(table(State.FORMING, State.DROPPED))
    with pytest.raises(AssertionError, match="G13"):
        again.take(cut_of(1), 0)


def test_reports_count_for_shards_in_the_order_alone() -> None:
    reports, fold = Reports(), Fold()
    reports.follow((0, 1))
    assert reports.take(Report(1, 3, 1, 2, 9), 7)
    assert not reports.take(Report(2, 5, 1, 0, 9), 8)
    assert reports.reporters == {1: 7}
    assert set(reports.cut(fold)[0]) == {1}
    reports.follow((0, 1, 2))  # it serves now: what it had said counts
    assert set(reports.cut(fold)[0]) == {1, 2}
    reports.follow((0, 1))  # it is dropped
    assert not reports.take(Report(2, 6, 1, 0, 9), 8)
    assert set(reports.cut(fold)[0]) == {1}
    reports.forget_early(())
    assert not reports.early
