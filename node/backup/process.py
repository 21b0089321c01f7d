"""The process that builds a backup: ``python -m node.backup.process``. Job on standard input, result on
standard output (``build``).

It works beside nodes that serve, on any CPU while that is free (``giving_way``), and as a nice process where
that is hardly ever. What it works with is imported late: 0.3 s of CPU time that puts would meet at the start
of every backup.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from node.backup import giving_way

_NICE = 10


def main() -> int:
    me, parent = os.getpid(), os.getppid()
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):  # the node is pinned, and what it starts with it
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    job = sys.stdin.read()
    made = giving_way.attempt(lambda: _made(job, me), lambda: os.getppid() == parent)
    if made is None:
        if os.getppid() != parent:
            return 1
        made = _made(job, parent)
    sys.stdout.write(made.decode())
    return 0


def _made(job: str, parent: int) -> bytes:
    from node.backup.build import result

    return result(job, parent)


if __name__ == "__main__":
    sys.exit(main())
