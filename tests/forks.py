"""Processes of muster's programs without the CPU of their imports: they are forked from one that has them.

:func:`popen` and :func:`run` stand in for ``subprocess.Popen`` and ``subprocess.run`` with a command line
``python -m PROGRAM ...``. Each program has a server, which lives as long as this process and forks for each
command line. The forked process has the arguments, environment, folder, network, session and descriptors
that are asked for. It ends with the server at the latest, and that with this process, however it ends:
signals to the process group do not end the server. Its command line and memory are the server's: tests of
those, and of a program's start, run the real one. Hosts are forked where ``MUSTER_TEST_WARM`` asks.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import functools
import gc
import marshal
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests import forked
from tools.muster.host.supervising.children import die_with
from tools.muster.machine.signals import IGNORED

Given = tuple[str, list[str], dict[str, str], str, bool, int]
Signals = dict[signal.Signals, Any]  # handlers
ROOT = Path(__file__).parents[1]
HOSTS = "tools.muster.cli"
PROGRAMS = {  # whose server it forks from, where its main() is, and its name
    HOSTS: (HOSTS, HOSTS, "muster"),
    "tools.muster.demo": (HOSTS, "tools.muster.demo", "demo"),
    "tools.muster.processes.node": (HOSTS, "tools.muster.processes.node", "node"),
    "tools.musterctl": ("tools.musterctl", "tools.musterctl.cli", "musterctl"),
    "bench.cli": ("bench.cli", "bench.cli", "muster-bench"),
}
MUSTERCTL = (sys.executable, "-m", "tools.musterctl")
_NETWORK = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_home = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)  # the first that asks may be elsewhere
_starting = threading.Lock()


def program(line: Sequence[object]) -> tuple[str, list[str]] | None:
    """The program of a command line that may be forked here, and its arguments."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in line]
    words[1:2] = [] if words[1:2] == ["-P"] else words[1:2]
    if words[:2] != [sys.executable, "-m"] or words[2] not in PROGRAMS:
        return None
    if PROGRAMS[words[2]][0] == HOSTS and not os.environ.get("MUSTER_TEST_WARM"):
        return None
    return words[2], words[3:]


def run(
    line: Sequence[object], *, capture_output: bool = False, input: Any = None, check: bool = False,
    timeout: float | None = None, **how: Any,
) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """``subprocess.run`` of a process that is forked, if it may be."""
    if capture_output:
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        how["stdin"] = subprocess.PIPE
    with popen(line, **how) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line, out, err)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def popen(
    line: Sequence[Any], *, cold: bool = False, dies: bool = False, **how: Any
) -> subprocess.Popen[Any]:
    """``subprocess.Popen`` of a process that is forked, if it may be; ``cold``: it may not. ``dies``: it ends
    with the thread that starts it, as what is forked does with this process."""
    if not cold and program(line) is not None:
        return Forked(line, **how)
    parent = os.getpid()
    return subprocess.Popen(line, **how, preexec_fn=(lambda: die_with(parent)) if dies else None)


class Forked(subprocess.Popen[Any]):
    """A process forked by the server of its program."""

    def _execute_child(
        self, args: Sequence[object], executable: object, preexec_fn: object, close_fds: object,
        pass_fds: object, cwd: Any, env: Any, startupinfo: object, creationflags: object, shell: object,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        restore_signals: object, gid: object, gids: object, uid: object, umask: int,
        start_new_session: bool, process_group: int,
    ) -> None:  # fmt: skip
        asked = (preexec_fn, pass_fds, shell, gid, gids, uid, process_group)
        assert asked == (None, (), False, None, None, None, -1), "not for what is forked"
        found = program(args)
        assert found is not None
        module, words = found
        given = (
            module, words, dict(os.environ if env is None else env), str(cwd or os.getcwd()),
            start_new_session, _umask() if umask < 0 else umask,
        )  # fmt: skip
        self._link = socket.socket(socket.AF_UNIX)
        with open(_NETWORK, "rb") as network:
            self._link.connect(server(PROGRAMS[module][0]))
            streams = [own if stream == -1 else stream
                       for own, stream in enumerate((p2cread, c2pwrite, errwrite))]  # fmt: skip
            send(self._link, given, [*streams, network.fileno()])
            self.pid = read(self._link)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        lock = self._waitpid_lock  # type: ignore[attr-defined]
        if lock.acquire(blocking=False):  # else another thread waits: this one may want to kill
            try:
                self._look(0.0)
            finally:
                lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        with self._waitpid_lock:  # type: ignore[attr-defined]
            self._look(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _look(self, timeout: float | None) -> None:
        if self.returncode is None:
            with selectors.PollSelector() as ready:
                ready.register(self._link, selectors.EVENT_READ)
                if ready.select(timeout):
                    self.returncode = self._ended()
                    self._link.close()

    def _ended(self) -> int:
        try:
            return os.waitstatus_to_exitcode(read(self._link))
        except ConnectionError:  # the process ends with the server, unless it has changed its user
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            return -signal.SIGKILL


def _umask() -> int:
    """This process's, without a change of it."""
    told = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(told.partition("\nUmask:")[2].split()[0], 8)


def read(link: socket.socket) -> int:
    """A number of the server. ConnectionError: it has ended."""
    data = b""
    while len(data) < 4:
        if not (piece := link.recv(4 - len(data))):
            raise ConnectionResetError("the server has ended")
        data += piece
    return int.from_bytes(data, "big")


def send(link: socket.socket, given: object, descriptors: Sequence[int]) -> None:
    """Ask the server for a process."""
    data = marshal.dumps(given)
    data = len(data).to_bytes(4, "big") + data
    sent = socket.send_fds(link, [data], list(descriptors))
    if sent < len(data):
        link.sendall(data[sent:])


def server(module: str) -> str:
    """The socket of a program's server, which is started for the first that asks."""
    with _starting:
        return _started(module)


@functools.cache
def _started(module: str) -> str:
    folder = tempfile.mkdtemp(prefix="forks-")
    place = f"{folder}/socket"
    # its settings are each command line's
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD", "MUSTER"))}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.forks", module, place, str(_home)], cwd=ROOT, pass_fds=[_home],
        env={**environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.wait, 10)
    atexit.register(process.stdin.close)  # which ends it, and comes first
    assert process.stdout.readline() == b"ready\n"
    return place


# in the server


def _preload(module: str) -> None:
    if module == HOSTS:
        import_module("tests.cluster.warm").load()
    elif module == MUSTERCTL[2]:
        for one in pkgutil.walk_packages(import_module(module).__path__, f"{module}."):
            if not one.name.endswith("__main__"):
                import_module(one.name)
    else:
        import_module(module)
    gc.collect()
    gc.freeze()


def _become(given: Given, descriptors: list[int], server: int, signals: Signals) -> None:
    """In the forked process: be the program to its end."""
    _end_with(server)
    module, words, environment, folder, session, umask = given
    _enter(descriptors[3])
    forked.inherit(descriptors[:3], environment)
    signal.set_wakeup_fd(-1)
    for number, handler in signals.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    if session:
        os.setsid()
    os.umask(umask)
    os.chdir(folder)
    _, entry, name = PROGRAMS[module]
    forked.run(import_module(entry).main, [name, *words])


def _end_with(server: int) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, *IGNORED)}
    die_with(server)
    for number, handler in before.items():  # which that ignores, as muster's own processes do
        signal.signal(number, handler)


def _enter(network: int) -> None:
    if os.fstat(network).st_ino != os.stat(_NETWORK).st_ino:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(network, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def _serve(module: str, place: str, home: str) -> None:
    """Fork for each connection, and answer it with the status of the process; its end kills the process."""
    signals: Signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in signals:  # to the whole group: the end of the tests' process ends this one
        signal.signal(number, signal.SIG_IGN)
    _enter(int(home))
    _preload(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signals[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    running: dict[int, socket.socket] = {}
    waiting = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        waiting.register(source, selectors.EVENT_READ)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:  # the tests' process has ended
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return
            if key.fileobj is listener:
                connection = listener.accept()[0]
                if pid := _fork(connection, signals):
                    running[pid] = connection
                    waiting.register(connection, selectors.EVENT_READ, pid)
            elif key.fileobj == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
            elif key.data in running:
                os.kill(key.data, signal.SIGKILL)
                waiting.unregister(key.fileobj)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                connection = running.pop(ended[0])
                with contextlib.suppress(KeyError):
                    waiting.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(ended[1].to_bytes(4, "big"))
                connection.close()


def _fork(connection: socket.socket, signals: Signals) -> int:
    """The process that a connection asks for; 0: it has ended before it asked."""
    given, descriptors = _given(connection)
    pid = 0
    if given is not None:
        server = os.getpid()
        # a signal that comes as soon as the process is there waits for its handler
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if not (pid := os.fork()):
            _become(given, descriptors, server, signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        with contextlib.suppress(OSError):  # it has ended: its end is read next, and kills the process
            connection.sendall(pid.to_bytes(4, "big"))
    else:
        connection.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _given(connection: socket.socket) -> tuple[Given | None, list[int]]:
    """What a connection asks for, if it does so before it ends."""
    data, descriptors = b"", array.array("i")
    with contextlib.suppress(ConnectionError):
        data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(4 * 4))
        for _, _, held in ancillary:
            descriptors.frombytes(held)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            if not (piece := connection.recv(1 << 20)):
                return None, list(descriptors)
            data += piece
        return marshal.loads(data[4:]), list(descriptors)
    return None, list(descriptors)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
