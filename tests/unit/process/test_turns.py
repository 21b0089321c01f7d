"""How long an event loop was held is measured, whatever held it."""

from __future__ import annotations

import asyncio
import time

import uvloop

from tools.muster.machine.process.turns import BOUNDS_S, LONG_S, Turns


def held(*seconds: float) -> Turns:
    """What is measured of a loop that is held for so long, several times."""
    turns = Turns()

    async def one_look() -> None:
        looks = turns.late.count
        while turns.late.count == looks:
            await asyncio.sleep(0.001)

    async def main() -> None:
        turns.watch(asyncio.get_running_loop())
        for one in seconds:
            await one_look()
            time.sleep(one)
            await one_look()
        turns.stop()

    uvloop.run(main())
    return turns


def test_a_turn_that_holds_the_loop_is_seen() -> None:
    turns = held(0.2)
    assert turns.longest_s > 0.2 - 0.1 - 0.02
    assert turns.long >= 1
    assert sum(turns.late.counts[BOUNDS_S.index(LONG_S) + 1 :]) == turns.long


def test_buckets_count_what_was_no_later() -> None:
    turns = Turns()
    for late_s in (0.0, 0.0015, 0.03, 5.0):
        turns.add(late_s)
    found = dict(turns.late.buckets())
    assert [found[bound] for bound in ("0.001", "0.002", "0.02", "0.05", "1", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert (turns.longest_s, turns.long) == (5.0, 2)
