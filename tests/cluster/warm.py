"""A forked ``muster`` (``tests.forks``) that forks its processes: each would need 0.3 s of CPU for imports.

``muster local`` forks hosts, and these fork nodes and fronts. Pids, signals, descriptors, environments and
exit codes are as of processes that are started. Command lines and memory are not: tests of those, and of the
start, run the real program.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace

from tests import forked
from tests.forked import Stream

PROGRAMS = ("tools.muster.cli", "tools.muster.processes.node", "tools.muster.processes.front",
            "tools.muster.joined")  # fmt: skip
# of command lines, as they run
LATER = ("tools.muster.local.commands", "tools.muster.proxy_mode.start", "tools.muster.demo")


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
            forked.inherit((stdin, stdout, stderr), env, pass_fds)
            atexit._clear()  # what the parent would do at its own end
            forked.run(lambda: _main(command[3], preexec_fn), command[3:])


def _has_threads() -> bool:
    return len(os.listdir("/proc/self/task")) > 1


def _main(module: str, first: Callable[[], object]) -> object:
    first()
    program = import_module(module)
    sys.argv[0] = str(program.__file__)
    return program.main()


def _handle_no_signals() -> None:
    """But as a new process does."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def load() -> None:
    """Load all, and fork from now on."""
    for name in (*PROGRAMS, *LATER):
        import_module(name)
    for name in ("tools.muster.host.supervising.children", "tools.muster.local.hosts"):
        import_module(name).subprocess = SimpleNamespace(Popen=Process, DEVNULL=subprocess.DEVNULL)
