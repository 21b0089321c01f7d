"""Work in threads, which a process may be unable to start: at its limit of them, or with little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


def in_thread(
    loop: asyncio.AbstractEventLoop, threads: Executor | None, work: Callable[[], T]
) -> asyncio.Future[T]:
    """``loop.run_in_executor``, but a thread that cannot be started fails this work alone, not its caller."""
    kept = [work]
    try:
        return loop.run_in_executor(threads, lambda: kept.pop()())
    except RuntimeError as error:
        kept.clear()  # it is queued all the same: its next thread finds nothing
        failed: asyncio.Future[T] = loop.create_future()
        failed.set_exception(error.with_traceback(None))  # that would hold this frame, and so itself
        return failed
