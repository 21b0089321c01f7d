"""The note: how far the Raft log is committed, kept outside RocksDB (I25, decision 104).

The hard state's commit rides with the entry after it. Without the note a replica that starts without a
majority would show less than it had shown before. A note is the index and term of a committed entry, stored
in a mapped page (0.7 us, no system call) before that entry is applied. A killed process loses nothing of it;
it is never synced, so a power cut may leave an older note or none. It counts only where the log has that very
entry (``cluster.raft.state``).

Two slots are written in turn: a process that dies within a store leaves the note before it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from node.storage.errors import SyncFailed

_NOTE = struct.Struct("<QQ")  # index, term; then a CRC-32, which a page of zeros does not have
_SLOT_BYTES = 512  # slots lie in different sectors
_SIZE = _NOTE.size + 4
_FILE_BYTES = 4096


class CommitNote:
    """The note's file; made with the first note."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._next = 0  # where the next note goes: not over the latest

    def read(self) -> tuple[int, int]:
        """Index and term of the last note; zeros if there is none."""
        latest = (0, 0)
        with suppress(OSError):
            block = self.path.read_bytes()
            for at in (0, _SLOT_BYTES):
                note, check = block[at : at + _NOTE.size], block[at + _NOTE.size : at + _SIZE]
                if len(check) == 4 and zlib.crc32(note) == int.from_bytes(check, "little"):
                    index, term = _NOTE.unpack(note)
                    if index > latest[0]:
                        latest, self._next = (index, term), at ^ _SLOT_BYTES
        return latest

    def write(self, index: int, term: int) -> None:
        """Note that this entry is committed. Raises SyncFailed."""
        note, at = _NOTE.pack(index, term), self._next
        page = self._map or self._opened()
        page[at : at + _SIZE] = note + zlib.crc32(note).to_bytes(4, "little")
        self._next = at ^ _SLOT_BYTES

    def _opened(self) -> mmap.mmap:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(fd).st_size
                if size < _FILE_BYTES:  # written, not left as a hole: a store must find its block
                    os.pwrite(fd, bytes(_FILE_BYTES - size), size)
                self._map = mmap.mmap(fd, _FILE_BYTES)
            finally:
                os.close(fd)
        except OSError as e:
            raise SyncFailed(f"{self.path}: {e}") from e
        return self._map

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
