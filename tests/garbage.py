"""What is left to the garbage collector, which processes here run almost never
(``tools.muster.machine.process.setup``)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, FunctionType, TracebackType

_ROOT = f"{Path(__file__).parents[1]}/"


@contextmanager
def no_garbage(*modules: str) -> Iterator[None]:
    """Whatever of these modules is made in here and given up is freed by its counts of references alone.

    What was made before is left out, and stays so: a thread of an earlier test may hold some of it until now.
    So is what no module can be named for, as other threads give up lists and dicts meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(
            f"{module}.{type(one).__name__}"
            for one in gc.garbage
            if (module := _module(one)).startswith(modules)
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found, f"refer to each other after their end: {dict(found)}"


def _module(one: object) -> str:
    """The module whose class or code it is. What code has read or caught is held by frames of it."""
    if isinstance(one, TracebackType):
        one = one.tb_frame
    if isinstance(one, FrameType):
        code = one.f_code
    elif isinstance(one, FunctionType):
        code = one.__code__
    else:
        return str(type(one).__module__)
    return code.co_filename.removeprefix(_ROOT).removesuffix(".py").replace("/", ".")
