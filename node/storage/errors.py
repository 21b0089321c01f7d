"""What can go wrong with a disk, one class per thing a caller does about it.

======================  ==============================================================================
``StorageCorruption``   what is on the disk cannot be trusted: report it and stop; never retried
``SyncFailed``          a write or sync failed: the process must end (review (b) Disk)
``Scarce``              no file may be opened or memory had: the process ends, another start may find some
``DirectoryLocked``     another process has the directory open
``DiskFull``            there is no room to open it: nothing is damaged, an operator makes room
``LibraryRefused``      this RocksDB does not keep a log as recovery needs it: install another version
``NoRoom``              the disk lacks the room that a defragmentation or a copy needs: the store is as before
``Filled``              a ``NoRoom`` that came after the work had begun: to try again may fill the disk again
``SnapshotRefused``     a snapshot that is damaged, torn or not newer: drop it, the store is unchanged
``Replaced``            a read that fails in a state whose place a snapshot took: the client's business
``Compacted``           a read below the compaction revision: the client's business
``FutureRevision``      a read above the applied revision: the client's business
======================  ==============================================================================
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import NoReturn

from cluster import errors
from cluster.errors import EtcdError
from node.durable import SCARCE


class StorageError(Exception):
    """The base of the errors that stop a node."""

    path = ""  # of a write: the database that it failed in


class StorageCorruption(StorageError):
    """The text says where the damage is."""


class SyncFailed(StorageError):
    pass


class Scarce(StorageError):
    """Each access of a disk may raise it, also where a text names other errors only."""


class DirectoryLocked(StorageError):
    pass


class DiskFull(StorageError):
    def __init__(self, where: str, text: str) -> None:
        super().__init__(
            f"{where}: No space left on device. Nothing is damaged, and nothing that was acknowledged is "
            f"lost: make room and start this host again ({text})"
        )


class LibraryRefused(StorageError):
    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text}. Install a version of rocksdict that muster was tried with (pyproject.toml)"
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether this is for lack of space: an OSError, or RocksDB's form of one."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text


def _is_scarce(error: BaseException) -> bool:
    """Whether RocksDB, or the system, lacked descriptors or memory."""
    return any(os.strerror(code) in str(error) for code in SCARCE)


def unreadable(error: BaseException) -> type[StorageError]:
    """What an error at a read, or at opening, says: damage, but where files or memory lacked."""
    return Scarce if _is_scarce(error) else StorageCorruption


class ApplyFailed(StorageError):
    """What is committed could not be applied."""


class NoRoom(Exception):
    pass


class Filled(NoRoom):
    pass


class SnapshotRefused(Exception):
    pass


class Replaced(EtcdError):
    """Of a read that goes on for very long."""

    def __init__(self) -> None:
        super().__init__(errors.TIMEOUT)


class Compacted(Exception):
    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"revision is below the compaction at {compact_revision}")
        self.compact_revision = compact_revision


class FutureRevision(Exception):
    def __init__(self, revision: int) -> None:
        super().__init__(f"revision is above the applied one, {revision}")
        self.revision = revision


def raise_read(error: Exception, path: str, doing: str) -> NoReturn:
    """Turn RocksDB's error at a read into ours: a block that cannot be read may not be answered as "not
    there"."""
    if isinstance(error, StorageError | Replaced | Compacted | FutureRevision):
        raise error
    if _is_replaced(path):
        raise Replaced from error
    if is_disk_full(error):
        raise DiskFull(path, f"{doing}: {error}") from error
    raise unreadable(error)(f"{path}: {doing}: {error}") from error


def is_damage(error: BaseException) -> bool:
    """Whether RocksDB met a block that fails its checksum, now or before."""
    return str(error).startswith("Corruption")


def raise_write(error: Exception, path: str, doing: str) -> NoReturn:
    """Turn RocksDB's error at a write into ours. From the moment that one of its compactions meets damage it
    refuses all of them, in each life."""
    kind = StorageCorruption if is_damage(error) else Scarce if _is_scarce(error) else SyncFailed
    failed = kind(f"{path}: {doing} failed: {error}")
    failed.path = path
    raise failed from error


def outlived(error: BaseException | None) -> bool:
    """Whether an install has by now replaced the state that a write failed in: the error is nobody's."""
    return isinstance(error, StorageError) and _is_replaced(error.path)


def _is_replaced(path: str) -> bool:
    """Whether it is of a state that no longer counts (``node.storage.directory``), gone or kept for its
    readers. One that counts and is not there is damage, and so it is where the pointer itself is damaged."""
    root, name = os.path.split(path)
    if not name.startswith("db-"):  # a log, or a snapshot that is received
        return False
    try:
        with open(os.path.join(root, "current"), "rb") as pointer:
            return named_in(pointer.read()) not in ("", name)
    except OSError:
        return False


def named_in(pointer: bytes) -> str:
    """The database that the pointer names (``node.storage.directory``); empty: it is damaged."""
    name, _, checksum = pointer.rstrip(b"\n").partition(b" ")
    sound = name.startswith(b"db-") and checksum == b"%08x" % zlib.crc32(name)
    return os.fsdecode(name) if sound else ""


def raise_open(error: Exception, path: str) -> NoReturn:
    """Turn what RocksDB raised while opening ``path`` into ours."""
    text = str(error)
    if "LOCK" in text and ("lock hold by current process" in text or "While lock file" in text):
        raise DirectoryLocked(f"{path} is in use by another process") from error
    if is_disk_full(error):
        raise DiskFull(path, text) from error
    raise unreadable(error)(f"{path}: cannot be opened: {text}") from error
