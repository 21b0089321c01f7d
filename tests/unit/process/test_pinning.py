"""A pinned process's loop has its CPU for itself: what syncs, flushes and compacts beside it runs
elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, os, sys, threading
from tools.muster.machine.process.setup import keep_aside, pin

usable = sorted(os.sched_getaffinity(0))
others = pin(int(sys.argv[1]))
stop = threading.Event()

def started():
    thread = threading.Thread(target=stop.wait)
    thread.start()
    return thread.native_id

async def main():
    early = started()
    keep_aside(asyncio.get_running_loop(), others)
    late = started()
    keep_aside(asyncio.get_running_loop(), others)
    print(json.dumps([usable, *(sorted(os.sched_getaffinity(t)) for t in (0, early, late))]))
    stop.set()

asyncio.run(main())
"""


def affinities(cpu: int) -> list[list[int]]:
    """Usable CPUs; those of the loop, of a thread started before it looked, and of one after."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cpu)], capture_output=True, text=True, check=True, timeout=60,
        cwd=Path(__file__).parents[3],
    )
    found: list[list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_threads_beside_a_pinned_loop_run_elsewhere() -> None:
    cpu = min(os.sched_getaffinity(0))
    usable, loop, early, late = affinities(cpu)
    assert loop == [cpu]
    assert early == late == [other for other in usable if other != cpu]


def test_without_a_cpu_of_its_own_nothing_is_moved() -> None:
    usable, loop, early, late = affinities(-1)
    assert loop == early == late == usable
