"""How much memory code of some files keeps, whatever other threads of the process allocate meanwhile."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Kept:
    """Told at the end of the block."""

    size_bytes: int = 0


@contextmanager
def kept_by(*files: str) -> Iterator[Kept]:
    """What files of these patterns have allocated in here, and what is not free at its end."""
    kept = Kept()
    gc.collect()
    tracemalloc.start()
    try:
        yield kept
        found = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    theirs = found.filter_traces([tracemalloc.Filter(True, pattern) for pattern in files])
    kept.size_bytes = sum(trace.size for trace in theirs.traces)
