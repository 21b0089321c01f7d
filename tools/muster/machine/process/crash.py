"""What ends a process, with which exit code, and what its log says.

0: stopped as told. ``FATAL_EXIT``: starting it again would not help; the supervisor stops the host and says
why. ``FAULT_EXIT``: a fault of this program; the supervisor starts the process again, the log tells why. A
fault ends the process at once: half-done work could lose an event or an answer without anybody noticing,
while the clients of a process that has gone know what to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

FATAL_EXIT = 3
REMOVED_EXIT = 4  # this host was removed from its cluster: it stops as a whole, and does not start again
FAULT_EXIT = 70  # sysexits' EX_SOFTWARE

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]


def crash_handler(
    log: Any,
    *,
    clients: bool = False,
    disks: bool = True,
    fatal: Callable[[BaseException], bool] = lambda error: False,
) -> Handler:
    """For ``loop.set_exception_handler``. ``clients``: the loop also serves them, and what the network did to
    one is only logged. ``disks``: the process has some, so an OSError out of a callback may be theirs: a
    client's connection breaks in a transport. ``fatal``: told of an error, whether a restart would not help;
    it has said so to whom it concerns then."""

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
