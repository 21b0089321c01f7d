"""How long the longest of many turns takes, in CPU time of this thread: what others do counts little.

Caches are shared, and a machine may be a guest: tests of turns are the best of three (``tests.tries``).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from time import thread_time

from tests.tries import within

LONGEST_S = 0.02  # nothing may hold a loop for longer


class Turns:
    """Times pieces of work."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One piece."""
        began = thread_time()
        yield
        self.longest_s = max(self.longest_s, thread_time() - began)


@contextlib.contextmanager
def short_turns(longest_s: float = LONGEST_S) -> Iterator[Turns]:
    """No turn in here takes longer (TooSlow). The garbage collector is left out: a process tunes that."""
    turns = Turns()
    gc.collect()
    gc.disable()
    try:
        yield turns
    finally:
        gc.enable()
    within(turns.longest_s, longest_s, "a turn")
