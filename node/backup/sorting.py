"""Rows of any number in the order of their keys, in bounded memory: sorted runs on the disk, which are merged
at each reading.
"""

from __future__ import annotations

import ctypes
import errno
import heapq
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from node.storage.directory import free_bytes

Row = tuple[bytes, bytes]
_SIZES = struct.Struct("<II")
_OVERHEAD_BYTES = 180  # of a row in memory besides its bytes
_READ_BYTES = 256 << 10  # of each run at a time
_FREED_BYTES = 8 << 20  # at once
_FREED_EVERY_S = 0.025
_PIECE_BYTES = 256 << 10  # given to the disk at once: a sync of the log waits for two such pieces at most
_BUFFER_BYTES = 64 << 10
_LOT_PARTS, _LOT_BYTES = 3072, 1 << 20  # handed to a file at once
_libc = ctypes.CDLL(None, use_errno=True)
_WAIT, _WRITE = 1 | 4, 2  # SYNC_FILE_RANGE_WAIT_BEFORE and _AFTER, SYNC_FILE_RANGE_WRITE


def shrink(file: BinaryIO) -> None:
    """Free a large file by and by: a sync of the log waits for a file that is freed, 70 ms for 300 MB."""
    size = os.fstat(file.fileno()).st_size
    while size > _FREED_BYTES:
        size -= _FREED_BYTES
        os.ftruncate(file.fileno(), size)
        time.sleep(_FREED_EVERY_S)


class PacedFile:
    """A file whose bytes are handed to the disk as they come, not synced: for each sync the file system would
    write its journal, and the log's sync waits for that."""

    def __init__(self, path: Path, spare_bytes: int = 0) -> None:
        """``spare_bytes``: of the disk, which stay free; 0: it is not looked at."""
        self._file = path.open("xb", buffering=_BUFFER_BYTES)
        self._spare_bytes = spare_bytes
        self._begun = self._before = 0  # where the piece on its way to the disk ends, and where it begins
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """OSError, also where the disk would lack the room to spare."""
        self._file.write(data)
        self.size_bytes += len(data)
        if self.size_bytes - self._begun >= _PIECE_BYTES:
            self._file.flush()
            if self._spare_bytes and free_bytes(self._file.fileno()) < self._spare_bytes:
                raise OSError(f"the disk would have less than {self._spare_bytes} bytes free")
            self._hand_over(self._before, self._begun, _WAIT)
            self._before, self._begun = self._begun, self.size_bytes
            self._hand_over(self._before, self._begun, _WRITE)

    def _hand_over(self, start: int, end: int, flags: int) -> None:
        if end == start:
            return  # a length of zero means all that follows
        range_ = ctypes.c_int64(start), ctypes.c_int64(end - start)
        if _libc.sync_file_range(self._file.fileno(), *range_, flags):
            error = ctypes.get_errno()
            if error not in (errno.ENOSYS, errno.ESPIPE, errno.EPERM):  # without it, it writes when it likes
                raise OSError(error, os.strerror(error), self._file.name)

    def close(self) -> None:
        self._file.close()


class Sorter:
    """Takes rows with different keys, and leaves runs of them in a folder: ``run-0``, ``run-1``, ..."""

    def __init__(self, folder: Path, budget_bytes: int, spare_bytes: int = 0) -> None:
        self._folder = folder
        self._spare_bytes = spare_bytes
        self._budget = self._left = budget_bytes
        self._rows: list[Row] = []
        self._runs: list[Path] = []

    def add(self, rows: list[Row]) -> None:
        """Some more rows, not very many."""
        self._rows += rows
        self._left -= sum([len(key) + len(value) for key, value in rows]) + _OVERHEAD_BYTES * len(rows)
        if self._left <= 0:
            self._spill()

    def runs(self) -> list[Path]:
        """Of all rows. Nothing more is added."""
        if self._rows:
            self._spill()
        return self._runs

    def _spill(self) -> None:
        self._rows.sort()
        path = self._folder / f"run-{len(self._runs)}"
        write_run(path, self._rows, self._spare_bytes)
        self._runs.append(path)
        self._rows = []
        self._left = self._budget


def write_run(path: Path, rows: Iterable[Row], spare_bytes: int = 0) -> int:
    """A file of rows that are in order already; how many they are."""
    pack, count, size = _SIZES.pack, 0, 0
    parts: list[bytes] = []
    with closing(PacedFile(path, spare_bytes)) as file:
        for key, value in rows:
            parts += (pack(len(key), len(value)), key, value)
            count += 1
            size += len(key) + len(value)
            if len(parts) >= _LOT_PARTS or size >= _LOT_BYTES:
                file.write(b"".join(parts))
                parts, size = [], 0
        file.write(b"".join(parts))
    return count


def merged(runs: Sequence[Path]) -> Iterator[Row]:
    """All rows of some runs, in order. Each run takes a quarter of a megabyte, or its largest row."""
    rows = [_read(run) for run in runs]
    return heapq.merge(*rows) if len(rows) > 1 else chain(*rows)


def lengths(rows: Iterable[Row]) -> Iterator[tuple[bytes, Sized]]:
    """The same without values: in place of each is something as long."""
    return ((key, range(len(value))) for key, value in rows)


def _read(path: Path) -> Iterator[Row]:
    unpack, head = _SIZES.unpack_from, _SIZES.size
    buffer, at = b"", 0
    with path.open("rb", buffering=0) as file:
        while True:
            wanted = head
            if len(buffer) - at >= head:
                key_size, value_size = unpack(buffer, at)
                key_at = at + head
                value_at = key_at + key_size
                end = value_at + value_size
                if end <= len(buffer):
                    yield buffer[key_at:value_at], buffer[value_at:end]
                    at = end
                    continue
                wanted = end - at
            more = file.read(max(_READ_BYTES, wanted))
            if not more:
                if at < len(buffer):
                    raise OSError(errno.EIO, "shorter than it was", str(path))
                return
            buffer, at = buffer[at:] + more, 0
