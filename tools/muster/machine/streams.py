"""The standard streams."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Those that are closed lead nowhere from now on, also for children, as with a program in Go: each
    takes its number, the lowest that is free. Else the next file or socket does. To be called first."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
