"""File descriptors: clients leave some to the disk and to other hosts.

A process that has none left cannot open a table of RocksDB or take a peer's connection: the host would look
broken because a client opened connections. So the soft limit becomes the hard one (as Go's programs do), and
clients get what a reserve leaves.
"""

from __future__ import annotations

import resource

# tables and logs of RocksDB (256 at most are open), links to nodes, fronts and peers, sockets to listen on
_RESERVE = 1024


def raise_limit() -> int:
    """Let this process, and those that it starts, open as many files as the system allows it; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def for_clients(limit: int) -> int:
    """How many connections of clients a process with this limit can take."""
    return limit - min(_RESERVE, limit // 2)
