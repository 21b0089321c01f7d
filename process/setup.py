"""A process's CPU and its garbage collector."""

from __future__ import annotations

import gc

import psutil

# These processes make few cycles and many short-lived objects: collect the young seldom, the old almost never
_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100


def pin(cpu: int) -> None:
    """Run on one CPU, if that is wanted and there is such a one."""
    if cpu >= 0 and cpu in (psutil.Process().cpu_affinity() or []):
        psutil.Process().cpu_affinity([cpu])


def settle_memory() -> None:
    """What has been loaded lives as long as the process: take it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
