"""Messages between fronts and nodes: one frame a tick and link, many records in it.

A *link* is one ZeroMQ connection of one front to one node. Each frame on it is::

    sequence (u64) | record | record | ...

``sequence`` counts 1, 2, 3, ... per link and direction. A gap or a repeat means that frames were lost:
the receiver drops the link and the front opens a new one under a new session (review (b) Transport).
The first record of a front's first frame is HELLO.

A record from a front (a *request*) is ``rid u64 | method u8 | timeout_ms u32 | length u32 | body``; from a
node (an *answer*) ``rid u64 | status u8 | length u32 | body``. ``rid`` is the front's, rising per link;
rid 0 is a record about the link itself (HELLO, STATE, REFUSED).

Who sends what, who answers, and what happens when it is lost: ``cluster.wire.frames``.
Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

SEQUENCE = struct.Struct("<Q")
REQUEST = struct.Struct("<QBII")  # rid, method, timeout_ms, body length
ANSWER = struct.Struct("<QBI")  # rid, status, body length

PROTOCOL_VERSION = 7  # of a hello: the lowest that is spoken (``cluster.wire.frames``)


class Method(IntEnum):
    """What a front asks of a node. *Writes* go to the shard's leader, *reads* to any replica.

    A write whose link breaks has an unknown fate: the front answers the client so and never resends.
    A write answered NOT_LEADER was certainly not logged: the front resends it to the new leader (I23).
    Reads are resent freely until their time limit.
    """

    HELLO = 0  # front -> node, first record: HELLO body; answered by STATE, or REFUSED and silence
    # Writes; body: the etcd request message in wire form. Answer OK: HEAD + response fields after the header.
    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    SET_ALARM = 8  # AlarmRequest that raises or disarms; to the sequencer
    AUTH_CHANGE = 10  # cluster.features.auth.changes: its number and the request; to the sequencer
    PUBLISH = 7  # a host's name and client URLs: etcdserverpb.Member in wire form; to the sequencer
    SET_DOWNGRADE = 9  # DowngradeRequest that enables or cancels; to the sequencer
    V2_WRITE = 11  # cluster.features.v2.requests.Write, to the sequencer; OK: HEAD + Answer, of a refusal too
    MEMBERS = 12  # a change of members, to the sequencer: its kind (u8, MEMBER_ADD and so on) + the request
    # To the sequencer, answered after a confirmation round begun after they arrived (H2, H7).
    READ_INDEX = 16  # body empty; answer OK: READ_INDEX_ANSWER
    LEASE_KEEPALIVE = 17  # LeaseKeepAliveRequest; OK: HEAD + fields (TTL 0: no such lease)
    LEASE_TTL = 18  # LeaseTimeToLiveRequest; OK: HEAD + fields
    # lease IDs (i64 each); OK: HEAD + what each has got (i64): TTL in s, 0 none, LEASE_DUE
    LEASE_KEEPALIVES = 19
    # Reads of a replica; body: READ + etcd request. Answer OK: HEAD + fields; long ones PARTIAL ... OK, as
    # far as CREDIT goes.
    RANGE = 32
    LEASE_LEASES = 33
    MEMBER_LIST = 34
    HASH = 35
    HASH_KV = 36
    STATUS = 37  # READ; StatusResponse fields of this replica
    COUNTERS = 45  # READ; what the node has done so far: JSON of node.upkeep.counters. No client can ask this
    FACTS = 46  # READ; how the node is now: JSON of node.upkeep.facts. Likewise
    DOWNGRADE = 55  # READ + DowngradeRequest that validates; OK: HEAD + fields
    DEFRAGMENT = 47  # READ; this replica's files are rewritten; OK: HEAD once that is done
    # READ; body empty: hold a checkpoint, answered by one PARTIAL (node.serving.backups); else the names of
    # such in JSON: PARTIAL answers (remaining_bytes u64 | chunk), as far as CREDIT goes; last one OK: HEAD
    SNAPSHOT = 38
    ALARM = 39  # AlarmRequest: those that are raised
    AUTH_SHOW = 56  # READ + what of users and roles (cluster.features.auth.reads), request; OK: HEAD + fields
    # READ + what of the v2 tree (cluster.features.v2.requests.Kind), the index to wait for, the request;
    # OK: HEAD + Answer
    V2_READ = 57
    # u8: whether this front wants the events of the v2 tree, all of them, from now on; answered by V2_EVENTS
    V2_FOLLOW = 58
    READ_TXN = 40  # a read-only Txn: READ + TxnRequest
    RANGE_STREAM = 41  # READ + RangeRequest; PARTIAL answers hold whole KeyValues, so each can be sent on
    # Watch (to a node of the front's own host). The rid is the subscription's.
    SUBSCRIBE = 48  # SUBSCRIBE_HEAD + key + range_end; answered by EVENTS for ever, first SUBSCRIBED
    UNSUBSCRIBE = 49  # rid of the subscription; no answer
    # HISTORY_HEAD + key + range_end; answered once: HISTORY_ANSWER + events (cluster.wire.events), or ERROR
    # Compacted as RANGE, of which a front makes one answer out of several shards': every answer is HEAD +
    # cluster.evaluate.reading.row_parts
    HISTORY = 50
    RANGE_ROWS = 43
    STREAM_ROWS = 44  # as RANGE_STREAM, likewise
    LEASE_KEYS = 42  # READ + LeaseTimeToLiveRequest: the keys of this shard on the lease; OK: HEAD + fields
    # revision (u64) that a read waits for: its WATERMARK at once, and others promptly for a while; no answer
    CATCH_UP = 53
    CANCEL = 51  # rid of a read or a queued write that nobody waits for any more; no answer
    # Between nodes, on links like a front's: see cluster.order.prepare, node.links.siblings and
    # node.replica.shards.feed.
    WIDE = 72  # a front's transaction over several shards, to the sequencer: wide method u8 + the request
    # a lone client's put, to the sequencer: its shard (u16) + the request; ELSEWHERE: to its leader, rather
    LONE = 73
    PREPARE = 80
    RELEASE = 81  # no answer
    QUERY = 82  # leader -> sequencer: what became of this attempt? OK: FATE
    REPORT = 83  # leader -> sequencer; no answer
    # node -> any node 0: order records from this index on (u64); PARTIAL answers FEED_HEAD + projection order
    # index applied (u64), durable (u64), haste (u8, node.replica.shards.feed): credit for more; no answer
    FEED = 84
    FEED_ACK = 85
    # leader of shard 0 -> a shard's leader: where its group stands, and what is due there
    # (node.members.group)
    RECONFIGURE = 86
    SHOWN = 87  # sequencer -> who granted: the next piece of rows that it has pinned (cluster.order.shown)
    # rid of an answer in PARTIAL records: so many bytes (u64, in all) of their bodies have been passed on, or
    # have room; as many as before: its client takes others first; rid 0: so many of all such answers have
    # been read from this link; no answer
    CREDIT = 52
    # the answer to LEAVING: this front has every answer and asks nothing more on this link; no answer
    FAREWELL = 54
    # Administration.
    TRANSFER_LEADER = 64  # u64 member ID; to the shard's leader; OK once the target has been told to campaign


class Status(IntEnum):
    """What a record from a node means."""

    OK = 0  # done; the last record for this rid
    ERROR = 1  # body: error number u16 (cluster.errors) + UTF-8 text; nothing was changed
    NOT_LEADER = 2  # certainly not logged; body: LEADER (member 0 = unknown)
    UNKNOWN = 3  # logged, fate unknown; body: error number u16 + text (etcd's time-out errors)
    PARTIAL = 4  # more records for this rid follow
    EVENTS = 5  # events of one subscription (cluster.wire.events)
    SUBSCRIBED = 6  # SUBSCRIBED_BODY
    STATE = 7  # rid 0: STATE_BODY, at HELLO, on every change of leader or term, and every heartbeat
    WATERMARK = 8  # rid 0: revision u64: everything of this shard up to it has been emitted to this front
    # rid 0: UTF-8 reason (foreign cluster, wrong version); the node ignores the link from then on
    REFUSED = 9
    LOCKED = 11  # a prepare would wait for another attempt's undecided one; body: that attempt
    # certainly not logged; only the sequencer can decide it: send it there as a wide transaction
    ELSEWHERE = 12
    # rid 0: this node is about to end: ask nothing more here; answered by FAREWELL once everything is
    # answered
    LEAVING = 13
    VERSIONS = (
        14  # rid 0: SPOKEN, which versions the node speaks; in its first frame, to those who named theirs
    )
    AUTH = 15  # rid 0, to a front: what it needs of users and roles (node.serving.guard): HELLO, changes
    MEMBERS = 16  # rid 0: the table of members (cluster.members.table), of shard 0's nodes
    # rid 0, to a front that follows the v2 tree: FOLLOWED, the events that were applied since the last one
    V2_EVENTS = 17
    LOST = 10  # a subscription ended (snapshot installed: a gap): re-join from history


MEMBER_ADD, MEMBER_REMOVE, MEMBER_UPDATE, MEMBER_PROMOTE = range(1, 5)  # kinds of MEMBERS
MEMBERS_LAX = 0x80  # bit of a kind: the host that was asked has --strict-reconfig-check=false

HEAD = struct.Struct("<QQ")  # revision for the response header, raft term; the response's other fields follow
PUT_ANSWER = struct.Struct("<QBIQQ")  # ANSWER and HEAD of a put without previous value, in one
READ_INDEX_ANSWER = struct.Struct("<QQQ")  # order index, revision there, term
# applied order index to wait for (0: serializable), revision to read at (0: latest)
READ = struct.Struct("<QQ")
LEASE_DUE = -1  # its time is over and its revocation on the way: only LEASE_KEEPALIVE waits for that
LONE_HEAD = struct.Struct("<H")  # shard
SPOKEN = struct.Struct("<HH")  # lowest and highest version
LEADER = struct.Struct("<QQ")  # member ID of the leader (0 unknown), term
# deliver events of revision >= this, flags (1: with prev_kv), key length
SUBSCRIBE_HEAD = struct.Struct("<QBI")
SUBSCRIBED_BODY = struct.Struct("<QQ")  # live events start at this revision; compact revision
# from revision, at most so many events, bytes, flags (1: prev_kv), key length
HISTORY_HEAD = struct.Struct("<QIIBI")
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
    """One request record."""
    return REQUEST.pack(rid, method, timeout_ms, len(body)) + body


def answer(rid: int, status: int, body: bytes) -> bytes:
    """One answer record."""
    return ANSWER.pack(rid, status, len(body)) + body


def frame(sequence: int, records: Iterable[bytes]) -> bytes:
    """One frame out of encoded records."""
    return SEQUENCE.pack(sequence) + b"".join(records)


def decode_requests(data: bytes) -> tuple[int, list[tuple[int, int, int, bytes]]]:
    """Sequence number and ``(rid, method, timeout_ms, body)`` of each record; ValueError if cut short."""
    records = []
    pos, end = 8, len(data)
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
    pos, end = 8, len(data)
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
