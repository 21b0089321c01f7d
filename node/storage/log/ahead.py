"""The write-ahead log's newest file is kept longer than its content, so that a sync changes no file's size
(decision 3).

The filling reads as the record of another file, at whatever byte a reader begins: kind 5, with a number that
no file will ever have. There the log ends for RocksDB. (Behind zeros it would look on, and could find entries
whose predecessors were lost in a power cut.) The filling is only ever appended (``O_APPEND``), and RocksDB
writes at or before the end of its file, so nothing written can be overwritten.

387 bytes, synced, ext4: median 226 us growing, 116 filled, 100 recycled.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILL_BYTES = 256 << 10  # at a time: 0.3 ms
FIRST_BYTES = 64 << 10  # a log with less in it is not worth it
FILLING = b"\x05"
# What one write brings lies in the page cache as one folio, up to 512 KB in newer kernels; each put would
# dirty a whole one
_PIECE_BYTES = 4096
_RECORD_BYTES = 32  # at least what RocksDB adds to a write


class FilledAhead:
    """Of the log whose files are in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fill_bytes = FILL_BYTES
        self._piece = FILLING * min(FILL_BYTES, _PIECE_BYTES)
        self._name = ""
        self._fd = -1
        self._in_file = 0  # written to this file, never less than is true
        self._since = 0  # written since it was looked at
        self._look_at = FIRST_BYTES
        self.filled_bytes = 0

    def wrote(self, size: int) -> None:
        """``size`` bytes were written. Call it for every write, in the thread that writes."""
        self._since += size + _RECORD_BYTES + (size >> 10)
        if self._since >= self._look_at:
            self._look()

    def _look(self) -> None:
        written, self._since, self._look_at = self._since, 0, self._fill_bytes // 2
        with contextlib.suppress(OSError, ValueError):  # what does not work is as it would be without
            newest = max((name for name in os.listdir(self._directory) if name.endswith(".log")), key=_number)
            if newest != self._name:
                self.close()
                self._fd = os.open(self._directory / newest, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                self._name, self._in_file = newest, 0
            self._in_file += written
            if os.fstat(self._fd).st_size - self._in_file < self._fill_bytes:
                self._fill()

    def _fill(self) -> None:
        left = self._fill_bytes
        while left > 0:
            size = os.write(self._fd, self._piece)
            self.filled_bytes += size
            left -= size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._name = -1, ""


def _number(name: str) -> int:
    return int(name.removesuffix(".log"))
