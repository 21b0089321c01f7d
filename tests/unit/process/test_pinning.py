"""A pinned process's loop has its CPU for itself: what syncs, flushes and compacts beside it runs elsewhere.
A loop whose CPU nobody named lets go of it where others want it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.muster.machine.process.place import Contention, waited_for_cpu_s

PROGRAM = """
import asyncio, itertools, json, os, sys, threading
from tools.muster.machine.process import place

place.LOOK_S = 0.001
usable = sorted(os.sched_getaffinity(0))
waited = itertools.count(0.0, float(sys.argv[3]))
kept = place.Place(int(sys.argv[1]), lets_go=sys.argv[2] == "lets go", waited_s=lambda: next(waited))
stop = threading.Event()

def started():
    thread = threading.Thread(target=stop.wait)
    thread.start()
    return thread.native_id

async def main():
    threads = [0, started()]
    kept.keep(asyncio.get_running_loop())
    threads.append(started())
    while kept.pinned and kept.looks < 12:
        await asyncio.sleep(0.001)
    print(json.dumps([usable, *(sorted(os.sched_getaffinity(t)) for t in threads)]))
    stop.set()

asyncio.run(main())
"""


def affinities(cpu: int, manner: str = "lets go", wait_s: float = 0.0) -> list[list[int]]:
    """Usable CPUs; those of the loop, of a thread started before it looked, and of one after. ``wait_s``: of
    each look."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cpu), manner, str(wait_s)], capture_output=True, text=True,
        check=True, timeout=120, cwd=Path(__file__).parents[3],
    )
    found: list[list[int]] = json.loads(done.stdout)
    return found


two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
CPU = min(os.sched_getaffinity(0))


@two_cpus
@pytest.mark.parametrize(("manner", "wait_s"), [("lets go", 0.0), ("keeps", 60.0)])
def test_threads_beside_a_pinned_loop_run_elsewhere(manner: str, wait_s: float) -> None:
    usable, loop, early, late = affinities(CPU, manner, wait_s)
    assert loop == [CPU]
    assert early == late == [other for other in usable if other != CPU]


@two_cpus
def test_a_loop_that_waits_for_its_cpu_lets_go_of_it() -> None:
    usable, loop, early, late = affinities(CPU, "lets go", 60.0)
    assert loop == early == late == usable


def test_without_a_cpu_of_its_own_nothing_is_moved() -> None:
    usable, loop, early, late = affinities(-1)
    assert loop == early == late == usable


def test_the_kernel_tells_what_a_process_waited() -> None:
    before = waited_for_cpu_s()
    assert 0 <= before <= waited_for_cpu_s()


def looks(contention: Contention, at: float, seconds: int, share: float) -> list[bool]:
    """One look a second, from ``at`` on, each after ``share`` of a second of waiting."""
    waited = contention.waited_s
    return [contention.look(at + i, waited + i * share) for i in range(1, seconds + 1)]


def test_little_waiting_loses_no_cpu() -> None:
    assert all(looks(Contention(0.0, 5.0), 0.0, 1000, 0.015))


def test_a_cpu_that_was_let_go_is_taken_again_after_a_quiet_minute_then_two() -> None:
    contention = Contention(0.0, 0.0)
    assert looks(contention, 0.0, 3, 0.5) == [False] * 3
    assert looks(contention, 3.0, 59, 0.001) == [False] * 59
    assert looks(contention, 62.0, 1, 0.1) == [False]  # not quiet yet
    assert looks(contention, 63.0, 60, 0.001) == [False] * 59 + [True]
    assert looks(contention, 123.0, 1, 0.1) == [False]
    assert looks(contention, 124.0, 120, 0.001) == [False] * 119 + [True]


def test_a_clock_that_stands_still_lets_nothing_go() -> None:
    contention = Contention(7.0, 1.0)
    assert contention.look(7.0, 1.0)
