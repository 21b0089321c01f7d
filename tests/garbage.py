"""What is left to the garbage collector, which processes here run almost never
(``tools.muster.machine.process.setup``)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage(*modules: str) -> Iterator[None]:
    """Whatever of these modules is given up in here is freed by its counts of references alone."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.garbage
                        if type(one).__module__.startswith(modules))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found, f"refer to each other after their end: {dict(found)}"
