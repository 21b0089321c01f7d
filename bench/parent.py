"""Lines of JSON from a client process to its parent."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


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
