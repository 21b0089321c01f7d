"""The rows of an open database: the position, and what a replica knows besides keys."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from rocksdict import AccessType, Rdict

from cluster.effects.newer import NewerRecord
from cluster.effects.records import GROWTH_LEVEL
from cluster.features.auth.permissions import Ranges
from cluster.features.growth import Growth
from cluster.features.rows import RowsOf
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.table import FORM
from node.storage import keys
from node.storage.errors import StorageCorruption, raise_read
from node.storage.keys import LEASE_KEY, LEASE_VALUE, POSITION, POSITION_ROW, Position
from node.storage.opening import open_database
from node.storage.options import bounded, state_options

_ALARM_TYPES = (1, 2)  # etcd's NOSPACE and CORRUPT


def position_of(database: Rdict, path: str) -> Position:
    """The position row; every database has one from its creation on."""
    try:
        row = database.get(POSITION_ROW)
    except Exception as e:
        raise_read(e, path, "reading the applied position")
    if row is None:
        raise StorageCorruption(f"{path}: there is no applied position")
    return Position(*POSITION.unpack(row))


def _after(prefix: bytes) -> bytes:
    """The first row key behind all that begin with ``prefix``."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def _outside(but: Ranges, row: bytes) -> bytes:
    """An attachment's row, or the first one behind it that may be of a key that is not within ``but``."""
    key = but.behind(row[9:])
    return _after(row[:9]) if key is None else row[:9] + key


def open_to_read(path: Path, cache_bytes: int) -> Rdict:
    """The database in a directory, read-only. Raises StorageCorruption, DirectoryLocked, DiskFull."""
    return open_database(path, state_options(cache_bytes, 1 << 20, create=False), AccessType.read_only())


class StateRows:
    """A database of rows (``node.storage.keys``), open for reading."""

    def __init__(self, database: Rdict, path: str) -> None:
        self.show(database, path)

    def show(self, database: Rdict, path: str) -> None:
        """Read this database from now on."""
        self.database = database
        self.path = path
        self.position = position_of(database, path)
        self._bootstrap: tuple[int, int, int] | None = None

    @property
    def revision(self) -> int:
        return self.position.revision

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; 0: never compacted."""
        return self.position.compact_revision

    def rows(
        self, lower: bytes, upper: bytes, wanted: Callable[[bytes], bytes] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Raw rows in ``[lower, upper)``. ``wanted``: from a row on, where the first is that is wanted."""
        path = self.path  # of the database that is read, also behind an install
        try:
            options = bounded(upper)  # held: see there
            it = self.database.iter(options)
            it.seek(lower)
            while it.valid():
                row = it.key()
                if wanted is not None and (at := wanted(row)) > row:
                    it.seek(at)
                    continue
                yield row, it.value()
                it.next()
            it.status()
        except Exception as e:
            raise_read(e, path, f"reading rows from {lower!r}")

    def under(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows that begin with ``prefix``, without it."""
        size = len(prefix)
        return ((row[size:], value) for row, value in self.rows(prefix, _after(prefix)))

    def row(self, key: bytes) -> bytes | None:
        """A row that is one of its kind, of those in ``node.storage.keys``."""
        try:
            return self.database.get(key)
        except Exception as e:
            raise_read(e, self.path, f"reading {key[1:].decode()}")

    def meta(self, name: str) -> bytes | None:
        """A row that an apply wrote as ``meta``."""
        return self.row(b"m" + name.encode())

    def bootstrap(self) -> tuple[int, int, int] | None:
        """Layout version, shard count, placement depth; None before the first record. Never changes after."""
        if self._bootstrap is None and (row := self.row(keys.BOOTSTRAP_ROW)) is not None:
            self._bootstrap = struct.unpack("<III", row)
        return self._bootstrap

    def members(self) -> dict[int, bytes]:
        """Member ID to ``etcdserverpb.Member`` in wire form, as last published."""
        return {int.from_bytes(row, "big"): value for row, value in self.under(keys.MEMBER_PREFIX)}

    def hosts(self) -> list[bytes]:
        """Rows of the table of members, by ID."""
        return [value for _, value in self.under(keys.HOST_PREFIX)]

    def placement(self) -> Table | None:
        """Where keys live; None before the first record. NewerRecord."""
        row, agreed = self.row(keys.PLACEMENT_ROW), self.bootstrap()
        if row is not None:
            if row[0] > FORM:
                raise NewerRecord.table(row[0])
            return Table.decode(row)
        return None if agreed is None else Table.initial(Base(*agreed[1:]))

    def growth(self) -> Growth:
        """The level of the data, and what members have said that they speak."""
        row = self.row(keys.GROWTH_ROW)
        return Growth(GROWTH_LEVEL.unpack(row)[0] if row else 0, self.feature_rows(RowsOf.VERSIONS))

    def incarnations(self) -> dict[int, int]:
        """Member ID to its incarnation (H10)."""
        return {int(row, 16): int.from_bytes(value, "big")
                for row, value in self.under(keys.INCARNATION_PREFIX)}

    def alarms(self) -> list[tuple[int, int]]:
        """``(member ID, etcd's type of alarm)`` of every raised alarm. Old logs may hold types without a
        name: their rows stay and mean nothing."""
        return [(int.from_bytes(row[1:], "big"), row[0])
                for row, _ in self.under(keys.ALARM_PREFIX) if row[0] in _ALARM_TYPES]

    def feature_rows(self, feature: int) -> list[tuple[bytes, bytes]]:
        """Name and value of every row of a feature (``cluster.features.rows``)."""
        return list(self.under(keys.feature_row(feature, b"")))

    def lease(self, lease: int) -> tuple[int, int] | None:
        """``(ttl_s, remaining_ttl_s)``; remaining 0: no checkpoint. None: no such lease."""
        try:
            row = self.database.get(LEASE_KEY.pack(b"L", lease))
        except Exception as e:
            raise_read(e, self.path, f"reading lease {lease}")
        return None if row is None else LEASE_VALUE.unpack(row)

    def lease_exists(self, lease: int) -> bool:
        """Whether the lease is granted and not revoked."""
        return self.lease(lease) is not None

    def leases(self) -> Iterator[tuple[int, int, int]]:
        """``(lease, ttl_s, remaining_ttl_s)`` of every lease."""
        for row, value in self.rows(b"L", b"M"):
            ttl, remaining = LEASE_VALUE.unpack(value)
            yield LEASE_KEY.unpack(row)[1], ttl, remaining

    def attachment_rows(self, lease: int, but: Ranges | None = None) -> Iterator[bytes]:
        """Rows of the keys that were ever attached to a lease, stale ones too, in order; ``row[9:]``: the
        key. Of the moment of the first row, not of the call. ``but``: none of keys within."""
        prefix = LEASE_KEY.pack(b"l", lease)
        outside = None if but is None else partial(_outside, but)
        return (row for row, _ in self.rows(prefix, _after(prefix), outside))

    def all_attachments(self, but: Ranges, step: int) -> Iterator[tuple[int, bytes]]:
        """The same of every lease, as ``(lease, key)``, and one of ``step`` that are passed over."""
        looked = 0

        def outside(row: bytes) -> bytes:
            nonlocal looked
            looked += 1
            return row if looked % step == 0 else _outside(but, row)

        return ((LEASE_KEY.unpack_from(row)[1], row[9:]) for row, _ in self.rows(b"l", b"m", outside))

    def hangs_many(self, lease: int, many: int) -> bool:
        """Whether more than ``many`` keys are attached to a lease, or were once."""
        return sum(1 for _ in islice(self.attachment_rows(lease), many + 1)) > many
