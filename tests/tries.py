"""How long something takes, on a machine that others use.

Noise only adds to a latency: another process takes the CPU, a disk is busy, a machine stands still. So a test
whose claim is a bound of time, and no rule of what is right, may be tried up to three times, and the best try
counts; the bound stays. Such a test judges its times with :func:`within` and is marked::

    @best_of_three
    def test_it_is_quick() -> None:
        ...
        within(took_s, 0.5)

Whatever else fails is a failure at once. A test that is tried again has the same fixtures: it leaves them as
it found them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

TRIES = 3

P = ParamSpec("P")


class TooSlow(AssertionError):
    """A bound of time is exceeded, and nothing else is wrong."""


def within(took_s: float, bound_s: float, what: str = "it") -> None:
    """Something took so long at most."""
    if took_s > bound_s:
        raise TooSlow(f"{what} took {took_s:.4f} s, {bound_s:.4f} s at most")


def best_of_three(test: Callable[P, None]) -> Callable[P, None]:
    """A test that is tried again as long as nothing but time fails."""

    @functools.wraps(test)
    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(TRIES - 1):
            try:
                return test(*args, **kwargs)
            except TooSlow as slow:
                print(f"once more: {slow}", flush=True)
        return test(*args, **kwargs)

    return tried
