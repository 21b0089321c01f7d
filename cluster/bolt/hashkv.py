"""``hashkv`` of a backup: the hash of its keys' history as an etcd computes it (Maintenance.HashKV).

The CRC-32C of the bucket's name and of every row up to a revision, in the order of revisions. Of compacted
rows only the newest of each key counts, unless it is a deletion, so it makes no difference which are removed
yet. Cost: 2 us a row, and the newest row of every key in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap

import google_crc32c

from cluster.bolt.etcd import FINISHED, KEY, META, SCHEDULED, NoBackup, key_in, read_revision
from cluster.bolt.reader import Database
from cluster.bolt.status import check


class NoSuchRevision(Exception):
    """It is compacted, or to come; the text is etcd's."""


@dataclass(slots=True, frozen=True)
class KeysHash:
    """The hash, and what it is of."""

    hash: int
    revision: int
    compact_revision: int


def hash_of_keys(data: bytes | mmap, revision: int = 0) -> KeysHash:
    """Up to a revision, or to the last one (0). NoSuchRevision; InvalidDatabase and NoBackup as
    ``cluster.bolt.status.status_of``."""
    database = Database(data)
    check(database)
    compacted = max(_stored(database, SCHEDULED), _stored(database, FINISHED))  # -1: never
    current = max(compacted, 1)
    newest: dict[bytes, bytes] = {}
    wanted = revision or 1 << 63
    for row, value in database.rows(KEY):
        main, _, deletion = read_revision(row)
        current = max(current, main)
        if main <= wanted:
            try:
                newest[key_in(value)] = b"" if deletion else row
            except IndexError:
                raise NoBackup(f"revision {main} does not hold a key") from None
    if revision and revision < compacted:
        raise NoSuchRevision("mvcc: required revision has been compacted")
    if revision > current:
        raise NoSuchRevision("mvcc: required revision is a future revision")
    kept = frozenset(newest.values()) - {b""}
    crc = google_crc32c.extend(0, KEY)
    for row, value in database.rows(KEY):
        main, _, deletion = read_revision(row)
        if main > wanted or (main <= compacted and kept and row not in kept):
            continue
        if not (main == compacted and deletion):  # older etcds remove such a row, newer ones do not
            crc = google_crc32c.extend(crc, row + value)
    return KeysHash(crc, revision or current, compacted)


def _stored(database: Database, name: bytes) -> int:
    found = database.get(META, name)
    return -1 if found is None else read_revision(found)[0]
