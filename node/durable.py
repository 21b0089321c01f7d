"""Files and names that outlast a crash."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

# open files or memory: any program of the machine may have used them up, for a moment
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def write_whole(path: Path, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a file so that a crash leaves the old or the new one, and the new one lasts. ``owner``: as of
    :func:`write_new`."""
    aside = path.with_name(path.name + ".tmp")
    aside.unlink(missing_ok=True)  # one that is left may be readable by others
    write_new(aside, data, mode, owner)
    os.replace(aside, path)
    sync_directory(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a file that is not there yet, and sync what it holds: where that fails, there is none. ``owner``:
    a user and a group that get it where this process may give it. FileExistsError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            if owner is not None:
                with contextlib.suppress(OSError):
                    os.fchown(fd, *owner)
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def make_folder(path: Path, *, may_exist: bool = True) -> None:
    """Make a folder at this absolute path, and those above it, so that all their names outlast a power
    cut."""
    made = [path, *(parent for parent in path.parents if not parent.exists())]
    path.mkdir(mode=0o700, parents=True, exist_ok=may_exist)
    for one in made:
        sync_directory(one.parent)


def sync_directory(path: Path) -> None:
    """Make renames, new names and removals in a directory last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
