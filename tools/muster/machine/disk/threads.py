"""RocksDB's compaction threads give way to the event loop.

A compaction took half of a node's CPU for seconds, and all clients waited twice as long. With a nice value 5
above the loop's it takes a quarter while the loop is busy. RocksDB's own switch
(``Env.lower_thread_pool_cpu_priority``) sets 19, with which a busy loop starves it until writes stall. Its
time slices stay the usual ones (``process.scheduling``). Flushes keep their priority: writes wait for their
memory.
"""

from __future__ import annotations

import os
from contextlib import suppress

from tools.muster.machine.process.scheduling import set_slice

_NICER_BY = 5
_NAME = b"rocksdb:low"


def lower_compactions() -> int:
    """Call it with a database open. Returns the number of threads; 0 without /proc."""
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
