"""RocksDB's compaction threads give way to the event loop.

A node has one CPU. A compaction beside it took half of that for seconds, and everybody waited twice as long.
With a nice value 5 above the loop's it takes a quarter while the loop is busy, and all that is left
otherwise; RocksDB's own switch (``Env.lower_thread_pool_cpu_priority``) means 19, with which a busy loop
would starve it until writes stall. It keeps the kernel's usual time slices, so that a loop with short ones
has the CPU as soon as it wakes (``tools.muster.machine.process.scheduling``). Flushes, which free memory that
writes wait for, keep their priority.
"""

from __future__ import annotations

import os
from contextlib import suppress

from tools.muster.machine.process.scheduling import set_slice

_NICER_BY = 5
_NAME = b"rocksdb:low"


def lower_compactions() -> int:
    """Call it when a database is open; returns how many threads there are. Nothing where there is no
    /proc."""
    nice = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICER_BY, 19)
    found = 0
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/comm", "rb") as name:
                if name.read().startswith(_NAME):
                    os.setpriority(os.PRIO_PROCESS, int(thread), nice)
                    set_slice(int(thread), 0)
                    found += 1
    return found
