"""Answers of version 2 that are made in turns."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from cluster.features.v2.text import in_steps
from proxy.v2.call import InTurns


class Asked:
    def __init__(self) -> None:
        self.closed, self.answer = False, b""


@pytest.mark.parametrize("leaves", [False, True])
def test_nothing_of_an_answer_that_was_given_is_left_to_the_garbage_collector(leaves: bool) -> None:
    """Each is megabytes, and too few objects to be looked for."""
    turns: deque[Callable[[], None]] = deque()
    request: Any = Asked()

    def made(body: bytes, asked: Any = request) -> None:
        asked.answer = body

    InTurns(turns.append, request, in_steps(b'{"v":\0}', [b"<" * 100_000]), made).go_on()
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
