"""What is left to the garbage collector, which processes here run almost never
(``tools.muster.machine.process.setup``)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    TracebackType,
)
from weakref import ref

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
        ended: list[str] = []
        waiting = _waiting(modules, ended)
        ended.clear()  # by their counts, as the list of all objects was given up
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        del waiting
        found = Counter(ended)
        found.update(
            f"{module}.{type(one).__name__}"
            for one in gc.garbage
            if (module := _module(one)).startswith(modules)
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found, f"refer to each other after their end: {dict(found)}"


def _waiting(modules: tuple[str, ...], ended: list[str]) -> list[ref[object]]:
    """All that waits in the middle of its code. The collector closes such ones before it lists what it finds,
    and finds no circle then: ``ended`` gets those that end in this thread."""
    here = get_ident()

    def watch(one: object, name: str) -> ref[object]:
        return ref(one, lambda _: ended.append(name) if get_ident() == here else None)

    return [
        watch(one, f"{module}.{type(one).__name__}")
        for one in gc.get_objects()
        if isinstance(one, (GeneratorType, CoroutineType, AsyncGeneratorType))
        if (module := _module(one)).startswith(modules)
    ]


def _module(one: object) -> str:
    """The module whose class or code it is. What code has read or caught is held by frames of it."""
    if isinstance(one, TracebackType):
        one = one.tb_frame
    elif isinstance(one, MethodType):
        one = one.__func__
    if isinstance(one, FrameType):
        code = one.f_code
    elif isinstance(one, FunctionType):
        code = one.__code__
    elif isinstance(one, GeneratorType):
        code = one.gi_code
    elif isinstance(one, CoroutineType):
        code = one.cr_code
    elif isinstance(one, AsyncGeneratorType):
        code = one.ag_code
    else:
        return str(type(one).__module__)
    return code.co_filename.removeprefix(_ROOT).removesuffix(".py").replace("/", ".")
