"""What ``snapshot status`` says of a backup, as etcdutl works it out: all pages looked at. The hash is the
CRC-32C of every bucket's name, keys and values, in order. Cost: 1 us a row."""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap

import google_crc32c

from cluster.bolt.etcd import KEY, META, STORAGE_VERSION, NoBackup, read_revision
from cluster.bolt.reader import Database

_HASH_AT_ONCE = 256  # keys and values; fewer of a MiB
_HASH_BYTES = 1 << 20


@dataclass(slots=True, frozen=True)
class Status:
    hash: int
    revision: int
    total_keys: int  # rows of all buckets
    total_bytes: int
    version: str  # of the storage; "": 3.5's or older


def status_of(data: bytes | mmap) -> Status:
    """InvalidDatabase; NoBackup: pages are wrong."""
    database = Database(data)
    check(database)
    crc = total = revision = 0
    for bucket in database.buckets():
        parts, size = [bucket], 0
        last = b""
        for key, value in database.rows(bucket):
            parts += key, value
            last = key
            total += 1
            size += len(value)
            if len(parts) > _HASH_AT_ONCE or size > _HASH_BYTES:
                crc = google_crc32c.extend(crc, b"".join(parts))
                parts, size = [], 0
        crc = google_crc32c.extend(crc, b"".join(parts))
        if bucket == KEY and last:
            revision = read_revision(last)[0]
    version = (database.get(META, STORAGE_VERSION) or b"").decode(errors="replace")
    return Status(crc, revision, total, database.size_bytes, version)


def check(database: Database) -> None:
    """NoBackup, in etcdutl's words, unless every page is in its place."""
    if errors := database.check():
        said = "\n".join((f"snapshot file integrity check failed. {len(errors)} errors found.", *errors))
        raise NoBackup(said)
