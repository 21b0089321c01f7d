"""One child of the supervisor: started, watched, started again after a crash, stopped.

A child reports on the pipe ``status_fd``, one JSON object a line: ``{"event": "ready"}``, ``{"event":
"leader", "shard", "leader", "term"}``, ``{"event": "fatal", "error"}``, ``{"event": "grown",
"level"}`` (G16), ``{"event": "shards", "base", "born", "forming", "dropped"}``, ``{"event": "drained"}``.
Exit code 3: another start would not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.durable import SCARCE
from tools.muster.machine.process.crash import FATAL_EXIT, REMOVED_EXIT
from tools.muster.machine.process.handed import hand
from tools.muster.machine.signals import IGNORED

FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0
STEADY_S = 10.0  # a child that ran this long starts again at once, whatever its earlier crashes
LONGEST_STATUS_LINE = 65_536
_MAY_PASS = (*SCARCE, errno.EAGAIN)  # no process may be made, too

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True, frozen=True)
class ChildSpec:
    """``argv(status_fd)`` is the command line, ``settings(status_fd)`` the child's input (``handed``)."""

    kind: str  # "node", "front" or "console"
    index: int  # of the shard, or of the front; 0 of a console
    cpu: int
    argv: Callable[[int], Sequence[str]]
    settings: Callable[[int], Sequence[str]] = lambda status_fd: ()
    serves: bool = False  # a node whose process holds a front, see :meth:`Child.drain`
    shared_fd: int = -1  # it inherits this one, too

    @property
    def label(self) -> str:
        return f"{self.kind} {self.index}"


@dataclass(slots=True)
class Child:
    """``on_change(child, event)``: each status line, each run's end, and a start that lacked something."""

    spec: ChildSpec
    on_change: Callable[[Child, dict[str, Any]], None]
    pid: int = 0
    ready: bool = False
    starts: int = 0
    stopping: bool = False
    state: dict[str, Any] = field(default_factory=dict)  # the last "leader" event
    fatal: str = ""  # the last "fatal" message
    _delay_s: float = 0.0
    _task: asyncio.Task[None] | None = None
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _drained: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Keep it running until :meth:`stop`."""
        self._task = asyncio.get_running_loop().create_task(self._keep_running())
        self._task.add_done_callback(self._on_done)

    def signal(self, number: int) -> None:
        if self.pid:
            os.kill(self.pid, number)

    async def drain(self, limit_s: float) -> None:
        """End the front in a node's process, and wait until it has ended, ``limit_s`` at most."""
        self.stopping = True
        if self.pid and self.ready:  # a starting node does not know the signal yet
            self.signal(signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), limit_s)

    async def stop(self, limit_s: float) -> bool:
        """Ask it to end, kill it after ``limit_s``; whether it ended by itself."""
        self.stopping = True
        if self._task is None:
            return True
        if not self.pid:
            self._task.cancel()
            return True
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._gone.wait(), limit_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._gone.wait()
            return False
        return True

    async def _keep_running(self) -> None:
        while not self.stopping:
            began = time.monotonic()
            try:
                begun = self._begin()
            except OSError as error:
                if error.errno not in _MAY_PASS:
                    raise
                event: dict[str, Any] = {"event": "lacking", "error": str(error)}
            else:
                event = {"event": "exited", "code": await self._end_of(*begun)}
            ran_s = time.monotonic() - began
            if ran_s >= STEADY_S:
                self._delay_s = 0.0
            self._delay_s = min(max(self._delay_s * 2, FIRST_DELAY_S), LONGEST_DELAY_S)
            self.on_change(self, {**event, "ran_s": round(ran_s, 3), "again_in_s": self._delay_s})
            if event.get("code") in (FATAL_EXIT, REMOVED_EXIT) or self.stopping:
                return
            await asyncio.sleep(self._delay_s)  # the back-off itself, not a wait for a condition

    def _begin(self) -> tuple[subprocess.Popen[bytes], int, int]:
        """A new process, what can be read at its end, and its status pipe. OSError: there is none."""
        read_fd, write_fd = os.pipe()
        handed_fd = -1
        supervisor = os.getpid()
        try:
            handed_fd = hand(self.spec.settings(write_fd))
            process = subprocess.Popen(
                self.spec.argv(write_fd), stdin=handed_fd, env=_environment_of_child(),
                pass_fds=(write_fd,) if self.spec.shared_fd < 0 else (write_fd, self.spec.shared_fd),
                process_group=0,  # Ctrl-C is for the supervisor: children end in order
                preexec_fn=lambda: die_with(supervisor),
            )  # fmt: skip
            pid_fd = watched(process)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            if handed_fd >= 0:
                os.close(handed_fd)
        return process, pid_fd, read_fd

    async def _end_of(self, process: subprocess.Popen[bytes], pid_fd: int, read_fd: int) -> int:
        self.pid, self.ready, self.state, self.fatal = process.pid, False, {}, ""
        self.starts += 1
        self._gone.clear()
        self._drained.clear()
        self.on_change(self, {"event": "started"})
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pid_fd, _settle, exited)
        reader = _StatusReader(read_fd, self._on_status)
        try:
            await exited
        finally:
            loop.remove_reader(pid_fd)
            os.close(pid_fd)
            reader.close()
        code = process.wait()
        self.pid, self.ready = 0, False
        self._gone.set()
        self._drained.set()
        return code

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_change(self, {"event": "failed", "error": repr(error)})

    def _on_status(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "ready":
            self.ready = True
        elif kind == "leader":
            self.state = event
        elif kind == "drained":
            self._drained.set()
            if not self.stopping:  # the signal is a stranger's: the front has ended for good
                self.signal(signal.SIGTERM)
        elif kind == "fatal":
            self.fatal = str(event.get("error", ""))
        self.on_change(self, event)


class _StatusReader:
    """JSON lines from a pipe; other lines are dropped."""

    def __init__(self, fd: int, on_event: Callable[[dict[str, Any]], None]) -> None:
        os.set_blocking(fd, False)
        self._fd, self._on_event, self._rest = fd, on_event, b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._fd)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:LONGEST_STATUS_LINE]
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._on_event(event)

    def close(self) -> None:
        """Read the rest, the child's last words, and close."""
        self._loop.remove_reader(self._fd)
        self._readable()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def watched(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that can be read once this child has ended. OSError: there can be none, as under an old
    profile of seccomp, and the child has been ended."""
    try:
        return os.pidfd_open(process.pid)
    except OSError as e:
        process.kill()
        process.wait()
        raise OSError(e.errno, f"pidfd_open: {e.strerror}") from None


def die_with(parent: int) -> None:
    """In a new child, before its program: end with the parent."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)
    for number in (signal.SIGHUP, *IGNORED):
        signal.signal(number, signal.SIG_IGN)


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of muster's processes; it needs :func:`environment`."""
    # -P: a folder `node` in the working directory is not muster's
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment in which muster's packages are found from any directory."""
    root = str(Path(__file__).resolve().parents[4])
    path = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *path])}


def _environment_of_child() -> dict[str, str]:
    """:func:`environment` without the supervisor's own: flags as variables, and systemd's socket."""
    return {
        k: v
        for k, v in environment().items()
        if not k.startswith(("ETCD_", "MUSTER_")) and k != "NOTIFY_SOCKET"
    }
