"""Work that runs only while no other process wants its CPU, as long as that is often enough.

The kernel takes the CPU from a process of the policy SCHED_IDLE as soon as any other wakes; a nice one ends
its slice of milliseconds first, and a put wakes three threads. On a full machine an idle process hardly runs,
and without privileges it cannot leave the policy again. So a child tries, and its parent ends it when it
starves.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_LOOK_S = 1.0
_LOOKS = 3  # in a row at which it starves


@dataclass(slots=True, frozen=True)
class Times:
    """Of a process since its start, nanoseconds."""

    ran: int
    waited: int  # it could have run, had it been given a CPU


def times_of(pid: int) -> Times | None:
    """None: this kernel does not tell, or the process is gone."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            ran, waited, *_ = file.read().split()
    except (OSError, ValueError):
        return None
    return Times(int(ran), int(waited))


def starves(before: Times, after: Times) -> bool:
    """Whether it got less than a quarter of the CPU time that it wanted, and wanted some."""
    ran, waited = after.ran - before.ran, after.waited - before.waited
    return waited > 3 * ran and waited > _LOOK_S * 1e9 / 4


def attempt(
    work: Callable[[], bytes], wanted: Callable[[], bool], times: Callable[[int], Times | None] = times_of,
) -> bytes | None:
    """What ``work`` returns in a child that gives way; None: it starved, failed, or is not ``wanted`` any
    more (asked every second). Call it before this process has threads. ``work`` must end with its parent."""
    before = times(os.getpid())
    if before is None:
        return None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(work, writing)
    os.close(writing)
    parts: list[bytes] = []
    reader = threading.Thread(target=_read, args=(reading, parts))
    reader.start()
    try:
        ended = _ends(child, reader, wanted, times)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reader.join()
    return b"".join(parts) or None if ended else None


def _in_child(work: Callable[[], bytes], writing: int) -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        # a reader of the parent's output must not wait for a child that outlives it
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        result = work()
        while result:
            result = result[os.write(writing, result) :]
    finally:
        os._exit(0)


def _read(reading: int, parts: list[bytes]) -> None:
    with os.fdopen(reading, "rb") as file:
        parts.append(file.read())


def _ends(
    child: int, reader: threading.Thread, wanted: Callable[[], bool], times: Callable[[int], Times | None]
) -> bool:
    """Waits; whether it came to its end by itself."""
    before = Times(0, 0)
    starved = 0
    while starved < _LOOKS and wanted():
        reader.join(_LOOK_S)
        if not reader.is_alive():
            return True
        after = times(child)
        if after is None:
            return False
        starved = starved + 1 if starves(before, after) else 0
        before = after
    return False
