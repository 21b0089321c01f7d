"""Which database directory is the store: one small file decides, so that a snapshot is switched in
atomically.

::

    state/current        "db-3": replaced by rename, the only commit point of an install
    state/db-3/          the database
    state/incoming-.../  a snapshot being received    (removed at open)
    outgoing/            checkpoints being sent       (removed at the start of the node)

A crash before the rename leaves the old database, one after it the new; the next open removes what
``current`` does not name, once that name lasts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from pathlib import Path

from node.durable import sync_directory, write_whole
from node.storage.errors import StorageCorruption, SyncFailed, named_in

FIRST = "db-1"


def free_bytes(of: int | str | Path) -> int:
    """What an ordinary user may still write to the file system of an open file or a path. OSError."""
    system = os.statvfs(of)
    return system.f_bavail * system.f_frsize


def sync_tree(path: Path) -> None:
    for child in path.iterdir():
        fd = os.open(child, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    sync_directory(path)


def read_current(root: Path) -> str | None:
    """The name of the database directory; None in a fresh directory. Raises StorageCorruption."""
    pointer = root / "current"
    try:
        text = pointer.read_bytes()
    except FileNotFoundError:
        return None
    name = named_in(text)
    if not name:
        raise StorageCorruption(f"{pointer}: damaged: {text.decode('ascii', 'replace')!r}")
    if not (root / name / "CURRENT").is_file():
        raise StorageCorruption(f"{pointer} names {name}, but {root / name} holds no database")
    return name


def write_current(root: Path, name: str) -> None:
    """Make ``name`` the store, atomically and durably."""
    write_whole(root / "current", f"{name} {zlib.crc32(name.encode('ascii')):08x}\n".encode())


def next_name(name: str) -> str:
    return f"db-{int(name[3:]) + 1}"


def is_open(path: Path) -> bool:
    """Whether this process may have that database open: it is closed with its last reader."""
    try:
        held = os.stat(path / "LOCK")
    except OSError:
        return False
    try:
        listed = os.listdir("/proc/self/fd")
    except OSError:  # no file may be opened any more, or a sandbox has no /proc
        return True
    for fd in listed:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.path.samestat(os.fstat(int(fd)), held):
                return True
    return False


def remove(path: Path) -> bool:
    """Remove a database that was replaced, and whether it has gone."""
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.exists(path)


def remove_others(root: Path, keep: str) -> None:
    """Remove what a crash or an install left behind. SyncFailed."""
    try:
        sync_directory(root)  # a process may have been killed between its rename and its sync
    except OSError as e:
        raise SyncFailed(f"{root}: {e}") from e
    for child in root.iterdir():
        if child.name not in (keep, "current"):
            if child.is_dir():
                shutil.rmtree(child, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    child.unlink()
