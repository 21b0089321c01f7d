"""How a shard follows the order: each decision by itself."""

from __future__ import annotations

import pytest

from cluster.order.following.feed_queue import FeedQueue
from cluster.order.following.questions import LockQuestions
from cluster.order.following.reporting import Reporting
from cluster.order.following.source import FeedSource
from cluster.order.following.stuck import APPLY_LIMIT, Stuck
from cluster.order.log import Attempt, Cut

OWN, SECOND, THIRD = 1, 2, 3
EVERYBODY = (OWN, SECOND, THIRD)
ELECTION_MS = 1000
NOBODY: frozenset[int] = frozenset()


def queue(*cuts: int | None) -> FeedQueue:
    """Records from 11 on; each puts entries up to an index in order, or none."""
    found = FeedQueue(10)
    for number, index in enumerate(cuts, 11):
        found.add((number, 1, b"p%d" % number, None if index is None else Cut(index, 4, 0), 5))
    return found


def test_records_are_taken_up_to_the_cut_whose_entries_are_not_here() -> None:
    feed = queue(None, 7, 9, None)
    assert feed.run(7) == ([(11, 1, b"p11"), (12, 1, b"p12")], 10, Cut(9, 4, 0))
    assert (feed.taken, feed.next, len(feed)) == (12, 15, 2)
    assert feed.run(8) == ([], 0, Cut(9, 4, 0))
    assert feed.run(9) == ([(13, 1, b"p13"), (14, 1, b"p14")], 10, None)


def test_changes_count_up_to_the_newest_cut_whose_entries_are_here() -> None:
    feed = queue(None)
    assert feed.count(9) == 0
    feed.add((12, 1, b"", Cut(7, 4, 30), 5))
    feed.add((13, 1, b"", Cut(9, 4, 50), 5))
    feed.add((14, 1, b"", None, 5))
    assert [feed.count(announced) for announced in (6, 7, 8, 9)] == [0, 30, 30, 50]
    feed.again()
    assert feed.count(9) == 0


def test_another_feed_begins_behind_what_was_taken() -> None:
    feed = queue(None, 7)
    feed.run(0)
    feed.again()
    assert (feed.next, len(feed)) == (12, 0)
    feed.skipped_to(40)
    feed.again()
    assert feed.next == 41


def test_a_gap_in_the_feed_is_an_error_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        queue().add((12, 1, b"", None, 0))


def test_the_own_hosts_feed_comes_first_and_one_that_failed_last() -> None:
    source = FeedSource(OWN, 1.0)
    assert source.chosen(0, EVERYBODY, 5.0) == OWN
    source.failed(OWN, 6.0)
    assert source.chosen(0, EVERYBODY, 6.0) == SECOND
    source.failed(SECOND, 7.0)
    source.failed(THIRD, 8.0)
    assert source.chosen(0, EVERYBODY, 8.0) == OWN


def test_a_feed_without_a_sequencer_is_left_for_one_that_knows_one_after_two_election_timeouts() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(0, EVERYBODY, 10.0)
    assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, 11.0) == 0, "it is well"
    assert source.better(OWN, False, EVERYBODY, {THIRD}.__contains__, 12.9) == 0, "it may find one"
    assert source.better(OWN, False, EVERYBODY, NOBODY.__contains__, 13.0) == 0, "nobody does better"
    assert source.better(OWN, False, EVERYBODY, {THIRD}.__contains__, 13.0) == THIRD


def test_a_node_goes_home_once_its_node_0_has_known_a_sequencer_for_long_enough() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(THIRD, EVERYBODY, 10.0)
    assert source.better(THIRD, True, EVERYBODY, NOBODY.__contains__, 20.0) == 0
    assert source.better(THIRD, True, EVERYBODY, {OWN}.__contains__, 21.9) == 0
    assert source.better(THIRD, True, EVERYBODY, {OWN}.__contains__, 22.0) == OWN


def test_another_hosts_feed_without_a_sequencer_is_left_as_well() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(SECOND, EVERYBODY, 9.0)
    for order_index, at in enumerate((10.0, 11.0), 101):
        source.look_home(90, order_index, at)
    assert source.better(SECOND, True, EVERYBODY, {OWN, THIRD}.__contains__, 19.9) == 0, "it is well"
    assert source.better(SECOND, False, EVERYBODY, {OWN, THIRD}.__contains__, 21.8) == 0, "it may find one"
    assert source.better(SECOND, False, EVERYBODY, {OWN}.__contains__, 21.9) == 0, "home is behind"
    assert source.better(SECOND, False, EVERYBODY, {OWN, THIRD}.__contains__, 21.9) == THIRD


def test_home_comes_first_when_another_hosts_feed_is_left() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(SECOND, EVERYBODY, 10.0)
    assert source.better(SECOND, True, EVERYBODY, {THIRD}.__contains__, 20.0) == 0
    assert source.better(SECOND, False, EVERYBODY, NOBODY.__contains__, 22.0) == 0, "nobody does better"
    assert source.better(SECOND, False, EVERYBODY, {OWN, THIRD}.__contains__, 22.1) == OWN


def look(source: FeedSource, at: float, commit: int, applied: int) -> None:
    """At this feed's node 0, for a second."""
    for beat in range(10):
        source.look(commit, applied, at + beat / 10)


def test_a_feed_is_left_whose_node_0_applies_nothing_though_more_is_committed() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(0, EVERYBODY, 10.0)
    for at in range(11, 16):
        look(source, at, 100 + at, 90 + at)
        assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, at) == 0, "it is behind, but moves"
    for at in range(16, 20):
        look(source, at, 105, 105)
        assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, at) == 0, "there is no more"
    look(source, 20.0, 106, 105)
    assert source.stands
    assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, 20.9) == 0
    look(source, 21.0, 106, 105)
    assert source.better(OWN, True, EVERYBODY, NOBODY.__contains__, 21.9) == 0, "nobody has more"
    assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, 22.0) == 0
    look(source, 22.0, 106, 105)
    look(source, 23.0, 106, 105)
    assert source.better(OWN, True, EVERYBODY, {THIRD}.__contains__, 23.9) == THIRD


def test_another_hosts_feed_is_left_as_well_if_its_node_0_applies_nothing() -> None:
    source = FeedSource(OWN, 1.0)
    source.chosen(SECOND, EVERYBODY, 10.0)
    look(source, 10.0, 105, 105)
    assert source.better(SECOND, True, EVERYBODY, {THIRD}.__contains__, 10.9) == 0, "there is no more"
    look(source, 11.0, 106, 105)
    look(source, 12.0, 106, 105)
    assert source.better(SECOND, True, EVERYBODY, NOBODY.__contains__, 12.9) == 0, "nobody has more"
    assert source.better(SECOND, True, EVERYBODY, {THIRD}.__contains__, 14.8) == 0
    assert source.better(SECOND, True, EVERYBODY, {THIRD}.__contains__, 14.9) == THIRD
    source.chosen(THIRD, EVERYBODY, 14.9)
    source.look(106, 105, 15.0)
    assert not source.stands, "it is looked at from now on"


def test_a_pause_of_the_own_loop_is_no_standing_of_its_node_0() -> None:
    source = FeedSource(OWN, 1.0)
    source.look(100, 90, 10.0)
    source.look(100, 90, 13.0)
    assert not source.stands
    look(source, 13.1, 100, 90)
    assert source.stands


def test_a_node_goes_home_once_its_node_0_is_level_with_it() -> None:
    source = FeedSource(OWN, 1.0)
    source.look_home(105, 105, 10.0)
    source.chosen(THIRD, EVERYBODY, 10.0)
    home = (THIRD, True, EVERYBODY, {OWN}.__contains__)
    for tenth in range(101, 150):
        source.look_home(105 + (tenth - 100) * 5, 200 + tenth * 5, tenth / 10)  # it comes up slowly
        assert source.better(*home, tenth / 10) == 0
    for tenth in range(150, 170):
        source.look_home(195 + tenth * 5, 200 + tenth * 5, tenth / 10)  # as is said late
        assert source.better(*home, tenth / 10) == 0
    source.look_home(195 + 170 * 5, 200 + 170 * 5, 17.0)
    assert source.better(*home, 17.0) == OWN


def test_a_state_is_asked_for_when_nobody_keeps_the_records_or_the_search_takes_long() -> None:
    source = FeedSource(OWN, 1.0)
    assert not source.wants_state(3, 0.0)
    source.kept_no_more(OWN, 10.0)
    assert not source.wants_state(3, 12.9)
    assert source.wants_state(3, 13.0)
    source.fed()
    assert not source.wants_state(3, 99.0)
    for member in EVERYBODY:
        source.kept_no_more(member, 100.0)
    assert source.wants_state(3, 100.0)


def test_a_report_is_said_once_per_link_and_again_until_the_feed_shows_it() -> None:
    reporting, link, other = Reporting(0.1), object(), object()
    assert reporting.says(4, 7, link, 1.0, force=False)
    assert not reporting.says(4, 7, link, 1.0, force=False)
    assert reporting.says(4, 7, other, 1.0, force=False)
    assert reporting.again(Cut(6, 4, 0), 1.0), "the feed does not show it"
    assert not reporting.again(Cut(7, 4, 0), 1.4)
    assert reporting.again(Cut(7, 4, 0), 1.5), "what was said may be lost"


def test_a_lock_is_asked_about_when_it_has_been_held_for_ten_heartbeats() -> None:
    questions, first, second = LockQuestions(0.1), Attempt(1, 1), Attempt(1, 2)
    assert questions.due([first], 5.0) == []
    assert questions.due([first, second], 5.9) == []
    assert questions.due([first, second], 6.0) == [first]
    assert questions.due([second], 6.9) == [second], "the other one has ended"
    questions.forget()
    assert questions.due([second], 7.0) == []


def test_h13_a_leader_gives_way_after_an_election_timeout_without_a_cut() -> None:
    stuck = Stuck(ELECTION_MS)
    assert not stuck.look((4, 9), (4, 8), 20, False, 0)
    assert not stuck.look((4, 9), (4, 8), 21, False, ELECTION_MS - 1)
    assert stuck.look((4, 9), (4, 8), 22, False, ELECTION_MS)
    assert stuck.helped_by(22, 22, ELECTION_MS)
    assert not stuck.helped_by(21, 22, ELECTION_MS), "it is behind"
    assert not stuck.look((4, 9), (4, 9), 23, False, ELECTION_MS + 1), "its entry is in order now"
    assert not stuck.helped_by(99, 23, ELECTION_MS + 1)


def test_h13_who_leads_nothing_or_has_nothing_to_wait_for_is_not_stuck() -> None:
    stuck = Stuck(ELECTION_MS)
    for now_ms in range(0, 5 * ELECTION_MS, 100):
        assert not stuck.look(None, (4, 8), 20, False, now_ms)
        assert not stuck.look((4, 8), (4, 8), 20, False, now_ms)


def test_h13_a_leader_is_stuck_if_nobody_keeps_what_comes_next_and_who_does_not_lead_is_not() -> None:
    stuck = Stuck(ELECTION_MS)
    assert not stuck.look((4, 8), (4, 8), 20, False, 0, starved=True)
    assert stuck.look((4, 8), (4, 8), 20, False, ELECTION_MS, starved=True)
    assert stuck.helped_by(21, 20, ELECTION_MS)
    assert not stuck.helped_by(20, 20, ELECTION_MS), "it wants the same record"
    assert not stuck.look((4, 8), (4, 8), 30, False, 2 * ELECTION_MS)
    for now_ms in range(0, 5 * ELECTION_MS, 100):
        assert not stuck.look(None, (4, 8), 20, False, now_ms, starved=True)


def test_h13_a_long_apply_excuses_a_leader_but_not_for_ever() -> None:
    stuck = Stuck(ELECTION_MS)
    found = [
        now_ms for now_ms in range(0, 20 * ELECTION_MS, 100) if stuck.look((4, 9), (4, 8), 20, True, now_ms)
    ]
    assert found[0] >= (APPLY_LIMIT + 1) * ELECTION_MS - 100
    assert not stuck.helped_by(20, 20, found[-1]), "one that stands at the same record is no help"
    assert stuck.helped_by(21, 20, found[-1])
