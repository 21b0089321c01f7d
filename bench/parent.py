"""A process of this program: how its parent starts it, and its lines of JSON to that one."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from asyncio import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
MODULE = (sys.executable, "-P", "-m")  # the command that runs one; nothing of the working directory is run


def environment(of: Mapping[str, str]) -> dict[str, str]:
    """In which :data:`MODULE` finds this program's modules."""
    root = str(Path(__file__).resolve().parents[1])
    path = filter(None, of.get("PYTHONPATH", "").split(os.pathsep))  # an empty part is the working directory
    return {**of, "PYTHONPATH": os.pathsep.join([root, *path])}


def end_with(parent: int) -> None:
    """In a new child, before its program: SIGTERM when the parent's thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


async def started(module: str, *arguments: str) -> subprocess.Process:
    """A module's process; pipes are its standard input and output."""
    return await subprocess.create_subprocess_exec(
        *MODULE, module, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 28,
        env=environment(os.environ))


def say(event: str, **fields: Any) -> None:
    """Write a line to standard output; a parent that has ended is no error."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still in the buffer is written at exit, where it would fail again
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
