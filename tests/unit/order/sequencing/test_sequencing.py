"""What the sequencer makes of the other leaders' reports, and who waits for them."""

from __future__ import annotations

from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold
from cluster.order.sequencing.reports import Controls, Reports

ALL = 1 << 62


def reports(*said: tuple[int, int, int, int, int]) -> Reports:
    """Shard, index, term, count, order index applied; by member 10 + shard."""
    found = Reports()
    for report in said:
        found.take(Report(*report), 10 + report[0])
    return found


def test_a_cut_names_what_has_grown_and_by_how_much() -> None:
    found = reports((1, 9, 4, 7, 20), (2, 5, 3, 5, 20))
    fold = Fold(30, {1: Cut(6, 4, 5), 2: Cut(5, 3, 5)})
    assert found.uncut
    assert found.changes(fold) == 2
    assert found.cut(fold) == ({1: Cut(9, 4, 7)}, {1: 2})
    assert not found.uncut


def test_i4_a_report_of_an_older_term_or_place_is_never_cut() -> None:
    fold = Fold(30, {1: Cut(6, 4, 5)})
    assert reports((1, 9, 3, 9, 20)).cut(fold) == ({}, {})
    assert reports((1, 6, 4, 5, 20)).cut(fold) == ({}, {})
    assert reports((1, 5, 5, 4, 20)).cut(fold) == ({}, {})


def test_a_report_that_comes_late_changes_nothing() -> None:
    found = reports((1, 9, 4, 7, 20), (1, 8, 4, 6, 19))
    assert found.by_shard[1] == Report(1, 9, 4, 7, 20)
    found.take(Report(1, 8, 5, 6, 20), 3)
    assert (found.by_shard[1].term, found.reporters[1]) == (5, 3), "a later term's is newer"


def test_what_all_leaders_have_applied_is_what_the_last_one_has() -> None:
    found = reports((1, 9, 4, 7, 20), (2, 5, 3, 5, 25))
    assert found.applied_by_all((1, 2), Fold()) == 20
    assert found.applied_by_all((1, 2, 3), Fold()) == -1, "one has said nothing yet"
    assert found.applied_by_all((), Fold()) == ALL


def test_h11_the_word_of_a_leader_that_is_deposed_does_not_count() -> None:
    found = reports((1, 9, 4, 7, 20))
    assert found.applied_by(1, Fold(30, {1: Cut(10, 5, 8)})) == -1


def test_controls_are_done_in_their_order_and_told_once() -> None:
    controls: Controls[str] = Controls()
    controls.add(11, "first")
    controls.add(12, "second")
    assert controls.done(10) == []
    assert controls.done(11) == ["first"]
    assert controls.done(ALL) == ["second"]
    assert controls.done(ALL) == []


def test_i23_who_does_not_wait_any_more_is_forgotten() -> None:
    controls: Controls[str] = Controls()
    controls.add(11, "first")
    controls.add(12, "second")
    controls.keep(lambda waiter: waiter == "second")
    assert (len(controls), controls.all(), len(controls)) == (1, ["second"], 0)
