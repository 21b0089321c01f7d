"""Looking out for an answer instead of going to sleep."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import pytest

from cluster.settings import Common
from node.replica.pacing.spin import Spin
from tools.muster.machine.real import RealMachine


class Loop:
    """Runs what is scheduled when told; sleeps on ``epoll``."""

    def __init__(self, epoll: select.epoll | None) -> None:
        self.scheduled: list[Callable[[], None]] = []
        if epoll is not None:
            self._get_backend_id = epoll.fileno

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.scheduled.append(callback)

    def turn(self) -> int:
        due, self.scheduled = self.scheduled, []
        for callback in due:
            callback()
        return len(due)


def spin_on(loop: Loop, wanted: Callable[[], bool] = lambda: True) -> Spin:
    machine = RealMachine(cast(asyncio.AbstractEventLoop, loop), Common(1, 1, "h", 1, 2, (), "/nowhere"))
    return Spin(machine, wanted)


@pytest.fixture
def epoll() -> Iterator[select.epoll]:
    with select.epoll() as made:
        yield made


@pytest.fixture
def answered(epoll: select.epoll) -> Iterator[Callable[[], object]]:
    """Something arrives that the loop would wake for."""
    reader, writer = os.pipe()
    epoll.register(reader, select.EPOLLIN)
    yield partial(os.write, writer, b"x")
    os.close(reader)
    os.close(writer)


def looks(spin: Spin, loop: Loop, waits: int) -> int:
    """In how many of so many waits it looked."""
    count = 0
    for _ in range(waits):
        spin.soon()
        count += loop.turn()
    return count


def test_while_answers_come_it_looks_every_time(epoll: select.epoll, answered: Callable[[], object]) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop)
    answered()
    assert looks(spin, loop, 50) == 50


def test_each_look_in_vain_doubles_the_waits_until_the_next(epoll: select.epoll) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop)
    assert looks(spin, loop, 1 + 1 + 1 + 3 + 1 + 7) == 3  # then 1, 3 and 7 without one
    assert looks(spin, loop, 1) == 1


def test_in_vain_it_still_looks_now_and_then(epoll: select.epoll) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop)
    looks(spin, loop, 2_000)
    assert looks(spin, loop, 257) == 1


def test_an_answer_in_time_forgives_the_looks_in_vain(
    epoll: select.epoll, answered: Callable[[], object]
) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop)
    looks(spin, loop, 1 + 1 + 1 + 3)
    answered()
    assert looks(spin, loop, 20) == 20


def test_it_looks_once_in_a_turn_of_the_loop(epoll: select.epoll) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop)
    spin.soon()
    spin.soon()
    assert len(loop.scheduled) == 1


def test_it_does_not_look_for_what_has_come_meanwhile(epoll: select.epoll) -> None:
    loop = Loop(epoll)
    spin = spin_on(loop, lambda: False)
    assert looks(spin, loop, 20) == 20  # none of them was in vain


def test_a_loop_that_shows_no_descriptor_goes_to_sleep_as_ever() -> None:
    loop = Loop(None)
    assert looks(spin_on(loop), loop, 5) == 0
