"""Programs that end by signals, as those in Go do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

SHELLS = 128  # added to a signal's number
unread: list[Callable[[], object]] = []  # what a program does before it ends as nobody reads its output


def at_once() -> None:
    """SIGINT ends the program from now on, also in the middle of a call, without a traceback. The first
    process of a container needs a handler, and for SIGTERM too: the kernel spares it."""
    first = os.getpid() == 1
    for number in (signal.SIGINT, signal.SIGTERM) if first else (signal.SIGINT,):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, (lambda came, _: by(came)) if first else signal.SIG_DFL)


def by(number: int) -> NoReturn:
    """End by this signal, or with a shell's code for it where the kernel spares the process."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(SHELLS + number)
