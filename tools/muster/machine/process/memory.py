"""The memory that this process may count on."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_LEAST_BYTES, _MOST_BYTES = 64 << 20, 2 << 30


def of_the_host() -> int:
    """Bytes: the machine's memory, or what the control groups of this process allow (cgroups v2)."""
    most = int(psutil.virtual_memory().total)
    try:
        own = next(
            line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return most
    group = _CGROUPS / own.strip().lstrip("/")
    for folder in (group, *group.parents):
        if folder == _CGROUPS.parent:
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            most = min(most, int(limit))
    return most


def for_clients(host_bytes: int) -> int:
    """What clients' connections may hold on a host of so much memory: an eighth, between 64 MiB and 2 GiB. A
    process takes up to three times as much, for copies under way."""
    return min(max(host_bytes // 8, _LEAST_BYTES), _MOST_BYTES)
