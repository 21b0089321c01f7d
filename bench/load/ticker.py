"""A periodic timer finer than the event loop's, whose timers are whole milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_FLAGS = 0o4000 | 0o2000000  # TFD_NONBLOCK | TFD_CLOEXEC


class Ticker:
    """Calls ``tick`` every ``interval_s`` until closed: by timerfd on Linux, else by the loop's timer."""

    def __init__(self, interval_s: float, tick: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._interval_s = interval_s
        self._tick = tick
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        if sys.platform == "linux":
            self._fd = _timerfd(interval_s)
            self._loop.add_reader(self._fd, self._readable)
        else:
            self._again()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._tick()

    def _again(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._again)
        self._tick()


def _timerfd(interval_s: float) -> int:
    """A descriptor that is readable every ``interval_s``: timerfd_create(2), in Python from 3.13."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    seconds, nanoseconds = divmod(max(1, round(interval_s * 1e9)), 1_000_000_000)
    period = (ctypes.c_long * 4)(seconds, nanoseconds, seconds, nanoseconds)
    if libc.timerfd_settime(fd, 0, ctypes.byref(period), None) < 0:
        os.close(fd)
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return fd
