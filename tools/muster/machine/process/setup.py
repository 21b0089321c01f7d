"""A process's CPU and its garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress

# These processes make few cycles and many short-lived objects: collect the young seldom, the old almost never
_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100


_ASIDE_EVERY_S = 5.0


def pin(cpu: int) -> set[int]:
    """Run the calling thread on one CPU, if that is wanted and there is such a one. The CPUs that are left
    for the others of its process (:func:`keep_aside`); none if it was not pinned."""
    usable = os.sched_getaffinity(0)
    if cpu not in usable:
        return set()
    os.sched_setaffinity(0, {cpu})
    return usable - {cpu}


def keep_aside(loop: asyncio.AbstractEventLoop, cpus: set[int]) -> None:
    """Have all threads but the loop's run on these CPUs; with none, leave them as they are.

    Threads that sync, flush and compact are born on the CPU of who first needs them: the loop's, which would
    wait for them there while others idle. Some are born late, so it looks now and then.
    """
    if cpus:
        put_aside(cpus)
        loop.call_later(_ASIDE_EVERY_S, keep_aside, loop, cpus)


def put_aside(cpus: set[int]) -> None:
    """Move every thread of this process but the main one to these CPUs."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/task"):
            thread = int(name)
            with suppress(OSError):  # it has ended
                if thread != os.getpid() and os.sched_getaffinity(thread) != cpus:
                    os.sched_setaffinity(thread, cpus)


def settle_memory() -> None:
    """What has been loaded lives as long as the process: take it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
