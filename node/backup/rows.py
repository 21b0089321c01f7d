"""The rows of a checkpoint as etcd keeps them: what was there at one revision, with the history before it.

A checkpoint may be further on than the revision, and its shard may not have removed yet what a compaction
made superfluous; neither shows in what comes out. Cost: 1.7 us a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, Rdict

from cluster.bolt.etcd import Auth, Lease, Row, revision_key, tombstone_value
from cluster.features.rows import RowsOf
from node.backup.users import auth_in
from node.storage import StorageCorruption
from node.storage.errors import raise_open, raise_read
from node.storage.keys import (
    ALARM_PREFIX,
    FEATURE_PREFIX,
    KEYS_END,
    LEASE_VALUE,
    MAX32,
    MAX64,
    POSITION,
    POSITION_ROW,
    SUFFIX_SIZE,
    Position,
    unescape,
)
from node.storage.options import bounded, state_options

_AT_ONCE = 512
_CACHE_BYTES = 4 << 20


class Checkpoint:
    """A directory with a copy of one shard's state, opened to be read."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        try:
            options = state_options(_CACHE_BYTES, 1 << 20, create=False)
            self._database = Rdict(self._path, options, access_type=AccessType.read_only())
        except Exception as e:
            raise_open(e, self._path)
        row = self._database.get(POSITION_ROW)
        if row is None:
            raise StorageCorruption(f"{self._path}: there is no applied position")
        self.position = Position(*POSITION.unpack(row))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def keys(self, revision: int, compact_revision: int) -> Iterator[list[Row]]:
        """Rows of etcd's bucket ``key``, some at a time, in no order."""
        some: list[Row] = []
        before = b""  # what the row before begins with up to its revision: the same for versions of one key
        settled = False  # what the compaction has left of this key is found
        for row, value in self._rows(b"k", KEYS_END):
            at = len(row) - 13
            if row[:at] != before:
                before = row[:at]
                settled = False
            elif settled:
                continue
            main = MAX64 - int.from_bytes(row[at : at + 8], "big")
            if main > revision:
                continue
            deleted = row[-1] != 0
            if main <= compact_revision:
                settled = True
                if deleted and main != compact_revision:
                    continue
            sub = MAX32 - int.from_bytes(row[at + 8 : at + 12], "big")
            if deleted:
                value = tombstone_value(unescape(row[1:-SUFFIX_SIZE]))
            some.append((revision_key(main, sub, deleted), value))
            if len(some) == _AT_ONCE:
                yield some
                some = []
        yield some

    def leases(self) -> list[Lease]:
        """Every lease, at the checkpoint's own revision."""
        return [Lease(int.from_bytes(row[1:], "big", signed=True), *LEASE_VALUE.unpack(value))
                for row, value in self._rows(b"L", b"M")]

    def alarms(self) -> list[tuple[int, int]]:
        """Member and type of every alarm that is raised."""
        prefix = len(ALARM_PREFIX)
        return [(int.from_bytes(row[prefix + 1 :], "big"), row[prefix])
                for row, _ in self._rows(ALARM_PREFIX, ALARM_PREFIX + b"\xff") if row[prefix] in (1, 2)]

    def auth(self) -> Auth:
        """Users and roles."""
        return auth_in(self._feature(RowsOf.AUTH))

    def v2(self) -> Iterator[Row]:
        """The v2 tree."""
        return self._feature(RowsOf.V2)

    def _feature(self, feature: int) -> Iterator[Row]:
        prefix = FEATURE_PREFIX + bytes((feature,))
        rows = self._rows(prefix, FEATURE_PREFIX + bytes((feature + 1,)))
        return ((row[len(prefix) :], value) for row, value in rows)

    def _rows(self, lower: bytes, upper: bytes) -> Iterator[Row]:
        try:
            options = bounded(upper)  # held: see there
            it = self._database.iter(options)
            it.seek(lower)
            while it.valid():
                yield it.key(), it.value()
                it.next()
            it.status()
        except Exception as e:
            raise_read(e, self._path, f"reading rows from {lower!r}")
