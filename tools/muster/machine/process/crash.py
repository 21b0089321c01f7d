"""Exit codes, and what a fault does.

0: stopped as told. ``FATAL_EXIT``: another start would not help; the supervisor stops the host and says why.
``FAULT_EXIT``: a fault of this program; the supervisor starts the process again. A fault ends the process at
once: half-done work could silently lose an event or an answer, while clients handle a lost process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

FATAL_EXIT = 3
REMOVED_EXIT = 4  # of a removed host, which stops as a whole for good
FAULT_EXIT = 70  # sysexits' EX_SOFTWARE

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]


def crash_handler(
    log: Any, *, clients: bool = False, disks: bool = True,
    fatal: Callable[[BaseException], bool] = lambda error: False,
) -> Handler:
    """For ``loop.set_exception_handler``. ``clients``: the loop also serves clients, whose network errors are
    only logged. ``disks``: an OSError of a callback may be a disk's; a client's comes from a transport.
    ``fatal(error)``: whether another start would not help; it has reported that then."""

    def crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if clients and (
            error is None or (isinstance(error, OSError) and not (disks and "handle" in context))
        ):
            log.warning("event loop", message=context.get("message"), error=str(error))
            return
        if error is not None and fatal(error):
            os._exit(FATAL_EXIT)
        log.critical("this process crashed", error=context.get("message"), exc_info=error)
        os._exit(FAULT_EXIT)

    return crash


def end_process(code: int) -> NoReturn:
    """End with this code, whether or not the last lines can be written. Threads of RocksDB and ZeroMQ must
    not delay an ordered end."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
