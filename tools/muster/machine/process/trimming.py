"""Freed memory goes back to the kernel.

The C library keeps freed memory: up to 64 MB at the end of its heap, and all before a block in use.
``malloc_trim`` gives whole free pages back, at 0.07 ms for each MB: so it is called where a process has
grown, and seldom where it finds nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

from tools.muster.machine.process import locking

LOOK_S = 5.0
GROWN_BYTES = 16 << 20  # above the least size of the process: worth a look
MOST_S = 60.0  # between two looks that find nothing
_GAINED_BYTES = 4 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Trim:
    """Decides when to trim."""

    def __init__(self, resident: Callable[[], int], trim: Callable[[], object]) -> None:
        """``resident``: bytes of this process in memory."""
        self._resident = resident
        self._trim = trim
        self._least = self._left = resident()  # ever, and by the last trim
        self._wait_s = LOOK_S
        self._next = 0.0

    def look(self, now: float) -> None:
        before = self._resident()
        self._least = min(self._least, before)
        if before - self._left >= GROWN_BYTES:
            self._next, self._wait_s = min(self._next, now), LOOK_S
        if before - self._least < GROWN_BYTES or now < self._next:
            return
        self._trim()
        self._left = self._resident()
        # memory in use stays: wait longer before the next look
        self._wait_s = LOOK_S if before - self._left >= _GAINED_BYTES else min(2 * self._wait_s, MOST_S)
        self._next = now + self._wait_s


def give_back_freed(loop: asyncio.AbstractEventLoop, *, locked: bool = False) -> None:
    """From now on; nothing without ``malloc_trim`` (musl gives memory back by itself). ``locked``: this
    process has locked its memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    if locked:
        trimming = Trim(resident_bytes, lambda: locking.put_aside(lambda: trim(0)))
    else:
        trimming = Trim(resident_bytes, lambda: trim(0))

    def look() -> None:
        trimming.look(loop.time())
        loop.call_later(LOOK_S, look)

    look()


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
