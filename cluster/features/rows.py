"""Rows of a feature in the log and in the state.

A ROWS item holds the *effect* of one request: which rows of one feature are written or deleted. A replica
that does not know the feature keeps its rows all the same; one from ``MUST_KNOW`` on ends it. The body is::

    feature u8 | version u8 | (name length u32 | value length u32, or DELETED | name | value) ...

A feature's number is frozen. The version is the form of this body: an item of an older form is not sound at
any replica, one of a newer form ends it (``cluster.order.sound``, decisions 54 and 118).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from cluster.effects.newer import NewerRecord

VERSION = 1
_HEAD = struct.Struct("<BB")
_ROW = struct.Struct("<II")
_DELETED = 0xFFFFFFFF

Row = tuple[bytes, bytes | None]  # name, value; None: deleted


class RowsOf(IntEnum):
    """Which feature the rows are of. Numbers are never reused."""

    AUTH = 1
    V2 = 2
    VERSIONS = 3  # what members speak: cluster.features.growth


MUST_KNOW = 128
"""Features from this number on are applied by no replica that does not know them."""

OF_SHARD_0 = frozenset((int(RowsOf.V2),))
"""What no other shard evaluates with: the order log's projections leave it out."""


_KNOWN = frozenset(map(int, RowsOf))


def encode(feature: int, rows: Iterable[Row]) -> bytes:
    """The body of a ROWS item."""
    parts = [_HEAD.pack(feature, VERSION)]
    pack = _ROW.pack
    for name, value in rows:
        if value is None:
            parts += (pack(len(name), _DELETED), name)
        else:
            parts += (pack(len(name), len(value)), name, value)
    return b"".join(parts)


def decode(data: bytes, pos: int, end: int) -> tuple[int, list[Row]]:
    """The feature, and its rows. ValueError if the body is not sound."""
    if not sound(data, pos, end):
        raise ValueError("rows are cut short")
    feature = data[pos]
    pos += _HEAD.size
    rows: list[Row] = []
    append, unpack, size = rows.append, _ROW.unpack_from, _ROW.size
    while pos < end:
        name_len, value_len = unpack(data, pos)
        pos += size
        at = pos + name_len
        if value_len == _DELETED:
            append((data[pos:at], None))
            pos = at
        else:
            end_of_value = at + value_len
            append((data[pos:at], data[at:end_of_value]))
            pos = end_of_value
    return feature, rows


def newer(data: bytes, pos: int, end: int) -> NewerRecord | None:
    """Why only a newer program can apply such a body."""
    if end - pos >= _HEAD.size:
        feature, version = _HEAD.unpack_from(data, pos)
        if version > VERSION:
            return NewerRecord.form(feature, version)
        if feature >= MUST_KNOW and feature not in _KNOWN:
            return NewerRecord.feature(feature)
    return None


def sound(data: bytes, pos: int, end: int) -> bool:
    """Whether such a body can be applied."""
    if end - pos < _HEAD.size or data[pos + 1] != VERSION:
        return False
    if data[pos] >= MUST_KNOW and data[pos] not in _KNOWN:
        return False
    pos += _HEAD.size
    unpack, size = _ROW.unpack_from, _ROW.size
    last = end - size
    while pos <= last:
        name_len, value_len = unpack(data, pos)
        pos += size + name_len
        if value_len != _DELETED:
            pos += value_len
        if not name_len:
            return False
    return pos == end
