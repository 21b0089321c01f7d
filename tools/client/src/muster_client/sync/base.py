"""How the engine's loop is waited for, and what runs with a block."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from muster_client.errors import MusterError
from muster_client.wire import engine

P = ParamSpec("P")
Result = TypeVar("Result")
_TIDY_S = 5.0


def wait(
    step: Coroutine[Any, Any, Result], timeout: float | None = None, *,
    undo: Callable[[Result], Coroutine[Any, Any, object]] | None = None,
) -> Result:
    """Run something in the engine; an interrupt of this thread cancels it there. ``undo`` takes back what it
    gives where it ends just then: nobody would have it. RuntimeError in the engine's own thread, which would
    wait for itself, and once the process ends."""
    _check(step)
    begun = engine.Awaited(step if timeout is None else _within(step, timeout))
    try:
        begun.begin()
        return begun.told.result()
    except BaseException:
        if not begun.told.done():
            begun.cancel()
            begun.told.wait(_TIDY_S)  # it tidies up, before its caller closes the connections
        if undo is not None and begun.told.found():
            with contextlib.suppress(MusterError, TimeoutError):
                wait(undo(begun.told.result()), _TIDY_S)
        raise


async def _within(step: Coroutine[Any, Any, Result], timeout: float) -> Result:
    async with asyncio.timeout(timeout):  # wait_for of Python 3.11 swallows a cancellation
        return await step


def _check(step: Coroutine[Any, Any, Any]) -> None:
    if engine.is_here() or engine.has_ended():
        step.close()
        raise RuntimeError(
            "muster_client: the process ends, and its connections have ended" if engine.has_ended() else
            "muster_client.sync cannot wait in the thread that calls `on_lost`: hand this to another thread")


def asked(step: Coroutine[Any, Any, Result]) -> Result:
    """The same for a step that waits for calls of a client alone: it runs here, which costs half as much."""
    _check(step)
    return engine.direct(step)


class Blocking(Generic[P, Result]):
    """A method of the object that this one holds as ``inner``, waited for: ``get = Blocking(Kv.get)``."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]]) -> None:
        @functools.wraps(method)
        def call(holder: Any, *args: P.args, **kwargs: P.kwargs) -> Result:
            return self._wait(method(holder.inner, *args, **kwargs))

        self._call = call

    def _wait(self, step: Coroutine[Any, Any, Result]) -> Result:
        return wait(step)

    @overload
    def __get__(self, holder: None, owner: type) -> Callable[..., Result]: ...

    @overload
    def __get__(self, holder: object, owner: type) -> Callable[P, Result]: ...

    def __get__(self, holder: object | None, owner: type) -> Callable[..., Result]:
        return self._call if holder is None else functools.partial(self._call, holder)


class Asking(Blocking[P, Result]):
    """The same for a method that waits for calls of a client alone."""

    def _wait(self, step: Coroutine[Any, Any, Result]) -> Result:
        return asked(step)


class Within:
    """``with``: begins and ends with the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError
