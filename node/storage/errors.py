"""What can go wrong with a disk, one class per thing a caller does about it.

======================  ==============================================================================
``StorageCorruption``   what is on the disk cannot be trusted: report it and stop; never retried
``SyncFailed``          a write or sync failed: the process must end (review (b) Disk)
``DirectoryLocked``     another process has the directory open
``DiskFull``            there is no room to open it: nothing is damaged, an operator makes room
``LibraryRefused``      this RocksDB does not keep a log as recovery needs it: install another version
``SnapshotRefused``     a snapshot that is damaged, torn or not newer: drop it, the store is unchanged
``Compacted``           a read below the compaction revision: the client's business
``FutureRevision``      a read above the applied revision: the client's business
======================  ==============================================================================
"""

from __future__ import annotations

import errno
from typing import NoReturn


class StorageError(Exception):
    """The disk under this replica failed; the base of the errors that stop a node."""


class StorageCorruption(StorageError):
    """What is on the disk is damaged, missing or older than what was once synced. The text says where."""


class SyncFailed(StorageError):
    """A write or a sync failed. What the disk holds now is unknown: end the process."""


class DirectoryLocked(StorageError):
    """The directory is open in another process (or twice in this one)."""


class DiskFull(StorageError):
    """The disk, or this user's share of it, is full. What is on it is as sound as before."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__(
            f"{where}: No space left on device. Nothing is damaged, and nothing that was acknowledged is "
            f"lost: make room and start this host again ({text})"
        )


class LibraryRefused(StorageError):
    """The version of rocksdict that is installed does not do what the log rests on. Nothing is damaged."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text}. Install a version of rocksdict that muster was tried with (pyproject.toml)"
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether this is for want of space: an OSError, or what RocksDB made of one."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text


class ApplyFailed(StorageError):
    """What is committed could not be applied: the replica must not go on without it."""


class SnapshotRefused(Exception):
    """A snapshot that cannot be installed; the store is as it was."""


class Compacted(Exception):
    """The revision asked for was compacted."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"revision is below the compaction at {compact_revision}")
        self.compact_revision = compact_revision


class FutureRevision(Exception):
    """The revision asked for is not applied here yet."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revision is above the applied one, {revision}")
        self.revision = revision


def raise_read(error: Exception, path: str, doing: str) -> NoReturn:
    """Turn what RocksDB raised at a read into ours. Every failed read counts as corruption: a block that
    cannot be read is no better than one with a wrong checksum, and neither may be answered as "not there"."""
    if isinstance(error, StorageError | Compacted | FutureRevision):
        raise error
    if is_disk_full(error):
        raise DiskFull(path, f"{doing}: {error}") from error
    raise StorageCorruption(f"{path}: {doing}: {error}") from error


def raise_open(error: Exception, path: str) -> NoReturn:
    """Turn what RocksDB raised while opening ``path`` into ours."""
    text = str(error)
    if "LOCK" in text and ("lock hold by current process" in text or "While lock file" in text):
        raise DirectoryLocked(f"{path} is in use by another process") from error
    if is_disk_full(error):
        raise DiskFull(path, text) from error
    raise StorageCorruption(f"{path}: cannot be opened: {text}") from error
