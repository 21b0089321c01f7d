"""When a process gives back what it has freed."""

from __future__ import annotations

import subprocess
import sys

from tools.muster.machine.process.trimming import GROWN_BYTES, LOOK_S, MOST_S, Trim

MB = 1 << 20


class Process:
    """One whose memory a test sets: ``used`` and ``free``."""

    def __init__(self) -> None:
        self.used, self.free, self.trims = 100 * MB, 0, 0
        self.now = 0.0
        self.trim = Trim(lambda: self.used + self.free, self._trimmed)

    def _trimmed(self) -> None:
        self.trims += 1
        self.free = 0

    def run(self, seconds: float) -> int:
        """How often it trims meanwhile."""
        before, until = self.trims, self.now + seconds
        while self.now < until:
            self.now += LOOK_S
            self.trim.look(self.now)
        return self.trims - before


def test_a_process_that_has_not_grown_is_left_alone() -> None:
    process = Process()
    process.free = GROWN_BYTES - 1
    assert not process.run(1000)


def test_what_was_freed_goes_back_at_the_next_look() -> None:
    process = Process()
    process.free = 60 * MB
    assert process.run(LOOK_S) == 1
    assert not process.free
    assert not process.run(1000)


def test_memory_in_use_is_looked_through_ever_more_seldom() -> None:
    process = Process()
    process.used += 500 * MB
    process.run(300)
    assert process.run(10 * MOST_S) == 10


def test_what_is_freed_after_a_look_that_found_nothing_goes_back_in_time() -> None:
    process = Process()
    process.used += 500 * MB
    process.run(300)
    process.used, process.free = process.used - 450 * MB, 450 * MB
    process.run(MOST_S)
    assert not process.free


def test_new_growth_is_looked_at_at_once() -> None:
    process = Process()
    process.used += 500 * MB
    process.run(300)
    process.free = 60 * MB
    process.run(LOOK_S)
    assert not process.free


def test_the_c_librarys_free_memory_goes_back_to_the_kernel() -> None:
    """60 MB freed before a block that is in use: all that the library gives back by itself is the end of its
    heap."""
    code = """
import asyncio
from tools.muster.machine.process import trimming

trimming.LOOK_S = 0.02

async def main():
    loop = asyncio.get_running_loop()
    trimming.give_back_freed(loop)
    held = [b"x" * 100_000 for _ in range(600)]
    last = b"x" * 1000
    most = trimming.resident_bytes()
    del held
    async with asyncio.timeout(30):
        while trimming.resident_bytes() > most - (50 << 20):
            await asyncio.sleep(0.02)
    assert last

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
