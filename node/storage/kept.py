"""Files of what node 0 keeps of the order for shards without a majority (``node.upkeep.space.keeping``).

A file is a piece of the order for one shard (``cluster.order.passing``). It is written whole under another
name, synced, named ``kept/SHARD-FIRST-LAST``, and never written again: a longer piece that begins alike takes
its place, and a start drops what lies within another piece. A start syncs the folder before a file counts: a
crash may have come behind its rename. Each reader checks its CRC-32.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from cluster.order.passing import KeptRecord, Piece
from node.durable import sync_directory
from node.storage.errors import SyncFailed, unreadable

FOLDER = "kept"  # in the directory of node 0
_HEAD = struct.Struct("<8sI")  # magic, CRC-32 of what follows
_PIECE = struct.Struct("<HQQII")  # shard, first and last record, bytes of the fold, records
_RECORD = struct.Struct("<QQQII")  # first, index, term, bytes in the log, bytes
_MAGIC = b"muster-k"
_T = TypeVar("_T")
_NAME = re.compile(r"(\d+)-([0-9a-f]{16})-([0-9a-f]{16})")


class Span(NamedTuple):
    """What one file holds."""

    shard: int
    first: int
    last: int
    size: int
    fold: bytes  # behind the last record; empty: not known


def encode(piece: Piece) -> bytes:
    out = [_PIECE.pack(piece.shard, piece.first, piece.last, len(piece.fold), len(piece.records)), piece.fold]
    for record in piece.records:
        out += (_RECORD.pack(*record[:4], len(record.items)), record.items)
    body = b"".join(out)
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def decode(data: bytes) -> Piece:
    """What :func:`encode` made. Raises ValueError if it is damaged."""
    shard, first, last, fold, count = _head(data)
    at = _HEAD.size + _PIECE.size + len(fold)
    records = []
    for _ in range(count):
        since, index, term, in_log, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        records.append(KeptRecord(since, index, term, in_log, data[at : at + size]))
        at += size
    return Piece(shard, first, last, fold, tuple(records))


def _head(data: bytes) -> tuple[int, int, int, bytes, int]:
    """Shard, first and last record, fold, and the number of records that follow. Raises ValueError if
    damaged."""
    if len(data) < _HEAD.size + _PIECE.size:
        raise ValueError("cut short")
    magic, check = _HEAD.unpack_from(data)
    if magic != _MAGIC or zlib.crc32(memoryview(data)[_HEAD.size :]) != check:
        raise ValueError("its checksum is wrong")
    shard, first, last, fold_bytes, count = _PIECE.unpack_from(data, _HEAD.size)
    at = _HEAD.size + _PIECE.size
    return shard, first, last, data[at : at + fold_bytes], count


def pieces_of(folder: Path) -> Callable[[int], list[Piece]]:
    """What a host that does not run keeps for a shard, read when it is asked for. Raises StorageCorruption,
    SyncFailed."""
    files = KeptFiles(folder)
    found = functools.cache(files.found)
    return lambda shard: [files.read(span) for span in found(shard)]


class KeptFiles:
    """The files of one node 0."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._named = False  # the folder's own name is durable

    def found(self, shard: int | None = None) -> list[Span]:
        """What is there, of one shard or all, in order, and durable; drops what a crash has left. Raises
        StorageCorruption, SyncFailed."""
        if not self._folder.is_dir():
            return []
        spans: list[Span] = []
        for path in sorted(self._folder.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is None:
                path.unlink()  # it was not whole yet
            elif shard in (None, int(name[1])):
                spans.append(_read(path, _span))
        kept: list[Span] = []
        for span in sorted(spans, key=lambda s: (s.shard, s.first, -s.last)):
            if kept and kept[-1].shard == span.shard and span.last <= kept[-1].last:
                self._path(span).unlink()
            else:
                kept.append(span)
        try:
            self._sync_names()
        except OSError as e:
            raise SyncFailed(f"{self._folder}: {e}") from e
        return kept

    def read(self, span: Span) -> Piece:
        """Raises StorageCorruption."""
        return _read(self._path(span), decode)

    def write(self, piece: Piece) -> Span:
        """Make it durable. For a helper thread. Raises OSError."""
        data = encode(piece)
        span = Span(piece.shard, piece.first, piece.last, len(data), piece.fold)
        self._folder.mkdir(exist_ok=True)
        path, aside = self._path(span), self._folder / "new"
        try:
            with open(aside, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            self._sync_names()
        except OSError:
            for left in (aside, path):
                with suppress(OSError):
                    left.unlink()
            raise
        return span

    def remove(self, spans: list[Span]) -> None:
        """For a helper thread. Raises OSError."""
        for span in spans:
            self._path(span).unlink(missing_ok=True)

    def _path(self, span: Span) -> Path:
        return self._folder / f"{span.shard}-{span.first:016x}-{span.last:016x}"

    def _sync_names(self) -> None:
        sync_directory(self._folder)
        if not self._named:
            sync_directory(self._folder.parent)
            self._named = True


def _span(data: bytes) -> Span:
    shard, first, last, fold, _ = _head(data)
    return Span(shard, first, last, len(data), fold)


def _read(path: Path, made: Callable[[bytes], _T]) -> _T:
    try:
        return made(path.read_bytes())
    except (OSError, ValueError, struct.error) as e:
        raise unreadable(e)(
            f"{path}, what is kept of the order for a shard without a majority, cannot be read: {e}"
        ) from e
