"""Answers of version 2 that are made in turns."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.faults import faults
from cluster.features.v2.text import in_steps
from proxy.v2.call import InTurns


class Asked:
    def __init__(self) -> None:
        self.closed = self.started = False
        self.answer = b""

    def respond(self, status: int, body: bytes, *_: object) -> None:
        self.answer = b"%d" % status


@pytest.mark.parametrize("leaves", [False, True])
def test_nothing_of_an_answer_that_was_given_is_left_to_the_garbage_collector(leaves: bool) -> None:
    """Each is megabytes, and too few objects to be looked for."""
    turns: deque[Callable[[], None]] = deque()
    request: Any = Asked()

    def made(body: bytes, asked: Any = request) -> None:
        asked.answer = body

    answers = InTurns(turns.append)
    answers.begin(request, in_steps(b'{"v":\0}', [b"<" * 100_000]), made)
    if leaves:
        request.closed = True
    count = 0
    gc.disable()
    try:
        while turns:
            turns.popleft()()
            count += 1
        assert (count > 3, bool(request.answer)) == (not leaves, not leaves)
        gone = weakref.ref(request)
        del request, made
        assert gone() is None
    finally:
        gc.enable()


def test_a_turn_has_one_step_however_many_answers_are_made() -> None:
    turns: deque[Callable[[], None]] = deque()
    requests = [Asked() for _ in range(50)]
    steps: list[int] = []

    def parts(number: int) -> Iterator[bytes]:
        for _ in range(3):
            steps.append(number)
            yield b"x"
        if number == 7:
            raise ValueError("it cannot be made")

    answers = InTurns(turns.append)
    for number, request in enumerate(requests):
        answers.begin(request, parts(number), lambda body, to=request: setattr(to, "answer", body))  # type: ignore
    while turns:
        before = len(steps)
        turns.popleft()()
        assert len(steps) <= before + 1
        assert len(turns) <= 1
    assert [request.answer for request in requests] == 7 * [b"xxx"] + [b"500"] + 42 * [b"xxx"]
    assert [where for where, _ in faults.take()] == ["making an answer of version 2"]
