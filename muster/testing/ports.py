"""Ports of this machine that no other cluster of tests takes.

The kernel gives none above 60999 to connections unless it is told to. Each keeper locks a block there, as
long as it runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import socket
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

_BLOCK = 50  # 16 hosts have three each
_ABOVE = (61_000, 65_500)
_BELOW = (20_000, 32_000)  # where the kernel gives the upper ones to connections
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(count: int) -> list[int]:
    """Ports that are free now, and that no other caller of this gets before this process ends. OSError."""
    folder = _folder()
    first, end = _ABOVE if _last_of_kernel() < _ABOVE[0] else _BELOW
    starts = list(range(first, end - _BLOCK + 1, _BLOCK))
    random.shuffle(starts)
    starts.sort(key=lambda start: _is_kept(folder / str(start)))
    for start in starts:
        if (lock := _locked(folder, start)) is None:
            continue
        found = [port for port in range(start, start + _BLOCK) if _is_free(port)]
        if len(found) >= count:
            return found[:count]  # locked until this process ends
        os.close(lock)
    raise OSError("no block of free ports: too many clusters run on this machine")


def take(wanted: Collection[int]) -> None:
    """Of :func:`free`, from an earlier process. OSError: another one has them, or others of their block."""
    for start in {port // _BLOCK * _BLOCK for port in wanted}:
        if _locked(_folder(), start) is None:
            raise OSError(f"another cluster of tests has the ports from {start} on")
    if taken := [port for port in wanted if not _is_free(port)]:
        raise OSError(f"in use: port {taken[0]}")


def keep(found: Collection[int], file: str) -> None:
    """Other callers of :func:`free` take these last, while this JSON file lists one of their block: a later
    process needs them."""
    for start in {port // _BLOCK * _BLOCK for port in found}:
        (_folder() / str(start)).write_bytes(os.fsencode(os.path.abspath(file)))


def _is_kept(lock: Path) -> bool:
    start = int(lock.name)
    try:
        listed = json.loads(Path(os.fsdecode(lock.read_bytes())).read_bytes())
        return any(start <= port < start + _BLOCK for port in listed)
    except (OSError, TypeError, ValueError):
        return False  # never used, or the file lists others


def _folder() -> Path:
    """This user's. OSError: another one has made it first, and could have it lead to any file."""
    folder = Path(tempfile.gettempdir()) / f"muster-testing-ports-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    info = os.lstat(folder)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user, or is no directory: set TMPDIR")
    if info.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def _locked(folder: Path, start: int) -> int | None:
    """The lock of a block, until this process ends; None: another one has it."""
    lock = os.open(folder / str(start), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _last_of_kernel() -> int:
    try:
        return int(_RANGE.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 65_535


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as hosts bind: a connection that has ended blocks its port for a minute for other binds
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
