"""A process's memory: locked if asked for, and loaded modules out of the garbage collector's way."""

from __future__ import annotations

import gc
import sys
from typing import Any

from cluster.settings import Common
from tools.muster.machine.process.crash import FATAL_EXIT
from tools.muster.machine.process.locking import CannotLock, lock_memory
from tools.muster.machine.process.status import StatusPipe

# Few cycles and many short-lived objects: collect the young seldom, the old almost never. Of the middle no
# more than what lived through one collection: a million watches' objects at once held the loop for 0.24 s.
# 4,000 clients' puts leave fewer young ones: nothing is collected while they come.
_YOUNG, _MIDDLE, _OLD = 20_000, 0, 2500


def hold_memory(common: Common, log: Any) -> None:
    """Lock this process's memory, if asked for; the process ends if that is refused."""
    if not common.memory_mlock:
        return
    try:
        lock_memory()
    except CannotLock as error:
        log.error("this process cannot run", error=str(error))
        StatusPipe(common.status_fd).say("fatal", error=str(error))
        sys.exit(FATAL_EXIT)


def settle_memory() -> None:
    """Loaded modules live as long as the process: exempt them from collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
