"""What a log entry says: a record is a sequence of items in the order in which they were evaluated.

An item is the *effect* of a request: applying it needs no decision. An effect names its revision only as
"mine", which is fixed when the record gets its place in the order (at once in shard 0, by a cut elsewhere).
Shard 0's plain puts name theirs: PUTS.

A put carries its KeyValue in wire form, cut where ``mod_revision`` goes, so that applying it is two slices
and a join::

    head = key [create_revision]        tail = version value [lease]
    KeyValue = head [create = mine] mod tail

Items are ``kind u8 | body length u32 | body``, little-endian. Numbers are never reused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple

from cluster.wire.protobuf import varint

ITEM = struct.Struct("<BI")
PUT_HEAD = struct.Struct("<BIIIq")  # kind, body length, key length, head length, lease
PUT_BODY = struct.Struct("<IIq")  # PUT_HEAD without ITEM: what its body begins with
PUT_FIXED = PUT_BODY.size


class Item(IntEnum):
    """Kinds of item. R: takes a revision if it changes something."""

    PUT = 1  # R: of an existing key; head holds its create_revision
    PUT_NEW = 2  # R: of a new key; create_revision is the effect's own revision
    DELETE = 3  # R: body = key
    TXN = 4  # R: several of the above, one revision, sub-revisions in order
    LEASE_GRANT = 5  # id i64, ttl_s i64
    LEASE_REVOKE = 6  # R: id i64, then DELETE items for the keys that hung on it
    LEASE_CHECKPOINT = 7  # id i64, remaining_ttl_s i64 (0 clears)
    COMPACT = 8  # revision i64
    BOOTSTRAP = 9  # the first record: layout version u32, shard count u32, placement depth u32
    PUBLISH = 10  # a host's attributes: etcdserverpb.Member in wire form
    CUT = 11  # the next three: see cluster.order.log
    MULTI = 12
    SKIP = 13  # never logged: see cluster.order.log
    # R: of a key that exists when it is applied and did not when it was logged: create_revision is that of
    # the version before it (shards other than 0: a pending creation's revision is not known yet)
    PUT_REF = 14
    INCARNATION = 15  # member id u64, incarnation u64: the data directory that this member is for ever (H10)
    DELETE_RANGE = 16  # R: every live key of a span: RANGE_HEAD, key, end; expanded when it is applied (D8)
    TXN_LONG = 17  # R: as TXN, DELETE_RANGE items among them
    ALARM = 18  # ALARM_BODY: a member's alarm is raised or disarmed
    # R: many puts, each at a revision of its own, with KeyValues as they will be stored: see puts()
    PUTS = 19
    PUTS_LATER = 20  # R: the same of a shard other than 0: see cluster.effects.later_puts
    ROWS = 21  # rows of a feature that are written or deleted: see cluster.features.rows
    DOWNGRADE = 24  # target version of a downgrade, or nothing: cluster.features.downgrade
    HOST = 28  # a row of the table of members: see cluster.members.table
    PASSED = 29  # never logged: see cluster.order.log
    GROWTH = 30  # level u16, member id u64 each: what may follow (cluster.features.growth)
    # how keys are placed from here on: see cluster.placement
    SHARD = 31
    MOVE = 32
    MOVED = 33


#: Stands for the revision of an effect that is logged and not in order yet (shards other than 0); every real
#: revision is smaller, which decides nearly every compare on it (review (d), D6).
PENDING_REVISION = 1 << 62

LEASE = struct.Struct("<qq")
LEASE_ID = struct.Struct("<q")
REVISION = struct.Struct("<q")
BOOTSTRAP = struct.Struct("<III")
INCARNATION = struct.Struct("<QQ")
GROWTH_LEVEL = struct.Struct("<H")
ALARM_BODY = struct.Struct("<BBQ")  # raised (1) or disarmed (0), etcd's type of alarm, member
RANGE_HEAD = struct.Struct("<II")  # live keys in the span at this place, length of its first key
PUTS_HEAD = struct.Struct("<IQ")  # how many, revision of the first (0: not known yet)
_NEW = 0x80  # beside a key's length: it is new


def key_offset(key_len: int) -> int:
    """Where the key begins in a put's head: after the field tag and its length varint."""
    return 2 if key_len < 0x80 else 3 if key_len < 0x4000 else 4 if key_len < 0x200000 else 5


def put(key: bytes, create_revision: int, version: int, value: bytes, lease: int) -> bytes:
    """A put's item. ``create_revision`` 0: the key is new, the effect's revision is its creation; pending:
    the key's creation is logged and not in order yet."""
    key_len = len(key)
    head = b"".join((b"\x0a", varint(key_len), key))
    kind = 2
    if create_revision >= PENDING_REVISION:
        kind = 14
    elif create_revision:
        kind = 1
        head += b"\x10" + varint(create_revision)
    tail = b"\x20" + varint(version)
    if value:
        tail += b"\x2a" + varint(len(value)) + value
    if lease:
        tail += b"\x30" + varint(lease)
    head_len = len(head)
    return PUT_HEAD.pack(kind, PUT_FIXED + head_len + len(tail), key_len, head_len, lease) + head + tail


class Puts(NamedTuple):
    """A PUTS item, read."""

    revision: int  # of the first; each takes the next one
    keys: list[bytes]
    kvs: list[bytes]
    new: list[bytes]  # those of the keys that are new


def puts(revision: int, keys: Sequence[bytes], kvs: Sequence[bytes], new: Sequence[bool]) -> bytes:
    """The item of puts at ``revision`` and those after it: keys of 1 to 127 bytes, no leases. Shard 0's
    leader knows the revisions (C4), so KeyValues are logged whole::

        PUTS_HEAD | key length and whether it is new, u8 each | KeyValue lengths, u32 each | KeyValues

    Reading it takes half of the time of as many PUT items (decision 36).
    """
    count = len(keys)
    heads = bytes([len(key) | _NEW if is_new else len(key) for key, is_new in zip(keys, new, strict=True)])
    sizes = [*map(len, kvs)]
    length = PUTS_HEAD.size + 5 * count + sum(sizes)
    return b"".join((ITEM.pack(Item.PUTS, length), PUTS_HEAD.pack(count, revision), heads,
                     struct.pack(f"<{count}I", *sizes), *kvs))


def read_puts(data: bytes, pos: int, end: int) -> Puts:
    """The body of such an item. ValueError if its lengths do not add up."""
    try:
        count, revision = PUTS_HEAD.unpack_from(data, pos)
        pos += PUTS_HEAD.size
        heads = data[pos : pos + count]
        sizes = struct.unpack_from(f"<{count}I", data, pos + count)
    except struct.error as e:
        raise ValueError("truncated puts") from e
    kvs = [data[start:stop] for start, stop in pairwise(accumulate(sizes, initial=pos + 5 * count))]
    if pos + 5 * count + sum(sizes) != end:
        raise ValueError("truncated puts")
    # a KeyValue opens with its key: a tag, a length of one byte
    keys = [kv[2 : 2 + (head & 0x7F)] for kv, head in zip(kvs, heads, strict=True)]
    return Puts(revision, keys, kvs, [key for key, head in zip(keys, heads, strict=True) if head & _NEW])


def delete(key: bytes) -> bytes:
    """A delete's item; only of a key that exists."""
    return ITEM.pack(Item.DELETE, len(key)) + key


def delete_range(key: bytes, range_end: bytes, count: int) -> bytes:
    """The item of a delete of many keys. Nothing before it at its revision touches the span, which holds
    exactly ``count`` live keys: the order alone decides what a replica finds there."""
    return ITEM.pack(Item.DELETE_RANGE, RANGE_HEAD.size + len(key) + len(range_end)) + RANGE_HEAD.pack(
        count, len(key)) + key + range_end


def read_delete_range(data: bytes, pos: int, end: int) -> tuple[bytes, bytes, int]:
    """``(key, range_end, count)`` of such an item's body."""
    count, key_len = RANGE_HEAD.unpack_from(data, pos)
    pos += RANGE_HEAD.size
    return data[pos : pos + key_len], data[pos + key_len : end], count


def txn(items: Sequence[bytes]) -> bytes:
    """Several puts and deletes as one change."""
    body = b"".join(items)
    kind = Item.TXN_LONG if any(item[0] == Item.DELETE_RANGE for item in items) else Item.TXN
    return ITEM.pack(kind, len(body)) + body


def lease_grant(lease: int, ttl_s: int) -> bytes:
    return ITEM.pack(Item.LEASE_GRANT, LEASE.size) + LEASE.pack(lease, ttl_s)


def lease_revoke(lease: int, keys: Iterable[bytes]) -> bytes:
    """The lease goes, and with it the keys that hang on it, in key order."""
    body = LEASE_ID.pack(lease) + b"".join(delete(k) for k in keys)
    return ITEM.pack(Item.LEASE_REVOKE, len(body)) + body


def revokes(record: bytes, lease: int) -> bool:
    """Whether one of its items is a revoke of this lease."""
    named = LEASE_ID.pack(lease)
    return named in record and any(
        kind == Item.LEASE_REVOKE and record.startswith(named, at) for kind, at, _ in items(record))


def lease_checkpoint(lease: int, remaining_ttl_s: int) -> bytes:
    """The time left of a long lease; 0 clears it (H7)."""
    return ITEM.pack(Item.LEASE_CHECKPOINT, LEASE.size) + LEASE.pack(lease, remaining_ttl_s)


def compact(revision: int) -> bytes:
    return ITEM.pack(Item.COMPACT, REVISION.size) + REVISION.pack(revision)


def bootstrap(layout_version: int, shard_count: int, depth: int) -> bytes:
    """The order log's first item: what the whole cluster has agreed on once."""
    return ITEM.pack(Item.BOOTSTRAP, BOOTSTRAP.size) + BOOTSTRAP.pack(layout_version, shard_count, depth)


def bootstrap_in(data: bytes) -> tuple[int, int, int] | None:
    """Layout version, shard count and depth, if a record says them. Other items may need that layout to be
    read."""
    for kind, pos, _ in items(data):
        if kind == Item.BOOTSTRAP:
            version, shard_count, depth = BOOTSTRAP.unpack_from(data, pos)
            return version, shard_count, depth
    return None


def alarm(raised: bool, kind: int, member_id: int) -> bytes:
    return ITEM.pack(Item.ALARM, ALARM_BODY.size) + ALARM_BODY.pack(raised, kind, member_id)


def downgrade(target: str) -> bytes:
    """A downgrade to a version begins; "": it is cancelled."""
    data = target.encode()
    return ITEM.pack(Item.DOWNGRADE, len(data)) + data


def rows(body: bytes) -> bytes:
    """The item of rows of a feature (``cluster.features.rows``)."""
    return ITEM.pack(Item.ROWS, len(body)) + body


def publish(member: bytes) -> bytes:
    return ITEM.pack(Item.PUBLISH, len(member)) + member


def host(row: bytes) -> bytes:
    """A host as it is from here on: added, changed, removed."""
    return ITEM.pack(Item.HOST, len(row)) + row


def incarnation(member_id: int, number: int) -> bytes:
    """Which data directory a member has."""
    return ITEM.pack(Item.INCARNATION, INCARNATION.size) + INCARNATION.pack(member_id, number)


def incarnations_in(data: bytes) -> Iterator[tuple[int, int]]:
    """``(member, incarnation)`` of such items of a record, as far as it can be read."""
    with suppress(ValueError):  # a log's tail is not checked yet (cluster.order.sound)
        for kind, pos, end in items(data):
            if kind == Item.INCARNATION and end - pos == INCARNATION.size:
                member_id, number = INCARNATION.unpack_from(data, pos)
                yield member_id, number


def items(data: bytes, pos: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """The items of a record: ``(kind, body start, body end)`` each. ValueError if one is cut short."""
    if end is None:
        end = len(data)
    unpack, size = ITEM.unpack_from, ITEM.size
    while pos < end:
        if end - pos < size:
            raise ValueError("truncated record")
        kind, length = unpack(data, pos)
        pos += size
        if pos + length > end:
            raise ValueError("truncated record")
        yield kind, pos, pos + length
        pos += length


def key_of(data: bytes, kind: int, pos: int, end: int) -> bytes:
    """The key of a put's or delete's body."""
    if kind == Item.DELETE:
        return data[pos:end]
    (key_len, _, _) = PUT_BODY.unpack_from(data, pos)
    at = pos + PUT_FIXED + key_offset(key_len)
    return data[at : at + key_len]


def read_put(data: bytes, kind: int, pos: int, end: int, mod_revision: bytes) -> tuple[bytes, bytes, int]:
    """``(key, KeyValue in wire form, lease)`` of a put's body; ``mod_revision``: as a varint."""
    key_len, head_len, lease = PUT_BODY.unpack_from(data, pos)
    pos += 16
    head_end = pos + head_len
    key_at = pos + (2 if key_len < 0x80 else key_offset(key_len))
    key = data[key_at : key_at + key_len]
    if kind == 1:
        return key, b"".join((data[pos:head_end], b"\x18", mod_revision, data[head_end:end])), lease
    return (
        key, b"".join((data[pos:head_end], b"\x10", mod_revision, b"\x18", mod_revision, data[head_end:end])),
        lease,
    )


def read_put_ref(
    data: bytes, pos: int, end: int, create: int, mod_revision: bytes
) -> tuple[bytes, bytes, int]:
    """As :func:`read_put`, of a PUT_REF whose creation is known."""
    key_len, head_len, lease = PUT_BODY.unpack_from(data, pos)
    pos += PUT_FIXED
    head_end = pos + head_len
    key_at = pos + key_offset(key_len)
    kv = b"".join((data[pos:head_end], b"\x10", varint(create), b"\x18", mod_revision, data[head_end:end]))
    return data[key_at : key_at + key_len], kv, lease
