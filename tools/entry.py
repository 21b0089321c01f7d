"""The entry points of ``muster`` and ``musterctl``: an interrupt while their modules are imported ends them
without a traceback, as it ends a program in Go."""

from __future__ import annotations

import signal
from typing import NoReturn

from tools import ending


def muster() -> None:
    """Entry point of the ``muster`` script."""
    ending.at_once()
    from tools.muster.cli import main

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def musterctl() -> NoReturn:
    """Entry point of the ``musterctl`` script."""
    ending.at_once()
    from tools.musterctl.cli import main

    main()
