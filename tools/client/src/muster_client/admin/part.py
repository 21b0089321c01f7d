"""The file that a snapshot is while it is received."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

_TRIES = 20  # at a file that savers before this one leave; some file systems show another one each time
# of a folder: it may not be read, or its file system has no such thing
_NO_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)


def opened(name: str | os.PathLike[str]) -> int:
    """A new file, for writing, of this user alone; one saver's until it is closed. Another saver is refused:
    it would take the file of the first, whose checks are of what it received. OSError."""
    for _ in range(_TRIES):
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
    raise _busy(name)


def placed(name: str | os.PathLike[str], descriptor: int, path: str | os.PathLike[str]) -> None:
    """It has its good name, if it is this saver's still: locks are of files, and some systems have none.
    OSError."""
    if not _has(name, descriptor):
        raise OSError(errno.ESTALE, "it is another file now", os.fspath(name), None, os.fspath(path))
    os.replace(name, path)


def lasting(path: str | os.PathLike[str]) -> None:
    """Its new name outlasts a power cut, where its folder can be synced. OSError."""
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def dropped(name: str | os.PathLike[str], descriptor: int) -> None:
    """It is gone, as far as that is possible. While it is open: later it may be another saver's."""
    with contextlib.suppress(OSError):
        if _has(name, descriptor):
            os.unlink(name)


def _found_or_made(name: str | os.PathLike[str]) -> tuple[int, bool]:
    """True: made."""
    writing = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO waits for a reader
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(name, writing | os.O_CREAT | os.O_EXCL, 0o600), True  # it has hashes of passwords
        with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
            return os.open(name, writing), False


def _lock(descriptor: int, name: str | os.PathLike[str]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(name) from None
    except OSError:
        pass  # some file systems have no locks: better a backup without one than none


def _busy(name: str | os.PathLike[str]) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "another save writes it", os.fspath(name))


def _has(name: str | os.PathLike[str], descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(name), os.fstat(descriptor))
    return False
