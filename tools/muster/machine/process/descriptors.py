"""File descriptors: clients leave some to the disk and to other hosts.

Without descriptors a process can open no table of RocksDB and take no peer's connection. So the soft limit
becomes the hard one, as Go's programs do, and clients get it less a reserve.
"""

from __future__ import annotations

import resource

# tables and logs of RocksDB (256 at most), links to nodes, fronts and peers, listening sockets
_RESERVE = 1024


def raise_limit() -> int:
    """Raise the limit of open files to the system's, for this process and its children; the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def for_clients(limit: int) -> int:
    """How many connections of clients this limit allows."""
    return limit - min(_RESERVE, limit // 2)
