"""The rows of ``state``: one ordered space, told apart by the first byte.

======================================================  ================================================
row key                                                 value
======================================================  ================================================
``k`` esc(key) 00 00 ~revision(8) ~sub(4) type(1)       KeyValue in wire form; type 1: a tombstone
``r`` revision(8) sub(4)                                the run of changes from there on: ENTRY + key each
``L`` lease(8)                                          ttl_s, remaining_ttl_s (0: none checkpointed)
``l`` lease(8) key                                      empty; true only while the key's lease is that one
``m`` name                                              what the replica knows besides keys; ``mposition``
======================================================  ================================================

All numbers are big-endian, so that rows sort by them; ``~`` is the complement, so that the newest version of
a key comes first: the latest version is one seek away, and a range is one scan. ``esc`` writes a zero byte
as 00 ff, which keeps the order of keys and makes 00 00 the end of every key.

An ``r`` row holds the changes of *one order record* (cut after `Grain.run_entries` or RUN_BYTES), so the rows
are the same on every replica; one row for a hundred puts instead of a hundred saves 0.7 of 1.7 us a put.
``docs/decisions/0001-rows-by-key.md`` argues the layout.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from cluster.effects.records import key_offset
from cluster.evaluate.view import Current
from cluster.wire.protobuf import read_varint

if TYPE_CHECKING:
    from rocksdict import RdictIter

MAX64 = 0xFFFFFFFFFFFFFFFF
MAX32 = 0xFFFFFFFF

SUFFIX = struct.Struct(">HQIB")  # 0, ~revision, ~sub, type
SUFFIX_SIZE = SUFFIX.size  # 15
INVERTED = struct.Struct(">HQ")  # 0, ~revision: a seek to the newest version at or below a revision
RUN = struct.Struct(">cQI")  # b"r", revision, sub
ENTRY = struct.Struct(">IIBI")  # revision - the run's first, sub, type, key length; then the key
RUN_BYTES = 65_536
LEASE_KEY = struct.Struct(">cq")  # b"L" or b"l", lease
LEASE_VALUE = struct.Struct(">qq")  # ttl_s, remaining_ttl_s
POSITION = struct.Struct(">QQQQQ")

POSITION_ROW = b"mposition"
BOOTSTRAP_ROW = b"mbootstrap"
MEMBER_PREFIX = b"mmember/"
ALARM_PREFIX = b"malarm/"  # then its type and the member ID (8 bytes)
GROWTH_ROW = b"mgrowth"  # the level of the data: cluster.features.growth
FOLD = "fold"  # a meta row, where shard 0 orders: cluster.order.log.Fold at the position
FOLD_ROW = b"m" + FOLD.encode()
PLACEMENT_ROW = b"mplacement"  # once it has changed: cluster.placement.table
DOWNGRADE_ROW = b"mdowngrade"  # a meta row: cluster.features.downgrade
FEATURE_PREFIX = b"mfeature/"  # then the feature (1 byte) and the row's name
HOST_PREFIX = b"mhost/"  # then the member ID (8 bytes)
INCARNATION_PREFIX = b"mincarnation/"  # then the member ID in hexadecimal
LOCAL_PREFIX = b"mlocal/"  # differs between replicas: not in the state hash
COMPACTION_ROW = LOCAL_PREFIX + b"compaction"
# revision up to which slices of an apply have written: rows above the position are there
ABOVE_ROW = LOCAL_PREFIX + b"above"
STAGING_ROW = LOCAL_PREFIX + b"staging"  # of a move's copy: node.storage.state.moving.staging
LEFT_PREFIX = LOCAL_PREFIX + b"left/"  # of a move away from here, then its number (8 bytes)
KEYS_END = b"l"  # the first possible row key after all ``k`` rows
RUNS_END = b"s"

PUT = 0
DELETE = 1


class Position(NamedTuple):
    """How far a replica has applied. One row, in the same batch as the data it describes (I6)."""

    order_index: int
    shard_index: int
    term: int
    revision: int
    compact_revision: int  # 0: never compacted


def feature_row(feature: int, name: bytes) -> bytes:
    return FEATURE_PREFIX + bytes((feature,)) + name


def left_row(number: int) -> bytes:
    return LEFT_PREFIX + number.to_bytes(8, "big")


def escape(key: bytes) -> bytes:
    """A key in the form of a ``k`` row."""
    return key.replace(b"\0", b"\0\xff") if b"\0" in key else key


def unescape(escaped: bytes) -> bytes:
    return escaped.replace(b"\0\xff", b"\0") if b"\0" in escaped else escaped


def version_row(key: bytes, revision: int, sub: int, kind: int) -> bytes:
    return b"k" + escape(key) + SUFFIX.pack(0, MAX64 - revision, MAX32 - sub, kind)


def range_rows(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Bounds ``[lower, upper)`` of the rows of a key range in etcd's convention: ``end`` empty = the one key
    ``start``, a zero byte = to the end. ``lower >= upper``: an empty range."""
    lower = b"k" + escape(start)
    if not end:
        return lower + b"\0\0", lower + b"\0\x01"
    return lower, KEYS_END if end == b"\0" else b"k" + escape(end)


def parse_current(kv: bytes, key_len: int) -> Current:
    """Create, mod, version and lease of a KeyValue as ``cluster.effects.records`` writes it. One that cannot
    be read (decision 54) names no lease, so that compactions, hashes and lease checks go on."""
    try:
        return _parse_current(kv, key_len)
    except IndexError:
        return Current(0, 0, 0, 0)


def _parse_current(kv: bytes, key_len: int) -> Current:
    # key [0x10 create] [0x18 mod] [0x20 version] [0x2a value] [0x30 lease]: all but the last two always there
    create, pos = read_varint(kv, key_offset(key_len) + key_len + 1)
    mod, pos = read_varint(kv, pos + 1)
    version, pos = read_varint(kv, pos + 1)
    lease = 0
    if pos < len(kv):
        if kv[pos] == 0x2A:
            size, pos = read_varint(kv, pos + 1)
            pos += size
        if pos < len(kv):
            lease = read_varint(kv, pos + 1)[0]
            if lease >> 63:
                lease = lease - (1 << 64) if lease < 1 << 64 else 0
    return Current(create, mod, version, lease)


def lease_named(versions: RdictIter, key: bytes, revision: int) -> int:
    """The lease that a key names at a revision; 0: it is not there, or names none. Raises RocksDB's
    errors."""
    prefix = b"k" + escape(key) + b"\0\0"
    versions.seek(prefix + (MAX64 - revision).to_bytes(8, "big"))
    if not versions.valid():
        versions.status()
        return 0
    row = versions.key()
    return 0 if row[-1] or not row.startswith(prefix) else parse_current(versions.value(), len(key)).lease


def run_entries(row_key: bytes, run: bytes) -> list[tuple[int, int, int, bytes]]:
    """``(revision, sub, type, key)`` of every change in an ``r`` row."""
    first = int.from_bytes(row_key[1:9], "big")
    out = []
    pos, end = 0, len(run)
    unpack = ENTRY.unpack_from
    while pos < end:
        delta, sub, kind, key_len = unpack(run, pos)
        pos += 13
        out.append((first + delta, sub, kind, run[pos : pos + key_len]))
        pos += key_len
    return out
