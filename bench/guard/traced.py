"""Counts the lines of Python that a process executes: they repeat where neither time nor instructions can.

It is copied as ``sitecustomize.py`` for the processes to count, so it imports nothing of this project. Each
thread has a number in a file of the folder ``BENCH_TRACED`` that is named by its process. Looks of a loop
that would otherwise sleep are left out: their number is a matter of time.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

FOLDER = "BENCH_TRACED"
LOOKS = ("/node/replica/pacing/spin.py",)
SLOTS = 512  # threads that a process may have had


def begin(folder: str) -> None:
    """Count in this process from now on."""
    fd = os.open(os.path.join(folder, str(os.getpid())), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 8 * SLOTS)
    slots = memoryview(mmap.mmap(fd, 8 * SLOTS)).cast("Q")
    os.close(fd)
    numbers = itertools.count()

    def counting() -> Callable[..., Any]:
        slot = next(numbers) % SLOTS

        def line(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            if event == "line":
                slots[slot] += 1
            return line

        def called(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            return None if frame.f_code.co_filename.endswith(LOOKS) else line

        return called

    def first(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        own = counting()
        sys.settrace(own)
        made: Callable[..., Any] | None = own(frame, event, argument)
        return made

    threading.settrace(first)
    sys.settrace(counting())


def read(folder: str) -> int:
    """Lines so far, of all processes that count there."""
    lines = 0
    for entry in os.scandir(folder):
        with open(entry.path, "rb") as file:
            lines += sum(memoryview(file.read()).cast("Q"))
    return lines


if os.environ.get(FOLDER) and __name__ == "sitecustomize":
    begin(os.environ[FOLDER])
