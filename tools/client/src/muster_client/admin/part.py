"""The file that a snapshot is while it is received."""

from __future__ import annotations

import contextlib
import errno
import os


def opened(name: str | os.PathLike[str]) -> int:
    """A new file, for writing, of this user alone; one saver's until it is closed. Another saver is refused:
    it would take the file of the first, whose checks are of what it received. OSError."""
    while True:
        descriptor, is_new = _found_or_made(name)
        try:
            _lock(descriptor, name)
            if _has(name, descriptor):  # else the saver before this one had it, and is done
                if is_new:
                    return descriptor
                os.unlink(name)  # it is left over: others may read it, or have it open
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _found_or_made(name: str | os.PathLike[str]) -> tuple[int, bool]:
    """True: made."""
    writing = os.O_WRONLY | os.O_NOFOLLOW
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(name, writing | os.O_CREAT | os.O_EXCL, 0o600), True  # it has hashes of passwords
        with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
            return os.open(name, writing), False


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
