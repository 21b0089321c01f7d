"""CPUs and disk of this host, as a node 0 sees them: of the machine, and of a container's limits. And the CPU
that a process takes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cluster.growth.facts import Host
from node.control_groups import cpu_times, quota
from node.machine import Machine

_USED = "cpu.stat"  # of a control group
_SAMPLE_S = 1.0  # what a CPU share is taken over, at least


class CpuShare:
    """The share of one CPU that this process has used lately."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._then = (machine.monotonic(), machine.cpu_s())
        self._share = 0.0

    def now(self) -> float:
        """Since the last question at least a second ago."""
        now, used = self._machine.monotonic(), self._machine.cpu_s()
        passed = now - self._then[0]
        if passed >= _SAMPLE_S:
            self._share = (used - self._then[1]) / passed
            self._then = (now, used)
        return round(self._share, 3)


class HostLook:
    def __init__(self, path: str) -> None:
        """``path``: on the file system that counts."""
        self._path = path
        self._before: tuple[float, float, float] | None = None  # when; idle and used CPU seconds then

    def look(self, now_s: float) -> Host:
        """Since the look before; the first one knows of no free CPU."""
        cpus, least = float(os.cpu_count() or 1), quota()
        idle_s = times[0] if (times := cpu_times()) is not None else 0.0
        used_s = 0.0 if least is None else _used_s(least.group / _USED)
        free = 0.0
        if self._before is not None and (passed := now_s - self._before[0]) > 0:
            free = max((idle_s - self._before[1]) / passed, 0.0)
            if least is not None:
                free = min(free, max(least.cpus - (used_s - self._before[2]) / passed, 0.0))
        self._before = now_s, idle_s, used_s
        cpus = cpus if least is None else min(cpus, least.cpus)
        return Host(cpus, min(free, cpus), _free_disk(self._path))


def _used_s(path: Path) -> float:
    """Of all processes of a control group, since it began."""
    with suppress(OSError, ValueError, IndexError), open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("usage_usec"):
                return int(line.split()[1]) / 1e6
    return 0.0


def _free_disk(path: str) -> float:
    with suppress(OSError):
        found = os.statvfs(path)
        return found.f_bavail / max(found.f_blocks, 1)
    return 0.0
