"""A forked ``muster`` (``tests.forks``) that forks its processes: each would need 0.3 s of CPU for imports.

``muster local`` forks hosts, and these fork nodes and fronts. Pids, signals, descriptors, environments and
exit codes are as of processes that are started. Command lines and memory are not: tests of those, and of the
start, run the real program.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import IO, Any

PROGRAMS = ("tools.muster.cli", "tools.muster.processes.node", "tools.muster.processes.front",
            "tools.muster.joined")  # fmt: skip
# of command lines, as they run
LATER = ("tools.muster.local.commands", "tools.muster.proxy_mode.start", "tools.muster.demo")
Stream = int | IO[Any] | None


class Process(subprocess.Popen[bytes]):
    """One of muster's own processes is forked. Any other is started, and any of a process with threads: a
    forked one would wait for RocksDB's, which a host with --force-new-cluster has begun."""

    def __init__(
        self, command: Sequence[str], *, stdin: Stream = None, stdout: Stream = None, stderr: Stream = None,
        env: dict[str, str], preexec_fn: Callable[[], object], pass_fds: Sequence[int] = (),
        process_group: int = -1, start_new_session: bool = False,
    ) -> None:  # fmt: skip
        ours = list(command[:3]) == [sys.executable, "-P", "-m"] and command[3] in PROGRAMS
        if not ours or _has_threads():
            super().__init__(
                command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, preexec_fn=preexec_fn,
                pass_fds=pass_fds, process_group=process_group, start_new_session=start_new_session)
            return
        self.args, self.returncode = command, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock = threading.Lock()
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal to the forked process would else come to this one, whose handlers it has at first
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        self._child_created = True
        if self.pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        else:
            _handle_no_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if start_new_session:
                os.setsid()
            elif process_group >= 0:
                os.setpgid(0, process_group)
            streams = (stdin, stdout, stderr)
            os._exit(_code_of(lambda: _become(command[3:], streams, pass_fds, env, preexec_fn)))


def _has_threads() -> bool:
    return len(os.listdir("/proc/self/task")) > 1


def _become(
    words: Sequence[str], streams: Sequence[Stream], kept: Sequence[int], environment: dict[str, str],
    first: Callable[[], object],
) -> object:  # fmt: skip
    """Run a program to its end in the forked process."""
    _inherit(streams, kept, environment)
    first()
    program = import_module(words[0])
    sys.argv = [str(program.__file__), *words[1:]]
    return program.main()


def _handle_no_signals() -> None:
    """But as a new process does."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _inherit(streams: Sequence[Stream], kept: Sequence[int], environment: dict[str, str]) -> None:
    """Leave what a program that is started does not get."""
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


def _code_of(program: Callable[[], object]) -> int:
    """What a process would end with; what it says is written."""
    try:
        code = program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    assert code is None or isinstance(code, int)
    return code or 0


def load() -> None:
    """Load all, and fork from now on."""
    for name in (*PROGRAMS, *LATER):
        import_module(name)
    for name in ("tools.muster.host.children", "tools.muster.local.hosts"):
        import_module(name).subprocess = SimpleNamespace(Popen=Process, DEVNULL=subprocess.DEVNULL)
