"""What the control groups of this process allow (cgroups v2): its own group, and each above it; and what the
machine's CPUs did.

In a container the uppermost group that can be seen is the container's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_BY_STATE = slice(1, 9)  # of a line of /proc/stat: user to steal, in which guests are
OWN, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Quota(NamedTuple):
    cpus: float  # seconds of CPU time a second
    group: Path  # whose processes share them


def cpu_times() -> tuple[float, float] | None:
    """Since the machine began: how long all CPUs together were idle, or waited for disks, and their time.
    None: the kernel does not tell."""
    with suppress(OSError, ValueError, IndexError), open("/proc/stat", encoding="ascii") as file:
        states = [int(ticks) * _TICK_S for ticks in file.readline().split()[_BY_STATE]]
        if whole := sum(states):
            return states[3] + states[4], whole
    return None


def usable_cpus() -> int:
    """How many CPUs this process may use: those that it may run on, or fewer by a quota of CPU time. A pinned
    process may run on one."""
    runs_on, found = len(os.sched_getaffinity(0)), quota()
    return runs_on if found is None else min(runs_on, math.ceil(found.cpus))


def quota() -> Quota | None:
    """The least quota of CPU time; None: there is none."""
    found = []
    for group, text in limits("cpu.max"):
        most, _, period = text.partition(" ")
        with suppress(ValueError, ZeroDivisionError):  # "max"
            found.append(Quota(int(most) / int(period), group))
    return min(found, default=None)


def limits(name: str) -> Iterator[tuple[Path, str]]:
    """Each group that has this file, and what it says; the own group comes first."""
    try:
        text = os.fsdecode(OWN.read_bytes())  # a path may have any bytes
        own = next(line[3:] for line in text.splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    group = GROUPS / own.strip().lstrip("/")
    for folder in (group, *group.parents):
        if folder == GROUPS.parent:
            break
        with suppress(OSError):
            yield folder, (folder / name).read_text().strip()
