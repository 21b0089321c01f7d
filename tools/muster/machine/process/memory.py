"""The memory that this process may count on."""

from __future__ import annotations

import psutil

from node.control_groups import limits

_LEAST_BYTES, _MOST_BYTES = 64 << 20, 2 << 30


def of_the_host() -> int:
    """Bytes: the machine's memory, or what the control groups of this process allow (cgroups v2)."""
    allowed = [int(most) for _, most in limits("memory.max") if most.isdigit()]
    return min([int(psutil.virtual_memory().total), *allowed])


def for_clients(host_bytes: int) -> int:
    """What clients' connections may hold on a host of so much memory: an eighth, between 64 MiB and 2 GiB. A
    process takes up to three times as much, for copies under way."""
    return min(max(host_bytes // 8, _LEAST_BYTES), _MOST_BYTES)
