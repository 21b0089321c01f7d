"""Work that runs only while no other process wants its CPU, as long as that is often enough.

The kernel takes the CPU from a process of the policy SCHED_IDLE as soon as any other wakes; a nice one ends
its slice of milliseconds first, and a put wakes three threads. On a full machine an idle process hardly runs,
and without privileges it cannot leave the policy again. So a child tries, and its parent ends it when it
starves.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from node.backup.writing import Passed, Write

_PIPE_BYTES = 1 << 20
_PIECE_BYTES = 256 << 10
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
    work: Callable[[Write], None], into: Write, wanted: Callable[[], bool],
    times: Callable[[int], Times | None] = times_of,
) -> bool:
    """Do ``work`` in a child that gives way; ``into`` gets what it writes, in a thread. False: it starved,
    failed, was not read, could not begin, or is not ``wanted`` any more (asked every second); ``into`` has
    got the beginning. Call it before this process has threads. ``work`` must end with its parent."""
    before = times(os.getpid())
    if before is None:
        return False
    reading, writing = os.pipe()
    with suppress(OSError):  # fewer and larger pieces; a user may have used up its share of pipes
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        child = os.fork()
    except OSError:  # a user, or a container, has no more processes
        os.close(reading)
        os.close(writing)
        return False
    if child == 0:
        os.close(reading)  # or it would not notice that nobody reads
        _in_child(work, writing)
    os.close(writing)
    reader = threading.Thread(target=_pass_on, args=(reading, into))
    try:
        reader.start()
    except RuntimeError:  # likewise: a thread counts as a process
        os.close(reading)
        _end(child)
        return False
    status = -1
    try:
        ended = _ends(child, reader, wanted, times)
    finally:
        status = _end(child)
        reader.join()
    return ended and status == 0


def _end(child: int) -> int:
    """The status of a child that runs no more."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _in_child(work: Callable[[Write], None], writing: int) -> None:
    status = 1
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        # a reader of the parent's output must not wait for a child that outlives it
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        work(Passed(writing).write)
        status = 0
    finally:
        os._exit(status)


def _pass_on(reading: int, into: Write) -> None:
    try:
        with suppress(OSError):  # nobody reads: the child finds it out by its next write
            while data := os.read(reading, _PIECE_BYTES):
                into(data)
    finally:
        os.close(reading)


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
