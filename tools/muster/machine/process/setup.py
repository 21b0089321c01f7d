"""A process's garbage collector, once everything is loaded."""

from __future__ import annotations

import gc

# These processes make few cycles and many short-lived objects: collect the young seldom, the old almost never
_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100


def settle_memory() -> None:
    """What has been loaded lives as long as the process: take it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
