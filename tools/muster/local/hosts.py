"""``muster local``: hosts on this machine, each with its supervisor, under one foreground process.

The hosts end with the foreground process. The other commands use the supervisors' control sockets, or the
foreground's own to start a host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from tools.muster.config.parse import ConfigError
from tools.muster.host import control, rundir
from tools.muster.host.supervising.children import die_with, environment, python, watched
from tools.muster.host.supervising.supervisor import stop_signals
from tools.muster.local.layout import Layout, LocalHost, save

STOP_LIMIT_S = 60.0  # a supervisor's own limits end earlier, unless elections take very long
UP_LIMIT_S = 20.0


class LocalCluster:
    """The foreground process. :meth:`run` returns the exit code."""

    def __init__(self, data_dir: str, layout: Layout, on_ready: Callable[[], None] | None = None) -> None:
        self._data_dir, self._layout, self._on_ready = data_dir, layout, on_ready
        self._run_dir = rundir.make_run_dir(data_dir)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._notify: list[socket.socket] = []
        self._waiting = set(range(len(layout.hosts)))  # hosts that have not been ready yet
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._announced = False

    async def run(self) -> int:
        """Start all hosts, print ``ready`` once all serve, and stay until told to stop."""
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop.set)
        path = os.path.join(self._run_dir, "local.sock")
        server = await control.listen(path, self._answer)
        try:
            for host in self._layout.hosts:
                self._listen_for_ready(host)
                self._start(host)
            await self._stop.wait()
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):  # the run directory may be gone
                os.unlink(path)
            for s in self._notify:
                loop.remove_reader(s)
                s.close()
            await self._stop_all()
            rundir.remove_run_dir(self._data_dir, self._run_dir)
        return self._exit_code

    def stop(self) -> None:
        """Have :meth:`run` stop all hosts and return."""
        self._stop.set()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] != "start":
            return {"error": f"unknown request {request['do']!r}"}
        host = self._layout.host(request["host"])
        process = self._processes.get(host.index)
        while process and process.poll() is not None and self._processes.get(host.index) is process:
            await asyncio.sleep(0.01)  # it has ended: the loop hears of that at once
        if host.index in self._processes:
            return {
                "error": f"host {host.index} is already running (process {self._processes[host.index].pid})"
            }
        return {"pid": self._start(host)}

    def _start(self, host: LocalHost) -> int:
        parent = os.getpid()
        environ = {k: v for k, v in environment().items() if not k.startswith(("ETCD_", "MUSTER_"))}
        environ["NOTIFY_SOCKET"] = self._notify_path(host)
        with open(host.log_file, "ab") as log:
            process = subprocess.Popen(
                python("tools.muster.cli", *host.arguments),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ,
                start_new_session=True,  # Ctrl-C is for this process: hosts end in order
                preexec_fn=lambda: die_with(parent),
            )  # fmt: skip
        pid_fd = watched(process)
        self._processes[host.index] = process
        asyncio.get_running_loop().add_reader(pid_fd, self._on_exit, host, process, pid_fd)
        return process.pid

    def _on_exit(self, host: LocalHost, process: subprocess.Popen[bytes], pid_fd: int) -> None:
        asyncio.get_running_loop().remove_reader(pid_fd)
        os.close(pid_fd)
        code = process.wait()
        del self._processes[host.index]
        if self._stop.is_set():
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        say(f"host {host.index} {how}; its log: {host.log_file}")
        if not self._announced and code > 0:
            last = last_lines(host.log_file)
            for line in last:
                say(f"  {line}")
            if any("address already in use" in line for line in last):
                say("another program has a port of this cluster: end it. A cluster with other ports needs a "
                    "--data-dir of its own")
            self._exit_code = 1
            self._stop.set()

    def _notify_path(self, host: LocalHost) -> str:
        return os.path.join(self._run_dir, f"notify-{host.index}.sock")

    def _listen_for_ready(self, host: LocalHost) -> None:
        path = self._notify_path(host)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        s.bind(path)
        self._notify.append(s)
        asyncio.get_running_loop().add_reader(s, self._on_notify, host, s)

    def _on_notify(self, host: LocalHost, s: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if b"READY=1" in s.recv(4096).split(b"\n"):
                self._waiting.discard(host.index)
                if self._announced:
                    say(f"host {host.index} is ready")
        if not self._waiting and not self._announced:
            self._announced = True
            for h in self._layout.hosts:
                print(f"host {h.index}  {h.endpoint}", flush=True)
            print("ready", flush=True)
            if self._on_ready is not None:
                self._on_ready()

    async def _stop_all(self) -> None:
        """SIGTERM to every host at once, SIGKILL to those left after a while."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        while self._processes and time.monotonic() < deadline:
            await asyncio.sleep(0.02)  # pid readers empty the table
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # its children end with it
            self._exit_code = 1
        while self._processes:
            await asyncio.sleep(0.02)


def say(text: str) -> None:
    """A line for people, beside the output for programs; lost where there is no terminal any more."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def last_lines(path: str) -> list[str]:
    """The end of a log: five lines."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 8192))
            return f.read().decode(errors="replace").splitlines()[-5:]
    except OSError:
        return []


def run(data_dir: str, layout: Layout, on_ready: Callable[[], None] | None = None) -> int:
    """Run a local cluster in the foreground; ``on_ready`` is called once, after ``ready`` is printed."""
    try:
        os.makedirs(data_dir, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot access data directory: {e.strerror}: {data_dir}") from None
    lock = rundir.DataDirLock(data_dir)
    try:
        save(data_dir, layout)

        async def main() -> int:
            return await LocalCluster(data_dir, layout, on_ready).run()

        return asyncio.run(main())
    finally:
        lock.release()


# from another terminal


def kill(host: LocalHost) -> int:
    """kill -9 of a host's processes; the supervisor's pid. ConfigError if it is down."""
    processes = processes_of(host)
    for process in processes:  # the supervisor first, so that it starts nothing again
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_until_gone(host, processes)
    return processes[0].pid


def kill_node(host: LocalHost, shard: int) -> int:
    """kill -9 of one node; its pid."""
    return int(_ask(host, {"do": "kill", "kind": "node", "index": shard})["pid"])


def kill_front(host: LocalHost, front: int) -> int:
    """kill -9 of one front; its pid."""
    return int(_ask(host, {"do": "kill", "kind": "front", "index": front})["pid"])


def stop(host: LocalHost) -> int:
    """SIGTERM to a host's supervisor; its pid, once it has ended."""
    processes = processes_of(host)
    processes[0].terminate()
    _wait_until_gone(host, processes)
    return processes[0].pid


def start(data_dir: str, host: LocalHost, *, wait_s: float = 0.0) -> int:
    """Have the foreground process start a host again. Returns when its supervisor answers, with ``wait_s``
    when it is ready."""
    path = os.path.join(rundir.run_dir_of(data_dir), "local.sock")
    try:
        answer = control.ask(path, {"do": "start", "host": host.index})
    except control.Unreachable:
        raise ConfigError(f"`muster local` is not running in {data_dir}") from None
    if "error" in answer:
        raise ConfigError(answer["error"])

    def up() -> bool:
        try:
            return bool(control.ask(_control_path(host), {"do": "ready"})["ready"]) or not wait_s
        except control.Unreachable:
            return False

    limit_s = wait_s or UP_LIMIT_S
    _wait_for(up, f"host {host.index} is not up after {limit_s:g} s; its log: {host.log_file}", limit_s)
    return int(answer["pid"])


def status_of(host: LocalHost) -> dict[str, Any] | None:
    """A host's own report; None if it is down."""
    try:
        return control.ask(_control_path(host), {"do": "status"})
    except control.Unreachable:
        return None


def _control_path(host: LocalHost) -> str:
    return control.socket_of(rundir.run_dir_of(host.data_dir))


def processes_of(host: LocalHost) -> list[psutil.Process]:
    """A host's processes, the supervisor first. ConfigError if it is down."""
    pid = rundir.holder_of(host.data_dir)
    try:
        if pid:
            supervisor = psutil.Process(pid)
            return [supervisor, *supervisor.children(recursive=True)]
    except psutil.NoSuchProcess:
        pass  # it ended meanwhile
    raise ConfigError(f"host {host.index} is not running")


def _wait_until_gone(host: LocalHost, processes: list[psutil.Process]) -> None:
    """Ports and data are free for the next start then."""
    _wait_for(lambda: not any(map(_runs, processes)), f"host {host.index} is still running", STOP_LIMIT_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ask(host: LocalHost, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = control.ask(_control_path(host), request)
    except control.Unreachable:
        raise ConfigError(f"host {host.index} is not running") from None
    if "error" in answer:
        raise ConfigError(f"host {host.index}: {answer['error']}")
    return answer


def _wait_for(condition: Callable[[], bool], message: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise ConfigError(message)
        time.sleep(0.02)
