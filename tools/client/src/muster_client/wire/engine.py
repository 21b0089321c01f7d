"""The thread and the loop of all connections of this process.

gRPC's asyncio has one poller for a process: it gives events to loops that have ended, and two loops take
each other's. And what keeps leases alive must not wait for a caller's loop. So connections have a loop of
their own, which never ends before the process does. Calls come from any loop and any thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_loop.run_forever, name="muster-client", daemon=True)
            thread.start()
            atexit.register(_end, _loop, thread)
        return _loop


def submit(step: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Begin something there."""
    return asyncio.run_coroutine_threadsafe(step, loop())


async def run(step: Coroutine[Any, Any, Result]) -> Result:
    """Run something there, from whatever loop; cancelled with its caller."""
    if asyncio.get_running_loop() is _loop:
        return await step
    return await asyncio.wrap_future(submit(step))


def _end(ended: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    ended.call_soon_threadsafe(ended.stop)
    thread.join(1.0)


def _forked() -> None:
    """A child has no thread yet, whatever held the lock."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forked)
