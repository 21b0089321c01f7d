"""Which seeds a run simulates: the same few in CI; by ``make soak`` many, and others in each soak.

Seeds of a soak begin at ``MUSTER_SOAK_FIRST``, which ``make soak`` takes from the clock and prints: a soak
of the last one's seeds would find nothing new. A failure names its seed, and any seed repeats by itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from tests.soaking import SOAK, TIMES

FIRST = int(os.environ.get("MUSTER_SOAK_FIRST", "0"))
_SEED_S = 10.0

T = TypeVar("T")


def seeds(short: int, soak: int, first: int = 0) -> range:
    """``short`` seeds from ``first`` on, in CI; ``soak`` in a soak."""
    return range(FIRST, FIRST + soak * TIMES) if SOAK else range(first, first + short)


def in_batches(short: tuple[int, int], soak: tuple[int, int]) -> Sequence[Any]:
    """Parameters of a test that simulates a batch of seeds: how many batches, and of how many seeds each.
    Batches of a soak are larger: among thousands of seeds, four in a row may do little."""
    batches, size = soak if SOAK else short
    every = seeds(batches * size, batches * size)
    return [pytest.param(every[at:at + size], id=str(at // size)) for at in range(0, len(every), size)]


def failed_once(seeds: Mapping[Any, str], beside: Collection[Any] = ()) -> list[Any]:
    """Parameters of a test that simulates seeds again, given with what was wrong. Where the simulator or the
    checker was, which says nothing of muster, only soaks simulate them, as those that CI simulates
    ``beside``."""
    ours = ("the simulator's: ", "the checker's: ")
    return [
        pytest.param(*(seed if isinstance(seed, tuple) else (seed,)),
                     marks=pytest.mark.soak if wrong.startswith(ours) or seed in beside else ())
        for seed, wrong in sorted(seeds.items())
    ]


def dealt(tests: Sequence[T], workers: int) -> list[T]:
    """Tests whose longest stand first, for workers that begin with a stretch of them each and then take from
    the end of another's (``--dist worksteal``): each begins with long ones, and short ones end together."""
    return [test for worker in range(workers) for test in tests[worker::workers]]


def seconds_for(taken: range) -> float:
    """The limit of a test that simulates these seeds. One takes 0.4 to 2 s of a CPU, and 1 to 5 s where
    others want the CPUs as well. A simulation that never ends is noticed by itself (``ENDLESS``)."""
    return max(600.0, len(taken) * _SEED_S)
