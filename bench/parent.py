"""A client process: how its parent starts it, and its lines of JSON to that one."""

from __future__ import annotations

import json
import os
import sys
from asyncio import subprocess
from pathlib import Path
from typing import Any


async def started(module: str, *arguments: str) -> subprocess.Process:
    """One of ours; pipes are its standard input and output. Nothing of the working directory is run."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return await subprocess.create_subprocess_exec(
        sys.executable, "-P", "-m", module, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        limit=1 << 28, env={**os.environ, "PYTHONPATH": path})


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
