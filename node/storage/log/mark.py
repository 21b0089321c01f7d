"""The mark: how far the Raft log was synced, kept outside RocksDB, whose recovery silently drops everything
behind a damaged record (decision 3, H10).

One 4 KiB block that never changes its size, so a write of it costs no metadata. It is written after every
sync of the log and synced at most once a second, by a later sync of the log; the node sees to one where none
comes (``is_behind``). A power cut loses two seconds of *detection* at most, not of data.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from node.durable import sync_directory
from node.storage.errors import StorageCorruption, SyncFailed

_MARK = struct.Struct("<8sQQQQ")  # magic, fields of Mark; then a CRC-32
_MAGIC = b"musterLM"
_FILE_BYTES = 4096
_SYNC_INTERVAL_S = 1.0


class Mark(NamedTuple):
    """What is known to have been synced."""

    last_index: int
    last_term: int
    term: int
    vote: int


class MarkFile:
    def __init__(self, path: Path, *, no_fsync: bool) -> None:
        self.path = path
        self._no_fsync = no_fsync
        self._fd = -1
        self._synced_at = 0.0
        self._written = b""  # what the file holds
        self._lacks_sync = False  # the disk may hold that, or what was written before

    def exists(self) -> bool:
        return self.path.exists()

    def create(self) -> None:
        """A mark that claims nothing."""
        temporary = self.path.with_suffix(".new")
        self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.pwrite(self._fd, b"\0" * _FILE_BYTES, 0)
        self.write(Mark(0, 0, 0, 0), force=True)
        os.replace(temporary, self.path)
        sync_directory(self.path.parent)

    def open(self) -> Mark:
        """Read the mark, have it last, and keep the file open for writing: a process that was killed may have
        lowered it and not synced that. Raises StorageCorruption if it is damaged; SyncFailed."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        block = os.pread(self._fd, _FILE_BYTES, 0)
        size = _MARK.size
        if len(block) != _FILE_BYTES or int.from_bytes(block[size : size + 4], "little") != zlib.crc32(
            block[:size]
        ):
            self.close()
            raise StorageCorruption(
                f"{self.path}: damaged, so it is unknown how far the log had been "
                f"synced. This replica must not "
                "vote under its old identity: remove the member from the cluster and "
                "add it anew, with an empty "
                "data directory"
            )
        magic, *fields = _MARK.unpack_from(block)
        if magic != _MAGIC:
            self.close()
            raise StorageCorruption(f"{self.path}: not a mark of this program: {magic!r}")
        if not self._no_fsync:
            try:
                os.fdatasync(self._fd)
            except OSError as e:
                self.close()
                raise SyncFailed(f"{self.path}: {e}") from e
        return Mark(*fields)

    def write(self, mark: Mark, *, force: bool = False) -> None:
        """Write the mark; ``force``: sync it now (needed before the log gets shorter)."""
        data = _MARK.pack(_MAGIC, *mark)
        data += zlib.crc32(data).to_bytes(4, "little")
        try:
            if data != self._written:
                os.pwrite(self._fd, data, 0)
                self._written, self._lacks_sync = data, not self._no_fsync
            if self._lacks_sync and (force or self._is_due()):
                os.fdatasync(self._fd)
                self._synced_at, self._lacks_sync = time.monotonic(), False
        except OSError as e:
            raise SyncFailed(f"{self.path}: {e}") from e

    def is_behind(self) -> bool:
        """Whether what is written is not synced, though it is time: the next write does it."""
        return self._lacks_sync and self._is_due()

    def _is_due(self) -> bool:
        return time.monotonic() - self._synced_at >= _SYNC_INTERVAL_S

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
