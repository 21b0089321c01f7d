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
    try:
        return loop.run_in_executor(threads, work)
    except RuntimeError as error:
        failed: asyncio.Future[T] = loop.create_future()
        failed.set_exception(error)
        return failed
