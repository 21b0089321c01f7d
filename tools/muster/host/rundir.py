"""Where a host's sockets are, and which process holds its data directory and its run directory.

A Unix socket's path has at most 107 bytes: a deep data directory gets a short run directory elsewhere, named
in ``<data-dir>/run-dir``. A new socket replaces one at its path: each run directory is of one process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import time
from pathlib import Path

from tools.muster.config.parse import ConfigError
from tools.muster.config.urls import LONGEST_SOCKET_PATH

LONGEST_SOCKET_NAME = "/front-999-0.sock"  # room for all names of sockets
POINTER = "run-dir"
OWNER = "data-dir"  # in a short run directory: whose it is
LOCK = "lock"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LEFT_S = 60.0  # a run directory is so old before it can have been left
_ASKED_S = 0.5  # a start waits so long for processes that only check the lock
# this process's own, with the descriptors that lock them: its children inherit none
_held: dict[str, int] = {}
_pages: dict[str, int] = {}  # of those: memory of their fronts


def run_dir_of(data_dir: str) -> str:
    """The run directory of a data directory's processes."""
    try:
        named = os.fsdecode(Path(data_dir, POINTER).read_bytes().strip())
    except OSError:
        named = ""
    return named or os.path.join(os.path.abspath(data_dir), "run")


def make_run_dir(data_dir: str, asked: str = "") -> str:
    """Make the run directory, that only this user writes to, and record it if it is not ``<data-dir>/run``.
    Until :func:`remove_run_dir` no other process can do so. ConfigError."""
    usual = os.path.join(os.path.abspath(data_dir), "run")
    path = _within(os.path.abspath(asked)) if asked else usual
    if not asked and not _fits(path):
        path = _elsewhere(data_dir)
    if not _fits(path):
        raise ConfigError(f"--run-dir {path} is too long for a unix socket's path")
    try:
        _make(path, asked=asked != "")
        _hold(path)
        _note(Path(data_dir, POINTER), path if path != usual else "")
        if path == _elsewhere(data_dir):
            Path(path, OWNER).write_bytes(os.fsencode(os.path.realpath(data_dir)))
            _remove_left(os.path.dirname(path))
    except OSError as e:
        raise ConfigError(f"cannot make run directory {path}: {e.strerror}") from None
    return path


def _note(pointer: Path, path: str) -> None:
    """Name the run directory in the data directory; "": the usual one. A full disk keeps what was named
    before, and has no say where that is the same. OSError."""
    if not path:
        pointer.unlink(missing_ok=True)
        return
    told = os.fsencode(path) + b"\n"
    with contextlib.suppress(OSError):
        if pointer.read_bytes() == told:
            return
    made = pointer.with_name(f"{POINTER}.new")
    try:
        made.write_bytes(told)
        os.replace(made, pointer)
    except OSError:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


def _within(asked: str) -> str:
    """An asked directory that all users share, as ``/tmp``, stays so: the sockets get their own in it."""
    with contextlib.suppress(OSError):
        mode = os.lstat(asked).st_mode
        if mode & stat.S_ISVTX and mode & _OTHERS_WRITE and _is_own(asked):
            return os.path.join(asked, "muster")
    return asked


def _make(path: str, *, asked: bool) -> None:
    """Make it, private to this user. Others may read an ``asked`` one if they could, as clients do whose
    socket is there; none of them may replace a socket. ConfigError, OSError."""
    mode = 0
    try:
        os.makedirs(path, mode=0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        if not _is_own(path):
            raise ConfigError(f"run directory {path} belongs to another user") from None
        mode = stat.S_IMODE(os.lstat(path).st_mode)
    wanted = (mode | 0o700) & ~_OTHERS_WRITE if asked else 0o700
    if mode != wanted:
        os.chmod(path, wanted)


def remove_run_dir(data_dir: str, path: str) -> None:
    """After an ordered stop: leave nothing outside the data directory."""
    if path == _elsewhere(data_dir):
        shutil.rmtree(path, ignore_errors=True)
    _let_go(path)


def _hold(path: str) -> None:
    """Lock it. The lock is the directory's own: cleaners of ``/tmp`` could remove a file in it, and
    systemd's leaves a locked directory alone. ConfigError, OSError."""
    _let_go(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    free = True
    with contextlib.suppress(OSError):  # a file system without such locks, as NFS
        free = _locked(fd)
    if not free:
        os.close(fd)
        raise ConfigError(f"run directory {path} is in use by another muster: each needs its own --run-dir")
    _held[path] = fd


def _let_go(path: str) -> None:
    for kept in (_held, _pages):
        if path in kept:
            os.close(kept.pop(path))


def page_of(path: str, fronts: int) -> int:
    """A descriptor of memory for as long as this process holds the run directory: what earlier starts have
    shown does not count. -1: it holds none, or there is one front."""
    if fronts < 2 or path not in _held:
        return -1
    if path not in _pages:
        _pages[path] = os.memfd_create("muster-shown", os.MFD_CLOEXEC)
    return _pages[path]


def _locked(fd: int) -> bool:
    """A process that only checks the lock holds it for a moment. OSError."""
    until = time.monotonic() + _ASKED_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_ASKED_S / 20)
        else:
            return True


def _remove_left(parent: str) -> None:
    """Remove short run directories of hosts that were killed, and whose data directory is gone."""
    for folder in Path(parent).glob("muster-*"):
        with contextlib.suppress(OSError, ValueError):  # it names no data directory
            # one that is new has nothing yet that listens
            if not _is_own(folder) or time.time() - folder.stat().st_mtime < _LEFT_S:
                continue
            data_dir = os.fsdecode((folder / OWNER).read_bytes())
            if (folder.name.endswith(f"-{_digest(data_dir)}") and not os.path.lexists(data_dir)
                    and not any(map(_is_heard, folder.iterdir()))):
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(path: str | Path) -> bool:
    """In a shared directory another user may have made it first, or made it a link. OSError."""
    info = os.lstat(path)
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()


def _is_heard(path: Path) -> bool:
    """Whether a process listens at this file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asks:
        asks.setblocking(False)
        return asks.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def _digest(data_dir: str) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]


def _elsewhere(data_dir: str) -> str:
    """A short path for this data directory only."""
    digest = _digest(data_dir)
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    path = os.path.join(base, f"muster-{digest}")
    if base and os.access(base, os.W_OK) and _fits(path):
        return path
    return f"/tmp/muster-{os.getuid()}-{digest}"


def _fits(path: str) -> bool:
    return len(os.fsencode(path)) + len(LONGEST_SOCKET_NAME) <= LONGEST_SOCKET_PATH


class DataDirLock:
    """Holds ``<data-dir>/lock``, with this process's ID in it."""

    def __init__(self, data_dir: str, *, to_read: bool = False) -> None:
        """``to_read``: the holder changes nothing there. The file system may be read-only, as a kernel makes
        it when a disk fails; then no ID is written."""
        self._path = path = os.path.join(data_dir, LOCK)
        told = f"{os.getpid()}\n".encode()
        try:
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                if not to_read or e.errno != errno.EROFS:
                    raise
                self._fd, told = _open_to_read(path), b""
        except OSError as e:
            raise ConfigError(f"cannot access data directory: {path}: {e.strerror}") from None
        try:
            free = _locked(self._fd)
        except OSError as e:  # a file system without such locks, as NFS
            os.close(self._fd)
            raise ConfigError(f"cannot lock data directory: {path}: {e.strerror}") from None
        if not free:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise ConfigError(
                f"data directory {data_dir} is in use by another muster"
                + (f" (process {holder})" if holder else ""))
        try:  # in this order a full disk has room, where it had for the last process
            if told:
                os.pwrite(self._fd, told, 0)
                os.ftruncate(self._fd, len(told))
        except OSError as e:
            os.close(self._fd)
            raise ConfigError(f"cannot access data directory: {path}: {e.strerror}") from None

    def is_there(self) -> bool:
        """Whether its file was not removed meanwhile."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        os.close(self._fd)


def _open_to_read(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no process holds it or can make it
        return os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)


def holder_of(data_dir: str) -> int:
    """The ID of the process that holds a data directory; 0: none. Others that ask are none."""
    try:
        fd = os.open(os.path.join(data_dir, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0
