"""Open a RocksDB, and first look at what would hang it."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from node.storage.errors import DirectoryLocked, StorageCorruption, raise_open

# The form of RocksDB's manifest is that of its logs: blocks, in each records of a header and their bytes
_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")  # checksum, length, type
_LAST_TYPE = 4  # whole, first, middle, last; higher types stand in files that are recycled
ENDING_S = 5.0  # how long nodes of a host that was killed may take to end
_LOOK_S = 0.05
_READ_WRITE = AccessType.read_write()


def open_database(path: Path, options: Options, access: AccessType = _READ_WRITE) -> Rdict:
    """The database in a directory. Nodes of a host that was just killed have it open until they have ended.
    Raises StorageCorruption, DirectoryLocked, DiskFull."""
    check_manifest(path)
    until = time.monotonic() + ENDING_S
    while True:
        try:
            return _open(path, options, access)
        except DirectoryLocked:
            if time.monotonic() >= until:
                raise
        time.sleep(_LOOK_S)


def _open(path: Path, options: Options, access: AccessType) -> Rdict:
    try:
        return Rdict(str(path), options, access_type=access)
    except Exception as e:
        raise_open(e, str(path))


def check_manifest(path: Path) -> None:
    """Refuse a manifest with a record of a recycled file: RocksDB 9.8 reads it again and again without end.

    RocksDB itself finds all other damage, by its checksums. Raises StorageCorruption.
    """
    try:
        manifest = path / (path / "CURRENT").read_text("ascii", errors="replace").strip()
        data = manifest.read_bytes()
    except (OSError, ValueError):
        return  # there is none yet, or RocksDB says what is wrong with it
    at = 0
    while at + _HEADER.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        _, length, kind = _HEADER.unpack_from(data, at)
        if kind > _LAST_TYPE:
            raise StorageCorruption(f"{manifest}: damaged: a record of type {kind} at byte {at}")
        at += _HEADER.size + length
