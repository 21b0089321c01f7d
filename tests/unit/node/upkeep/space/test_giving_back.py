"""Space that is given back: beside everything else, one piece at a time, and not for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest

from node.storage import NoRoom
from node.upkeep.space import giving_back
from node.upkeep.space.giving_back import GivingBack
from node.upkeep.space.rewriting import Busy
from tests.unit.machines import machine_on


def test_one_piece_at_a_time_and_what_is_wanted_meanwhile_once() -> None:
    go_on, began = threading.Event(), threading.Event()
    done: list[str] = []

    def first(again: bool) -> None:
        began.set()
        go_on.wait(10)
        done.append("first")

    def second(again: bool) -> None:
        done.append("second")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        back = GivingBack(machine_on(loop), done.append)
        back.want(first)
        await loop.run_in_executor(None, began.wait, 10)
        for _ in range(3):
            back.want(second)
            back.want(first)
        assert done == []
        go_on.set()
        while len(done) < 3:
            await asyncio.sleep(0.001)
        back.close()

    asyncio.run(run())
    assert done == ["first", "second", "first"]


def test_it_takes_a_fifth_of_the_time_at_most() -> None:
    ran: list[tuple[float, float]] = []

    def work(again: bool) -> None:
        began = time.monotonic()
        time.sleep(0.02)
        ran.append((began, time.monotonic()))

    async def run() -> None:
        back = GivingBack(machine_on(asyncio.get_running_loop()), lambda reason: None)
        back.want(work)
        while len(ran) < 3:
            back.want(work)
            await asyncio.sleep(0.001)
        back.close()

    asyncio.run(run())
    for (began, ended), (next_began, _) in pairwise(ran):
        assert next_began - ended >= 3.5 * (ended - began)


def test_what_another_shard_is_busy_with_waits_and_is_done_after_other_work(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving_back, "AGAIN_S", 0.001)
    done: list[str] = []

    def rewrite(again: bool) -> None:
        assert again, "it is told what it was told before"
        done.append("rewrite")
        if done.count("rewrite") < 3:
            raise Busy

    def reclaim(again: bool) -> None:
        done.append("reclaim")

    async def run() -> None:
        back = GivingBack(machine_on(asyncio.get_running_loop()), done.append)
        back.want(rewrite, again=True)
        back.want(reclaim)
        while len(done) < 4:
            await asyncio.sleep(0.001)
        back.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert done == ["rewrite", "reclaim", "rewrite", "rewrite"]


def test_what_fails_ends_the_node_but_what_has_no_room_does_not() -> None:
    reasons: list[str] = []
    failures = [OSError("the disk"), NoRoom("too much")]

    def work(again: bool) -> None:
        raise failures.pop()

    async def run() -> None:
        back = GivingBack(machine_on(asyncio.get_running_loop()), reasons.append)
        while not reasons:
            back.want(work)
            await asyncio.sleep(0.001)
        back.close()

    asyncio.run(run())
    assert failures == []
    assert reasons == ["freeing disk space failed: the disk"]


def test_what_is_wanted_while_it_finds_no_room_is_not_told_of_that() -> None:
    """A compaction asks for the room of one host."""
    go_on, began = threading.Event(), threading.Event()
    told: list[bool] = []

    def work(again: bool) -> None:
        told.append(again)
        began.set()
        if go_on.wait(10) and again:
            raise NoRoom("too little")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        back = GivingBack(machine_on(loop), lambda reason: None)
        back.want(work, again=True)
        await loop.run_in_executor(None, began.wait, 10)
        back.want(work)
        go_on.set()
        while len(told) < 2:
            await asyncio.sleep(0.001)
        back.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert told == [True, False]
