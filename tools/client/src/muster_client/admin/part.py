"""The file that a snapshot is while it is received."""

from __future__ import annotations

import contextlib
import errno
import os


def opened(name: str | os.PathLike[str]) -> int:
    """For writing, empty, and one saver's until it is closed. Another saver is refused: it would empty the
    file of the first, whose checks are of what it received. OSError."""
    while True:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)  # it has hashes of passwords
        try:
            _lock(descriptor, name)
            if _has(name, descriptor):
                if os.fstat(descriptor).st_size:
                    os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the saver before this one had it, and is done


def _lock(descriptor: int, name: str | os.PathLike[str]) -> None:
    import fcntl  # not of every system; the rest of the library needs none

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another save writes it", os.fspath(name)) from None
    except OSError:
        pass  # some file systems have no locks: better a backup without one than none


def _has(name: str | os.PathLike[str], descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(name), os.fstat(descriptor))
    return False
