"""How long the longest of many turns takes, in CPU time of this thread: what other processes do does not count."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from time import thread_time

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
    """No turn in here takes longer. The garbage collector, which a process tunes for itself, is left out."""
    turns = Turns()
    gc.collect()
    gc.disable()
    try:
        yield turns
    finally:
        gc.enable()
    assert turns.longest_s < longest_s, f"a turn took {turns.longest_s * 1000:.1f} ms"
