"""What both kinds of leader stand on: requests until they are evaluated, entries until they are decided."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import pytest

from cluster.pacing.pace import Pace
from cluster.pipeline.aside import Aside
from cluster.pipeline.intake import Intake
from cluster.pipeline.under_way import UnderWay

Asked = tuple[str, bytes]


def intake(*named: str, most: int = 10) -> Intake[Asked]:
    """With some requests of a few bytes each."""
    found: Intake[Asked] = Intake(Pace(3), most)
    for name in named:
        assert found.take((name, name.encode()), 0)
    return found


def test_requests_stand_in_the_order_in_which_they_came() -> None:
    waiting = intake("a", "bb", "ccc")
    assert ([name for name, _ in waiting.queue], waiting.bytes) == (["a", "bb", "ccc"], 6)


def test_who_waited_elsewhere_stands_before_all_others_and_keeps_its_place_among_them() -> None:
    waiting = intake("c", "d")
    waiting.first([("a", b"a"), ("b", b"bb")])
    assert ([name for name, _ in waiting.queue], waiting.bytes) == (["a", "b", "c", "d"], 5)


def test_i23_what_waits_is_bounded_wherever_it_waits() -> None:
    waiting = intake("a", "b", most=3)
    assert not waiting.take(("c", b"c"), 1), "one waits elsewhere"
    assert waiting.take(("c", b"c"), 0)
    assert not waiting.take(("d", b"d"), 0)
    assert (len(waiting), waiting.bytes) == (3, 3)


def test_i23_several_are_taken_whole_or_not_at_all() -> None:
    waiting = intake("a", most=4)
    more = [("b", b"bb"), ("c", b"ccc")]
    assert not waiting.take_all(more, 2), "two wait elsewhere"
    assert (len(waiting), waiting.bytes) == (1, 1)
    assert waiting.take_all(more, 1)
    assert ([name for name, _ in waiting.queue], waiting.bytes) == (["a", "b", "c"], 6)


def test_what_is_queued_gathers_while_an_entry_is_under_way() -> None:
    waiting = intake("a", "b")
    assert waiting.due(0)
    assert not waiting.due(1)
    waiting.take(("c", b"c"), 0)
    assert waiting.due(1), "they fill an entry"


def test_whom_nobody_waits_for_is_forgotten() -> None:
    waiting = intake("a", "bb", "ccc")
    waiting.forget(lambda request: request[0] == "bb")
    assert ([name for name, _ in waiting.queue], waiting.bytes) == (["a", "ccc"], 4)


def test_whoever_stands_aside_comes_back_once_with_what_was_asked() -> None:
    aside: Aside[str, bytes] = Aside()
    aside.put("a", b"put")
    aside.put("b", b"txn")
    assert "a" in aside
    assert (len(aside), aside.back("a"), aside.back("a")) == (2, b"put", None)
    assert "a" not in aside
    assert aside.drain() == ["b"]
    assert (len(aside), aside.back("b")) == (0, None)


def test_whoever_stands_aside_and_is_not_waited_for_does_not_come_back() -> None:
    aside: Aside[str, bytes] = Aside()
    for name in ("a", "b"):
        aside.put(name, name.encode())
    aside.forget(lambda name: name == "a")
    assert (aside.back("a"), aside.back("b")) == (None, b"b")


def test_a_term_that_ends_leaves_nothing_behind() -> None:
    waiting = intake("a", "bb")
    assert [name for name, _ in waiting.drain()] == ["a", "bb"]
    assert (len(waiting), waiting.bytes) == (0, 0)


@dataclass
class Entry:
    name: str
    size: int = 10
    index: int = 0
    term: int = 0


def under_way(*logged: tuple[int, int]) -> UnderWay[Entry]:
    """Entries by index and term, named by their place."""
    found: UnderWay[Entry] = UnderWay(8, 100)
    for place, (index, term) in enumerate(logged):
        found.logged(index, term, Entry(f"{place}"))
    return found


def fates(
    entries: UnderWay[Entry], index: int, term: int, *, log: dict[int, int] | None = None,
) -> dict[str, bool]:
    """What is decided once the entry at ``index`` is applied. ``log``: terms of entries that are known."""
    known = None if log is None else partial(term_at, log)
    return {own.name: done for own, done in entries.applied(index, term, known)}


def term_at(log: dict[int, int], index: int) -> int:
    return log.get(index, 0)


def test_an_entry_is_done_when_it_is_applied_at_its_place_with_its_term() -> None:
    entries = under_way((5, 2), (6, 2))
    assert fates(entries, 5, 2) == {"0": True}
    assert (len(entries), entries.bytes) == (1, 10)
    assert fates(entries, 6, 2) == {"1": True}


def test_an_entry_of_another_term_at_its_place_says_that_it_is_lost() -> None:
    assert fates(under_way((5, 2), (6, 2)), 5, 3) == {"0": False, "1": False}


def test_nothing_is_decided_by_what_is_applied_before() -> None:
    entries = under_way((5, 2), (6, 2))
    assert fates(entries, 4, 2) == {}
    assert len(entries) == 2


def test_a_later_terms_entry_before_it_says_that_it_is_lost() -> None:
    """Left there, it would stand before what this replica logs in a later term."""
    assert fates(under_way((9, 2)), 4, 3) == {"0": False}


def test_what_a_leader_logged_before_an_own_entry_of_the_term_is_done_with_that() -> None:
    entries = under_way((5, 2), (6, 2), (7, 2), (8, 2))
    assert fates(entries, 7, 2) == {"0": True, "1": True, "2": True}


def test_figure_8_an_old_terms_entry_may_come_back() -> None:
    """One place, logged in two terms: the log says which of them it was."""
    assert fates(under_way((8, 2), (8, 4)), 9, 5, log={8: 2, 9: 5}) == {"0": True, "1": False}
    assert fates(under_way((8, 2), (8, 4)), 9, 5, log={8: 4, 9: 5}) == {"0": False, "1": True}
    assert fates(under_way((8, 2), (8, 4)), 7, 5, log={7: 5}) == {"0": False, "1": False}


def test_a_later_terms_entry_is_decided_although_an_older_one_before_it_is_not() -> None:
    """The older term's branch came back, and is applied up to there: the later one's place is passed."""
    entries = under_way((10, 1), (5, 2))
    assert fates(entries, 7, 1, log={5: 1, 7: 1}) == {"1": False}
    assert fates(entries, 10, 1, log={10: 1}) == {"0": True}


def test_a_snapshot_leaves_the_fates_of_what_it_replaced_unknown() -> None:
    entries = under_way((5, 2), (9, 2), (6, 3))
    assert [own.name for own in entries.skipped_to(7)] == ["0", "2"]
    assert ([own.index for own in entries.entries], entries.bytes) == ([9], 10)


def test_an_entry_is_found_by_index_and_term() -> None:
    entries = under_way((5, 2), (5, 4))
    found = [entries.at(5, term) for term in (2, 3, 4)]
    assert [own and own.name for own in found] == ["0", None, "1"]


@pytest.mark.parametrize("logged", [[(index, 2) for index in range(8)], [(index, 2) for index in range(4)]])
def test_no_more_is_logged_than_may_be_under_way(logged: list[tuple[int, int]]) -> None:
    entries = under_way(*logged)
    assert entries.has_room == (len(logged) < 8)
    entries.logged(9, 2, Entry("large", 100))
    assert not entries.has_room


@pytest.mark.parametrize("seed", range(20))
def test_fates_are_those_that_a_look_at_each_entry_finds(seed: int) -> None:
    """Terms of one replica, in each of which it logged some entries, and lost them or not."""
    rng = random.Random(seed)
    for _ in range(200):
        entries, term, open_ = UnderWay[Entry](), 0, {}
        for _ in range(rng.randrange(4)):
            term, index = term + rng.randrange(1, 3), rng.randrange(1, 8)
            for at in range(index, index + rng.randrange(4)):
                name = f"{at}/{term}"
                entries.logged(at, term, Entry(name))
                open_[name] = at, term
        log: dict[int, int] = {}
        reached, there = 0, 1
        while reached < 10:
            before = reached
            reached += rng.randrange(1, 4)
            there += rng.randrange(2)
            log |= dict.fromkeys(range(before + 1, reached + 1), there)
            expected = {
                name: at <= reached and log.get(at) == term_ for name, (at, term_) in open_.items()
                if at <= reached or term_ < there}
            assert fates(entries, reached, there, log=log) == expected
            open_ = {name: place for name, place in open_.items() if name not in expected}
