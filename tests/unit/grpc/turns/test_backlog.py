"""Connections that go on with what has been read share a turn of the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.http.backlog import (
    AGAIN_S,
    COMPANY_TURNS,
    LARGE_BYTES,
    LEAST_PART,
    LONG_S,
    LOUD_S,
    LOUD_TURNS,
    REST_S,
    SHARED_S,
    Backlog,
)
from proxy.http.http2.connection import BRIEF_WORK, TURN_WORK


class Loop:
    """Turns of a loop, and a clock that stands still but for what is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.backlog = Backlog(self.due.append, self.later, lambda: self.now)

    def later(self, after_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + after_s, callback))

    def rest(self) -> float:
        """Nothing is due but a timer: how long until then."""
        assert not self.due
        [(when, callback)] = self.timers
        self.timers.clear()
        left_s, self.now = when - self.now, when
        callback()
        return left_s

    def turn(self) -> float:
        """Run what is due; how long that took."""
        began, due = self.now, self.due[:]
        del self.due[:]
        for callback in due:
            callback()
        return self.now - began


class Busy:
    """A connection with so many turns of work."""

    def __init__(self, loop: Loop, turns: int, turn_s: float = SHARED_S) -> None:
        self.loop, self.turns, self.turn_s = loop, turns, turn_s
        self.done: list[float] = []
        loop.backlog.add(self.go_on)

    def go_on(self) -> None:
        self.loop.now += self.turn_s
        self.done.append(self.loop.now)
        self.turns -= 1
        if self.turns:
            self.loop.backlog.add(self.go_on)


def test_forty_busy_connections_take_a_turn_no_longer_than_one_does() -> None:
    loop = Loop()
    busy = [Busy(loop, 5) for _ in range(40)]
    longest = 0.0
    while loop.due:
        assert len(loop.due) == 1
        longest = max(longest, loop.turn())
    assert longest == pytest.approx(SHARED_S)
    assert not any(one.turns for one in busy)
    rounds = zip(*[one.done for one in busy], strict=True)
    assert all(max(times) - min(times) < 40 * SHARED_S for times in rounds)  # nobody is passed over


def test_short_work_of_many_is_done_in_one_turn() -> None:
    loop = Loop()
    busy = [Busy(loop, 1, SHARED_S / 100) for _ in range(40)]
    loop.turn()
    assert not loop.due
    assert not any(one.turns for one in busy)


def test_who_comes_back_waits_for_the_next_turn() -> None:
    loop = Loop()
    one = Busy(loop, 3, 0.0)
    loop.turn()
    assert len(one.done) == 1
    loop.turn()
    assert len(one.done) == 2


class Loud:
    """A connection that stops in the middle again and again."""

    def __init__(self, loop: Loop, left: int, go_s: float) -> None:
        self.loop, self.left, self.go_s = loop, left, go_s
        self.turns = loop.backlog.again(self.go_on, 0)

    def go_on(self) -> None:
        self.loop.now += self.go_s
        self.left -= 1
        if self.left:
            self.turns = self.loop.backlog.again(self.go_on, self.turns)


def test_who_comes_back_turn_after_turn_has_less_of_each() -> None:
    loop = Loop()
    loud = [Loud(loop, 200, LOUD_S / 3) for _ in range(4)]
    while any(one.turns <= LOUD_TURNS for one in loud):
        assert loop.turn() <= (AGAIN_S + LOUD_S) * 4 / 3 * 1.01
    lefts = [one.left for one in loud]
    assert max(lefts) - min(lefts) <= 1
    while loop.due:
        assert loop.turn() <= LOUD_S * 4 / 3 * 1.01  # what has begun goes on to its end
        lefts = [one.left for one in loud]
        assert max(lefts) - min(lefts) <= 1
    assert not any(lefts)


def test_each_kind_has_its_share_of_a_turn() -> None:
    loop = Loop()
    loud = Loud(loop, 100, LOUD_S)
    while loud.turns <= LOUD_TURNS:
        loop.turn()
    busy, stopped = [Busy(loop, 1) for _ in range(2)], [Loud(loop, 2, AGAIN_S) for _ in range(2)]
    left = loud.left
    assert loop.turn() == pytest.approx(SHARED_S + AGAIN_S + LOUD_S)
    assert [one.turns for one in busy] == [0, 1]
    assert [one.left for one in stopped] == [1, 2]
    assert loud.left == left - 1


def test_a_loud_one_whose_work_takes_no_time_gives_way() -> None:
    loop = Loop()
    loud = Loud(loop, 10_000, 0.0)
    while loop.due:
        left = loud.left
        loop.turn()
        assert left - loud.left <= 100


def test_who_is_loud_or_sends_much_in_a_turn_that_is_used_up_may_do_less() -> None:
    loop = Loop()
    work = loop.backlog.work
    assert [work(LOUD_TURNS, 0), work(LOUD_TURNS + 1, 0)] == [TURN_WORK, BRIEF_WORK]
    assert work(0, LARGE_BYTES + 1) == TURN_WORK
    loop.now += SHARED_S / 2  # others' reads
    assert work(0, LARGE_BYTES + 1) == TURN_WORK
    loop.now += SHARED_S / 2
    assert [work(0, LARGE_BYTES), work(0, LARGE_BYTES + 1)] == [TURN_WORK, BRIEF_WORK]
    loop.turn()
    assert work(0, LARGE_BYTES + 1) == TURN_WORK


def loud_one(loop: Loop) -> Loud:
    """A connection that is loud by now, and never ends."""
    loud = Loud(loop, 1_000_000, LOUD_S)
    while loud.turns <= LOUD_TURNS:
        loop.turn()
    return loud


def test_loud_ones_rest_between_their_turns_while_others_ask() -> None:
    loop = Loop()
    loud = loud_one(loop)
    loop.backlog.heard = True
    for _ in range(COMPANY_TURNS + 1):
        left = loud.left
        assert loop.turn() == pytest.approx(LOUD_S)
        assert loud.left == left - 1
        if loop.timers:
            assert loop.rest() == pytest.approx(REST_S)
    assert not loop.timers  # nobody has asked for long: the loop is theirs again
    for _ in range(10):
        assert loop.turn() == pytest.approx(LOUD_S)


def test_others_have_their_turns_while_loud_ones_rest() -> None:
    loop = Loop()
    loud = loud_one(loop)
    loop.backlog.work(0, LARGE_BYTES)  # somebody sends little
    loop.turn()
    left = loud.left
    busy = Busy(loop, 3, 0.0001)
    while loop.due:
        loop.turn()
    assert not busy.turns
    assert loud.left == left
    loop.rest()
    loop.turn()
    assert loud.left == left - 1


def test_what_a_loud_one_sends_while_others_ask_is_for_its_turn() -> None:
    loop = Loop()
    backlog = loop.backlog
    loud_one(loop)
    assert backlog.work(LOUD_TURNS + 1, 0) == BRIEF_WORK
    assert not backlog.spent(LOUD_TURNS + 1)
    backlog.heard = True
    loop.turn()
    assert backlog.work(LOUD_TURNS + 1, 0) == 0
    assert backlog.spent(LOUD_TURNS + 1)
    assert not backlog.spent(LOUD_TURNS)
    went: list[int] = []
    backlog.add(lambda: went.append(backlog.work(LOUD_TURNS + 1, 0)), LOUD_TURNS + 1)
    while loop.due:
        loop.turn()
    loop.rest()
    loop.turn()
    loop.rest()
    loop.turn()
    assert went == [BRIEF_WORK]


def test_new_connections_that_go_on_are_taken_for_loud_after_one_was_turned_out() -> None:
    loop = Loop()
    assert loop.backlog.newcomers_grace() == 0
    loop.backlog.turned_out()
    assert loop.backlog.newcomers_grace() == LARGE_BYTES
    loop.now += 1.1
    assert loop.backlog.newcomers_grace() == 0


def test_those_that_wait_have_less_of_turns_that_take_long_while_others_are_answered_at_once() -> None:
    loop = Loop()
    crowd = [Busy(loop, 1, SHARED_S / 20) for _ in range(3000)]

    def answered() -> int:
        before = sum(not one.turns for one in crowd)
        loop.turn()
        return sum(not one.turns for one in crowd) - before

    def long_turns(turns: int) -> int:
        for _ in range(turns):
            loop.now += LONG_S  # answers, and what peers say
            last = answered()
        return last

    assert answered() == 20
    loop.backlog.heard = True  # by one of the crowd
    assert long_turns(10) >= 20
    loop.backlog.at_once = True
    assert long_turns(5) <= 20 * LEAST_PART + 1  # the last one goes beyond it
    for _ in range(10):
        last = answered()
    assert last >= 20
    assert long_turns(COMPANY_TURNS) >= 20  # nobody has asked for long


def test_a_fault_of_one_leaves_the_others_their_turns() -> None:
    loop = Loop()

    def fault() -> None:
        raise AssertionError("a fault of the program")

    loop.backlog.add(fault)
    other = Busy(loop, 1)
    with pytest.raises(AssertionError):
        loop.turn()
    loop.turn()
    assert not other.turns
    assert not loop.due
