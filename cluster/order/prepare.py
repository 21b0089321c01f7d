"""What the sequencer and a shard's leader say to each other about a transaction over several shards.

All of it is idempotent and may be lost, repeated or delayed: each message names its attempt, and attempts are
never used again (H5). Bodies of ``cluster.wire.messages`` records, little-endian.

===========  ======================  =====================================================================
record       from, to                when lost
===========  ======================  =====================================================================
PREPARE      sequencer -> leader     sent again every few heartbeats until answered or given up
(answer OK)  GRANT                   the next PREPARE is answered again
(answer)     ERROR: too many bytes   likewise; a sequencer that does not know it gives the attempt up
(answer)     LOCKED, NOT_LEADER      likewise; LOCKED names the attempt that is in the way, or this one: it
                                     was sent before this leader's term, and is to be sent again
RELEASE      sequencer -> leader     the leader asks (QUERY) about a lock held for long
QUERY        leader -> sequencer     asked again
(answer OK)  FATE: release once you  asked again
             have applied this index
SHOWN        sequencer -> leader     asked again: the next piece of rows that a grant has only pinned
                                     (``cluster.order.shown``)
REPORT       leader -> sequencer     sent again every heartbeat until the feed shows it
===========  ======================  =====================================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cluster.evaluate.footprint import Footprint
from cluster.evaluate.spans import merged
from cluster.order.log import Attempt
from cluster.pb import rpc_pb2 as pb

_U32 = struct.Struct("<I")
_ATTEMPT = struct.Struct("<QQ")
# attempt, floor: attempt numbers of this term up to it are finished; applied order; number of touches
_PREPARE = struct.Struct("<QQQQQ")
_U64 = struct.Struct("<Q")
_NOTHING_ELSE = bytes(8)  # no compares, no leases
_COUNT_AT = 32  # the number of touches
_SENT_AT = 1 << 63  # a bit of that number: the order index at which it is sent follows
_SWITCHES = 1 << 62  # a bit of that number: behind it follow a move, revision and keys of its base
_SWITCH = struct.Struct("<QQQ")
_OF_SWITCH = 1 << 63  # a bit of a grant's number of touches: a revision follows
_RANGE = struct.Struct("<QBII")  # revision to read at (0 latest), flags, key length, end length
REPORT = struct.Struct("<HQQQQ")  # shard, index, term, count, applied order index
FATE = struct.Struct("<Q")  # order index of the attempt's multi, 0: it has and will have none
WRITE, COUNT, SHOWN, BRIEF = 1, 2, 4, 8  # BRIEF is passed over by older programs
# of values that a transaction is granted: a message between nodes has 1 GiB at most, and a leader holds three
# copies. 128 operations in each of three lists, on values of the largest request, have 576 MiB
MOST_GRANTED_BYTES = 640 << 20
_MANY = 0xFFFFFFFF  # in the place of a number of rows: only their number follows, u64

Row = tuple[bytes, bytes]  # key, KeyValue in wire form


@dataclass(slots=True)
class Touch:
    """One range of a transaction in a shard: read, and perhaps written, at a revision (0: the latest)."""

    key: bytes
    range_end: bytes
    write: bool = False
    revision: int = 0
    count: bool = False  # many rows need only be counted: they are deleted
    shown: bool = False  # many rows need only be pinned: the answer shows them, no more
    brief: bool = False  # latest rows: their values decide nothing, and are not shown


class Base(NamedTuple):
    """What a switch asks of a participant: to lock what moves (``revision`` 0), or the promise that its copy
    is whole up to a revision, and has so many keys."""

    move: int
    revision: int = 0
    live: int = 0


@dataclass(slots=True)
class Prepare:
    """Lock this, apply what you have logged, tell me what is there."""

    attempt: Attempt
    floor: int
    order_index: int  # apply the order log up to here first
    touches: list[Touch] = field(default_factory=list)
    # to be revoked, or their keys say whether its client may: lock them and every key on them
    leases: list[int] = field(default_factory=list)
    # that its puts name: a revoke of them waits for its multi (I15)
    named: list[int] = field(default_factory=list)
    # Compare messages of ranges, to be decided for the shard's own keys
    compares: list[Any] = field(default_factory=list)
    # the last order index that was logged when this was sent: no multi up to there is this attempt's. None:
    # a sequencer of an older version does not say
    sent_at: int | None = None
    base: Base | None = None  # it is of a switch (cluster.order.moving)

    def footprint(self) -> Footprint:
        found = Footprint()
        for touch in self.touches:
            (found.writes if touch.write else found.reads).append((touch.key, touch.range_end))
        found.reads.extend(merged([(compare.key, compare.range_end) for compare in self.compares]))
        found.leases.update(self.leases, self.named)
        return found

    def encode(self) -> bytes:
        parts = [_PREPARE.pack(*self.attempt, self.floor, self.order_index, len(self.touches))]
        for t in self.touches:
            flags = WRITE * t.write | COUNT * t.count | SHOWN * t.shown | BRIEF * t.brief
            parts += (_RANGE.pack(t.revision, flags, len(t.key), len(t.range_end)), t.key, t.range_end)
        if self.compares or self.leases or self.named:
            parts.append(_U32.pack(len(self.compares)))
            for compare in self.compares:
                body = compare.SerializeToString()
                parts += (_U32.pack(len(body)), body)
            parts.append(struct.pack(f"<I{len(self.leases)}q", len(self.leases), *self.leases))
            parts.append(struct.pack(f"<{len(self.named)}q", *self.named))
        else:
            parts.append(_NOTHING_ELSE)
        body = b"".join(parts)
        if self.base is not None:
            body = _behind_head(body, _SWITCHES, _SWITCH.pack(*self.base))
        return body if self.sent_at is None else sent_at(body, self.sent_at)

    @classmethod
    def decode(cls, data: bytes) -> Prepare:
        """ValueError, struct.error or DecodeError if it is malformed."""
        term, number, floor, order_index, count = _PREPARE.unpack_from(data)
        pos = _PREPARE.size
        at = None
        if count & _SENT_AT:
            (at,) = _U64.unpack_from(data, pos)
            count, pos = count ^ _SENT_AT, pos + _U64.size
        base = None
        if count & _SWITCHES:
            base = Base(*_SWITCH.unpack_from(data, pos))
            count, pos = count ^ _SWITCHES, pos + _SWITCH.size
        touches = []
        for _ in range(count):
            revision, flags, key_len, end_len = _RANGE.unpack_from(data, pos)
            pos += _RANGE.size
            key, range_end = data[pos : pos + key_len], data[pos + key_len : pos + key_len + end_len]
            pos += key_len + end_len
            write, counted, shown = bool(flags & WRITE), bool(flags & COUNT), bool(flags & SHOWN)
            touches.append(Touch(key, range_end, write, revision, counted, shown, bool(flags & BRIEF)))
        (count,) = _U32.unpack_from(data, pos)
        pos += 4
        compares = []
        for _ in range(count):
            (length,) = _U32.unpack_from(data, pos)
            pos += 4 + length
            compares.append(pb.Compare.FromString(data[pos - length : pos]))
        (count,) = _U32.unpack_from(data, pos)
        leases = list(struct.unpack(f"<{(len(data) - pos - 4) // 8}q", data[pos + 4 :]))
        return cls(
            Attempt(term, number), floor, order_index, touches, leases[:count], leases[count:], compares, at,
            base)


def sent_at(body: bytes, order_index: int) -> bytes:
    """A PREPARE with :attr:`Prepare.sent_at`: only on links of PREPARE_SAYS_WHEN."""
    return _behind_head(body, _SENT_AT, _U64.pack(order_index))


def _behind_head(body: bytes, bit: int, what: bytes) -> bytes:
    (count,), rest = _U64.unpack_from(body, _COUNT_AT), body[_PREPARE.size :]
    return b"".join((body[:_COUNT_AT], _U64.pack(count | bit), what, rest))


@dataclass(slots=True)
class Grant:
    """What the leader of ``term`` read under the lock: rows by touch, keys by lease, verdicts by compare."""

    term: int
    rows: list[list[Row]]
    lease_keys: list[list[bytes]]
    # of touches that were only counted, or pinned: their rows are empty
    counts: dict[int, int] = field(default_factory=dict)
    verdicts: bytes = b""  # of each compare one (``cluster.order.leading.verdicts``)
    member_id: int = 0  # of the host that said so; not sent, nor is its size
    revision: int = 0  # of a switch: at which this was read
    size: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        touches = len(self.rows) | (_OF_SWITCH if self.revision else 0)
        parts = [_ATTEMPT.pack(self.term, touches)]
        if self.revision:
            parts.append(_U64.pack(self.revision))
        parts += [_U32.pack(len(self.verdicts)), self.verdicts]
        for at, rows in enumerate(self.rows):
            if at in self.counts:
                parts += (_U32.pack(_MANY), self.counts[at].to_bytes(8, "little"))
                continue
            parts.append(_U32.pack(len(rows)))
            for key, kv in rows:
                parts += (_U32.pack(len(key)), key, _U32.pack(len(kv)), kv)
        for keys in self.lease_keys:
            parts.append(_U32.pack(len(keys)))
            for key in keys:
                parts += (_U32.pack(len(key)), key)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes, member_id: int = 0) -> Grant:
        """``member_id``: of the host that said so. struct.error if it is cut short."""
        term, count = _ATTEMPT.unpack_from(data)
        pos, revision = _ATTEMPT.size, 0
        if count & _OF_SWITCH:
            (revision,) = _U64.unpack_from(data, pos)
            count, pos = count ^ _OF_SWITCH, pos + _U64.size

        def chunk() -> bytes:
            nonlocal pos
            (length,) = _U32.unpack_from(data, pos)
            pos += 4 + length
            return data[pos - length : pos]

        verdicts = chunk()
        rows: list[list[Row]] = []
        counts: dict[int, int] = {}
        for at in range(count):
            (n,) = _U32.unpack_from(data, pos)
            pos += 4
            if n == _MANY:
                counts[at] = int.from_bytes(data[pos : pos + 8], "little")
                pos += 8
                n = 0
            rows.append([(chunk(), chunk()) for _ in range(n)] if n else [])
        lease_keys: list[list[bytes]] = []
        while pos < len(data):
            (n,) = _U32.unpack_from(data, pos)
            pos += 4
            lease_keys.append([chunk() for _ in range(n)])
        return cls(term, rows, lease_keys, counts, verdicts, member_id, revision, len(data))


def encode_attempt(attempt: Attempt) -> bytes:
    """Body of RELEASE, QUERY, and of a refusal (the holder)."""
    return _ATTEMPT.pack(*attempt)


def decode_attempt(data: bytes) -> Attempt:
    return Attempt(*_ATTEMPT.unpack(data))
