"""musterctl without the 0.2 s of CPU of its imports: a server with all modules forks for each command line.

:func:`musterctl` gives a command line for ``subprocess``, in place of ``python -m tools.musterctl``. Its
process hands arguments, environment, folder and descriptors to the server, passes signals on to the forked
process, and ends as that one does. Tests with few command lines, and those of musterctl's start, run the real
one.
"""

from __future__ import annotations

import array
import atexit
import contextlib
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
from importlib import import_module
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_LAUNCH = Path(__file__).with_name("warm_launch.py")


@functools.cache
def musterctl() -> tuple[str, ...]:
    """The command line, whose server lives as long as this process."""
    folder = tempfile.mkdtemp(prefix="warm-")
    place = f"{folder}/socket"
    server = subprocess.Popen([sys.executable, "-m", "tests.interop.warm", place], cwd=_ROOT,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.wait, 10)
    atexit.register(server.stdin.close)  # which ends it, and comes first
    assert server.stdout.readline() == b"ready\n"
    return sys.executable, "-IS", str(_LAUNCH), place


def _preload() -> None:
    package = import_module("tools.musterctl")
    for module in pkgutil.walk_packages(package.__path__, "tools.musterctl."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.freeze()


def _become(arguments: list[str], environment: dict[str, str], folder: str, descriptors: list[int]) -> None:
    """In the forked process: run the command line."""
    for own, given in enumerate(descriptors):
        os.dup2(given, own)
    os.closerange(3, 64)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["musterctl", *arguments]
    old = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = (
        open(place, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        for place, (mode, before) in enumerate(zip("rww", old, strict=True)))
    import_module("tools.musterctl.cli").main()


def _serve(place: str) -> None:
    """Fork for each connection, and answer it with the status of the process; its end kills the process."""
    _preload()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    running: dict[int, socket.socket] = {}
    waiting = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        waiting.register(source, selectors.EVENT_READ)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:  # the tests' process has ended
                return
            if key.fileobj is listener:
                connection = listener.accept()[0]
                given, descriptors = _given(connection)
                if pid := os.fork():
                    for descriptor in descriptors:
                        os.close(descriptor)
                    connection.sendall(pid.to_bytes(4, "big"))
                    running[pid] = connection
                    waiting.register(connection, selectors.EVENT_READ, pid)
                else:
                    _become(*given, descriptors)
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


def _given(connection: socket.socket) -> tuple[tuple[list[str], dict[str, str], str], list[int]]:
    data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    descriptors = array.array("i")
    for _, _, held in ancillary:
        descriptors.frombytes(held)
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        data += connection.recv(1 << 20)
    return marshal.loads(data[4:]), list(descriptors)


if __name__ == "__main__":
    _serve(sys.argv[1])
