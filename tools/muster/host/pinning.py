"""The CPU of each process of a host."""

from __future__ import annotations

import os
from collections.abc import Sequence

from node.control_groups import usable_cpus
from tools.muster.config.parse import ConfigError

_AUTO = "auto"


def check(spec: str) -> None:
    """ConfigError unless ``spec`` is "auto", "none", or a list of CPUs such as ``0-3,6``, also after
    ``auto:``."""
    if spec not in (_AUTO, "none"):
        _listed(spec)


def lets_go(spec: str) -> bool:
    """Whether a loop may leave its CPU to others (``tools.muster.machine.process.place``)."""
    return spec.partition(":")[0] == _AUTO


def written(cpus: Sequence[int], *, yields: bool) -> str:
    """A flag for these CPUs; ``yields``: :func:`lets_go`."""
    return f"{_AUTO}:{_text(cpus)}" if yields else _text(cpus)


def assign(spec: str, processes: int, usable: Sequence[int] | None = None, *, floating: int = 0) -> list[int]:
    """The CPU of each process; -1: not pinned.

    ``auto`` pins only where each process gets a CPU of its own: two pinned processes on one CPU while another
    idles are slower than without pins. The last ``floating`` processes (fronts) may go without. Under a quota
    of CPU time it pins nothing: other containers, which see the same CPUs, would take the same. A list is
    used round robin, also after ``auto:``.
    """
    if usable is None:
        usable = sorted(os.sched_getaffinity(0))
        if spec == _AUTO and usable_cpus() < len(usable):
            return [-1] * processes
    if spec == "none" or (spec == _AUTO and processes - floating > len(usable)):
        return [-1] * processes
    if spec == _AUTO and processes > len(usable):
        return [*usable, *[-1] * (processes - len(usable))]
    chosen = list(usable) if spec == _AUTO else _listed(spec)
    for cpu in chosen:
        if cpu not in usable:
            raise ConfigError(f'--cpus "{spec}": CPU {cpu} is not usable here (usable: {_text(usable)})')
    return [chosen[i % len(chosen)] for i in range(processes)]


def another(spec: str, used: Sequence[int]) -> int:
    """The CPU of one more process, beside those that use these, node 0 first; -1: not pinned. Where ``auto``
    pins nothing, a pinned one would share its CPU with others."""
    if spec == "none" or (spec == _AUTO and used[:1] == [-1]):
        return -1
    chosen = sorted(os.sched_getaffinity(0)) if spec == _AUTO else _listed(spec)
    free = [cpu for cpu in chosen if cpu not in used]
    if free:
        return free[0]
    return -1 if spec == _AUTO else chosen[len(used) % len(chosen)]


def _listed(spec: str) -> list[int]:
    chosen: list[int] = []
    for part in spec.removeprefix(f"{_AUTO}:").split(","):
        low, dash, high = part.strip().partition("-")
        if (
            not low.isdigit()
            or (dash and not (high.isdigit() and int(high) >= int(low)))
            or len(low + high) > 8
        ):
            raise ConfigError(f'--cpus "{spec}": not "auto", "none" or a list such as 0-3,6')
        chosen += range(int(low), int(high if dash else low) + 1)
    return chosen


def _text(cpus: Sequence[int]) -> str:
    return ",".join(map(str, cpus))
