"""Messages between fronts and nodes: one frame a tick and link, many records in it.

A *link* is one ZeroMQ connection of one front to one node. Each frame on it is::

    sequence (u64) | record | record | ...

``sequence`` counts 1, 2, 3, ... per link and direction. A gap or a repeat means that frames were lost: the
receiver drops the link and the front opens a new one under a new session. The first record of a front's first
frame is HELLO.

A record from a front (a *request*) is ``rid u64 | method u8 | timeout_ms u32 | length u32 | body``; from a
node (an *answer*) ``rid u64 | status u8 | length u32 | body``. ``rid`` is the front's, rising per link; rid 0
is a record about the link itself (HELLO, STATE, REFUSED).

docs/design/frames.md lists for each kind its sender, receiver, body, answer, and what its loss costs.
Numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from enum import IntEnum

SEQUENCE = struct.Struct("<Q")
REQUEST = struct.Struct("<QBII")  # rid, method, timeout_ms, body length
ANSWER = struct.Struct("<QBI")  # rid, status, body length


class Method(IntEnum):
    """What a front asks of a node. *Writes* go to the shard's leader, *reads* to any replica.

    A write whose link breaks has an unknown fate: the front answers the client so and never resends it.
    A write answered NOT_LEADER was certainly not logged: the front resends it to the new leader (I23).
    Reads are resent freely within their time limit.
    """

    HELLO = 0
    # writes: the etcd request in wire form
    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    PUBLISH = 7
    SET_ALARM = 8
    SET_DOWNGRADE = 9
    AUTH_CHANGE = 10
    V2_WRITE = 11
    MEMBERS = 12
    GROW = 13
    SHARD_CHANGE = 14
    # to the sequencer, answered after a confirmation round begun after they arrived (H2, H7)
    READ_INDEX = 16
    LEASE_KEEPALIVE = 17  # OK: TTL 0: no such lease
    LEASE_TTL = 18
    LEASE_KEEPALIVES = 19  # OK: for each lease its TTL in s, 0 (no such lease), LEASE_DUE
    # reads: READ + the etcd request
    RANGE = 32
    LEASE_LEASES = 33
    MEMBER_LIST = 34
    HASH = 35
    HASH_KV = 36
    STATUS = 37
    SNAPSHOT = 38  # see node.serving.backups
    ALARM = 39
    READ_TXN = 40
    RANGE_STREAM = 41
    LEASE_KEYS = 42  # the keys of this shard on a lease
    # as RANGE and RANGE_STREAM; the front makes one answer of several shards' rows
    RANGE_ROWS = 43
    STREAM_ROWS = 44
    COUNTERS = 45  # no client can ask for COUNTERS and FACTS
    FACTS = 46
    DEFRAGMENT = 47
    MOVES = 60  # as FACTS, for a client that may ask
    DOWNGRADE = 55
    AUTH_SHOW = 56
    V2_READ = 57
    V2_FOLLOW = 58
    # watches, to a node of the front's own host; the rid is the subscription's
    SUBSCRIBE = 48
    UNSUBSCRIBE = 49
    HISTORY = 50
    # about the link and its requests
    CANCEL = 51
    # rid of an answer in PARTIAL records: so many bytes (u64, in all) of their bodies have been passed on, or
    # have room; as many as before: its client takes others first; rid 0: so many of all such answers have
    # been read from this link
    CREDIT = 52
    CATCH_UP = 53
    PLACED = 59  # rid 0: from here on this front's requests go by this table of placement
    FAREWELL = 54  # the answer to LEAVING: this front has every answer and asks nothing more on this link
    TRANSFER_LEADER = 64  # OK once the target has been told to campaign
    ADVICE = 75  # of the policy of growth, at the leader of shard 0
    # between nodes, on links like a front's: see cluster.order.prepare, node.links.siblings and
    # node.replica.shards.feed
    WIDE = 72
    LONE = 73  # ELSEWHERE: to the shard's leader instead
    PREPARE = 80
    RELEASE = 81
    QUERY = 82
    REPORT = 83
    FEED = 84
    FEED_ACK = 85
    RECONFIGURE = 86
    SHOWN = 87
    # of moves (node.replica.moving)
    COPY = 88
    COPIED = 89
    DURABLE = 90
    LOADS = 91  # of a shard, told by its leader


class Status(IntEnum):
    """What a record from a node means."""

    OK = 0  # the last record for this rid
    ERROR = 1  # nothing was changed
    NOT_LEADER = 2  # certainly not logged; body: LEADER (member 0 = unknown)
    UNKNOWN = 3  # logged, fate unknown: etcd's time-out errors
    PARTIAL = 4
    EVENTS = 5
    SUBSCRIBED = 6
    STATE = 7
    WATERMARK = 8
    REFUSED = 9
    # a subscription ended by a gap (a snapshot was installed, or events were too much): re-join from history
    LOST = 10
    LOCKED = 11
    ELSEWHERE = 12  # certainly not logged; only the sequencer can decide it
    LEAVING = 13  # ask nothing more here; FAREWELL once everything is answered
    VERSIONS = 14  # in a node's first frame, to a front that named its versions
    AUTH = 15  # see node.serving.auth.guard; after HELLO and at every change
    MEMBERS = 16
    V2_EVENTS = 17
    PLACEMENT = 18
    MOVED = 19  # certainly not logged; body: a newer table, which has other owners for what was asked


OF_KEYS = frozenset(map(int, (Method.PUT, Method.DELETE_RANGE, Method.TXN)))  # writes of keys

MEMBER_ADD, MEMBER_REMOVE, MEMBER_UPDATE, MEMBER_PROMOTE = range(1, 5)  # kinds of MEMBERS
MEMBERS_LAX = 0x80  # bit of a kind: the host that was asked has --strict-reconfig-check=false

HEAD = struct.Struct("<QQ")  # revision for the response header, raft term; the response's other fields follow
PUT_ANSWER = struct.Struct("<QBIQQ")  # ANSWER and HEAD of a put without previous value, in one
READ_INDEX_ANSWER = struct.Struct("<QQQ")  # order index, revision there, term
# applied order index to wait for (0: serializable), revision to read at (0: latest)
READ = struct.Struct("<QQ")
# of what a backup holds: order index, revision, compact revision, member ID; its checkpoint's name follows
HELD = struct.Struct("<QQQQ")
LEASE_DUE = -1  # its time is over and its revocation on the way: only LEASE_KEEPALIVE waits for that
HASH_OF_NOTHING = zlib.crc32(b"key")  # HASH_KV of a shard of which no version counts
LONE_HEAD = struct.Struct("<H")  # shard
SPOKEN = struct.Struct("<HH")  # lowest and highest version
LEADER = struct.Struct("<QQ")  # member ID of the leader (0 unknown), term
# deliver events of revision >= this, flags (1: with prev_kv), key length
SUBSCRIBE_HEAD = struct.Struct("<QBI")
SUBSCRIBED_BODY = struct.Struct("<QQ")  # live events start at this revision; compact revision
# from revision, at most so many events, bytes, flags (1: prev_kv; or SIGNS), key length
HISTORY_HEAD = struct.Struct("<QIIBI")
# the front joins PARTIAL answers: pieces, or empty ones while a node reads on. Older fronts know neither
SIGNS = 4
# next revision to ask from, applied revision, compact revision, events
HISTORY_ANSWER = struct.Struct("<QQQI")
STATE_BODY = struct.Struct("<QQQQQQ")  # shard, leader member ID (0 unknown), term, commit, applied, revision
# order index and term of the record, its bytes in node 0's log; its projection follows
FEED_HEAD = struct.Struct("<QQI")
FEED_BODY = struct.Struct("<HQ")  # shard, first order index wanted
FEED_ACK_BODY = struct.Struct("<QQB")  # applied order index, durable order index, haste
# haste: records may come late; those that concern the own shard may not; none may
NO_HASTE, OWN_HASTE, ALL_HASTE = 0, 1, 2
# protocol version, cluster ID, member ID of the front's host (0: none), session, then how it places keys:
# shards and depth (0, 0: it places none). One that placed keys otherwise than the cluster agreed would write
# to the wrong shard.
HELLO_BODY = struct.Struct("<HQQQHH")


def request(rid: int, method: int, timeout_ms: int, body: bytes) -> bytes:
    return REQUEST.pack(rid, method, timeout_ms, len(body)) + body


def answer(rid: int, status: int, body: bytes) -> bytes:
    return ANSWER.pack(rid, status, len(body)) + body


def frame(sequence: int, records: Iterable[bytes]) -> bytes:
    return SEQUENCE.pack(sequence) + b"".join(records)


def decode_requests(data: bytes) -> tuple[int, list[tuple[int, int, int, bytes]]]:
    """Sequence number and ``(rid, method, timeout_ms, body)`` of each record; ValueError if cut short."""
    records = []
    pos, end = SEQUENCE.size, len(data)
    unpack, size = REQUEST.unpack_from, REQUEST.size
    try:
        while pos < end:
            rid, method, timeout_ms, length = unpack(data, pos)
            pos += size
            records.append((rid, method, timeout_ms, data[pos : pos + length]))
            pos += length
    except struct.error as e:
        raise ValueError("truncated frame") from e
    if pos != end:
        raise ValueError("truncated frame")
    return SEQUENCE.unpack_from(data)[0], records


def decode_answers(data: bytes) -> tuple[int, list[tuple[int, int, bytes]]]:
    """Sequence number and ``(rid, status, body)`` of each record; ValueError if cut short."""
    records = []
    pos, end = SEQUENCE.size, len(data)
    unpack, size = ANSWER.unpack_from, ANSWER.size
    try:
        while pos < end:
            rid, status, length = unpack(data, pos)
            pos += size
            records.append((rid, status, data[pos : pos + length]))
            pos += length
    except struct.error as e:
        raise ValueError("truncated frame") from e
    if pos != end:
        raise ValueError("truncated frame")
    return SEQUENCE.unpack_from(data)[0], records
