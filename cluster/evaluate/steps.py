"""Long work in steps: a generator that pauses now and then, and returns what comes of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]  # a step takes some tenths of a millisecond

STEP_OPS = 64  # operations of a transaction in a step


class Stepped(Protocol):
    """Work that its owner wants done before its turn, step by step beside the loop."""

    def steps(self) -> Steps[None]:
        """Do it. EtcdError: a refusal."""


def finish(steps: Steps[T]) -> T:
    """All steps at once."""
    try:
        while True:
            next(steps)
    except StopIteration as e:
        result: T = e.value
        return result
