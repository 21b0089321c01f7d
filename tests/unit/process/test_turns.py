"""How long an event loop was held is measured, whatever held it."""

from __future__ import annotations

import asyncio
import time

import uvloop

from tools.muster.machine.process.turns import BOUNDS_S, LONG_S, Turns, pause_after

_TRIES = 40  # an idle loop is looked at once a second


def held(second: float, seen_s: float) -> Turns:
    """What is measured of a loop that is held for so long, until it is seen."""
    turns = Turns()

    async def main() -> None:
        turns.watch(asyncio.get_running_loop())
        for _ in range(_TRIES):
            time.sleep(second)
            await asyncio.sleep(0.001)
            if turns.longest_s > seen_s:
                break
        turns.stop()

    uvloop.run(main())
    return turns


def test_a_turn_that_holds_the_loop_is_seen() -> None:
    turns = held(0.2, 0.08)
    assert turns.longest_s > 0.08
    assert turns.long >= 1
    assert sum(turns.late.counts[BOUNDS_S.index(LONG_S) + 1 :]) == turns.long


def test_buckets_count_what_was_no_later() -> None:
    turns = Turns()
    for late_s in (0.0, 0.0015, 0.03, 5.0):
        turns.add(late_s)
    found = dict(turns.late.buckets())
    assert [found[bound] for bound in ("0.001", "0.002", "0.02", "0.05", "1", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert (turns.longest_s, turns.long) == (5.0, 2)


def test_the_less_a_process_does_the_seldomer_it_is_woken() -> None:
    assert [pause_after(share) for share in (0.5, 0.06, 0.03, 0.01, 0.0)] == [0.01, 0.01, 0.1, 1.0, 1.0]
