"""What the control groups of this process allow (cgroups v2): its own group, and each above it.

In a container the uppermost group that can be seen is the container's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

OWN, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Quota(NamedTuple):
    cpus: float  # seconds of CPU time a second
    group: Path  # whose processes share them


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
