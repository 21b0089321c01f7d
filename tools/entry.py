"""The entry points of ``muster`` and ``musterctl``: an interrupt while their modules are imported ends them
without a traceback, as it ends a program in Go."""

from __future__ import annotations

import signal
from typing import NoReturn


def muster() -> None:
    """Entry point of the ``muster`` script."""
    _end_by_interrupts()
    from tools.muster.cli import main

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def musterctl() -> NoReturn:
    """Entry point of the ``musterctl`` script."""
    _end_by_interrupts()
    from tools.musterctl.cli import main

    main()


def _end_by_interrupts() -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
