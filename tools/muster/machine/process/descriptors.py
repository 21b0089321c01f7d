"""File descriptors: clients leave some to the disk and to other hosts.

Without descriptors a process can open no table of RocksDB and take no peer's connection. So the soft limit
becomes the hard one, as Go's programs do, and clients get it less a reserve.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

NR_OPEN = Path("/proc/sys/fs/nr_open")  # the system's limit of a process
_UNLIMITED = 1 << 30
# tables and logs of RocksDB (256 at most), links to nodes, fronts and peers, listening sockets
_RESERVE = 1024


def raise_limit() -> int:
    """Raise the limit of open files as far as it goes, for this process and its children; the limit.

    A hard limit may be above the system's, which was lowered later: then the kernel refuses even to keep it.
    """
    soft, hard = (
        _UNLIMITED if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    most = min(hard, _of_the_system())
    if soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):
            return soft
    return most


def _of_the_system() -> int:
    with suppress(OSError, ValueError):
        return int(NR_OPEN.read_text())
    return _UNLIMITED


def for_clients(limit: int) -> int:
    """How many connections of clients this limit allows."""
    return limit - min(_RESERVE, limit // 2)
