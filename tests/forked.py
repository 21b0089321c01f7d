"""A forked process becomes a program: it has what one that is started has, and ends as that does."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any

Stream = int | IO[Any] | None


def inherit(streams: Sequence[Stream], environment: dict[str, str], kept: Sequence[int] = ()) -> None:
    """Have these as stdin, stdout and stderr (None: the parent's), and of other descriptors those kept."""
    gc.freeze()  # what the parent has made must not close descriptors of its own
    asyncio._set_running_loop(None)
    for own, stream in enumerate(streams):
        if stream is not None:
            given = os.open(os.devnull, os.O_RDWR) if stream == subprocess.DEVNULL else stream
            os.dup2(given if isinstance(given, int) else given.fileno(), own)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that the list was read by
                os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    old = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = (
        open(place, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        for place, (mode, before) in enumerate(zip("rww", old, strict=True)))


def run(main: Callable[[], object], words: Sequence[str]) -> None:
    """Run a program to the process's end, which is quick: nothing that the parent has made is taken down."""
    sys.argv = list(words)
    try:
        code = main() or 0
    except SystemExit as end:
        code = end.code or 0
    except KeyboardInterrupt:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does, before what follows
    atexit._run_exitfuncs()
    assert isinstance(code, int)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads it any more: the interpreter has its own way to end then
        sys.exit(code)
    os._exit(code)
