"""Connections that go on with what has been read share a turn of the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.http.backlog import SHARED_S, Backlog


class Loop:
    """Turns of a loop, and a clock that stands still but for what is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []
        self.backlog = Backlog(self.due.append, lambda: self.now)

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
