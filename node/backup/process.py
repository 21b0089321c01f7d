"""The process that makes a backup: ``python -m node.backup.process``. Job on standard input, on standard
output what ``build.send`` writes, as fast as it is read.

It works beside nodes that serve, on any CPU while that is free (``giving_way``), and as a nice process where
that is hardly ever: that goes on where the first attempt ended. What it works with is imported late: 0.3 s of
CPU time that puts would meet at the start of every backup. It ends with its parent, or when nobody reads.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from node.backup import giving_way
from node.backup.writing import Passed, Write

_NICE = 10


def main() -> int:
    me, parent = os.getpid(), os.getppid()
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):  # the node is pinned, and what it starts with it
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    job = sys.stdin.buffer.read()
    passed = Passed(sys.stdout.fileno())
    if not giving_way.attempt(
        lambda write: _make(job, me, write), passed.write, lambda: os.getppid() == parent
    ):
        if passed.broken or os.getppid() != parent:
            return 1
        _make(job, parent, passed.from_the_beginning())
    return 0


def _make(job: bytes, parent: int, write: Write) -> None:
    from node.backup.build import send

    send(job, parent, write)


if __name__ == "__main__":
    sys.exit(main())
