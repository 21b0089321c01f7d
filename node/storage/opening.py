"""Open a RocksDB, and first look at what would hang it."""

from __future__ import annotations

import struct
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from node.storage.errors import StorageCorruption, raise_open

# The form of RocksDB's manifest is that of its logs: blocks, in each records of a header and their bytes
_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")  # checksum, length, type
_LAST_TYPE = 4  # whole, first, middle, last; higher types stand in files that are recycled
_READ_WRITE = AccessType.read_write()


def open_database(path: Path, options: Options, access: AccessType = _READ_WRITE) -> Rdict:
    """The database in a directory. Raises StorageCorruption, DirectoryLocked, DiskFull."""
    check_manifest(path)
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
