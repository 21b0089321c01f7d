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
_thread: threading.Thread | None = None
_ended = False


def loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="muster-client", daemon=True)
            _thread.start()
        return _loop


def has_ended() -> bool:
    """The process ends: nothing runs here any more."""
    return _ended


def is_here() -> bool:
    """Whether this thread is the engine's: it must not wait for what runs here."""
    return threading.current_thread() is _thread


def was_cancelled() -> bool:
    """Whether somebody cancelled this task. gRPC also raises CancelledError in one that nobody did, where its
    call or its channel ended."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def submit(step: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Begin something there. RuntimeError once the process ends."""
    if _ended:
        step.close()
        raise RuntimeError("muster_client: the process ends, and its connections have ended")
    return asyncio.run_coroutine_threadsafe(step, loop())


async def run(step: Coroutine[Any, Any, Result]) -> Result:
    """Run something there, from whatever loop; cancelled with its caller."""
    if asyncio.get_running_loop() is _loop:
        return await step
    return await asyncio.wrap_future(submit(step))


def _end() -> None:
    global _ended
    with _lock:
        _ended = True
        if _loop is None or _thread is None:
            return
        _loop.call_soon_threadsafe(_loop.stop)
    _thread.join(1.0)


def _forked() -> None:
    """A child has no thread yet, whatever held the lock."""
    global _loop, _lock, _thread
    _loop = _thread = None
    _lock = threading.Lock()


# At import: what a program registers later, such as a client's close, runs before it
atexit.register(_end)
os.register_at_fork(after_in_child=_forked)
