"""What etcd 3.5 keeps in which bucket of its database, and how each row is written.

============== ================================== ==========================================================
bucket         key                                value
============== ================================== ==========================================================
key            main revision 8, ``_``, sub 8      KeyValue; with a ``t`` behind: a tombstone, key alone
lease          lease 8                            leasepb.Lease: ID 1, TTL 2, remaining TTL 3
meta           consistent_index, term             8 bytes each: place in the log
meta           confState                          JSON of raftpb.ConfState
meta           scheduledCompactRev, finished...   a revision's 17 bytes; not there: never compacted
meta           storageVersion                     "3.6.0"; not there: 3.5's or older
members        ID in hexadecimal                  JSON of the member
cluster        clusterVersion, downgrade          "3.5.0"; JSON
auth           authEnabled, authRevision          0 or 1; 8 bytes
authUsers      name                               authpb.User
authRoles      name                               authpb.Role
alarm          etcdserverpb.AlarmMember           nothing
muster_v2      a row of the v2 tree               not there while nobody has used version 2
============== ================================== ==========================================================

Numbers are big-endian. A backup is such a database and the SHA-256 of it behind. etcd passes over other
buckets.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from mmap import mmap
from typing import Any

from google.protobuf.message import DecodeError

from cluster.bolt.reader import Database
from cluster.pb import auth_pb2, rpc_pb2
from cluster.wire.protobuf import read_varint, varint

HASH_BYTES = 32
SECTOR = 512  # a database's length is a multiple of it: what is over tells that a hash is there
REVISION = struct.Struct(">QcQ")
REVISION_BYTES = REVISION.size
_U64 = struct.Struct(">Q")
_I64 = struct.Struct(">q")
KEY, LEASE, META, MEMBERS, CLUSTER, ALARM = b"key", b"lease", b"meta", b"members", b"cluster", b"alarm"
MEMBERS_REMOVED, AUTH, USERS, ROLES = b"members_removed", b"auth", b"authUsers", b"authRoles"
V2 = b"muster_v2"  # our own: the rows of the v2 tree, which etcd keeps in a file of another kind
SCHEDULED, FINISHED = b"scheduledCompactRev", b"finishedCompactRev"
STORAGE_VERSION = b"storageVersion"
_NEWEST = (3, 7)  # storage version that is known here
Row = tuple[bytes, bytes]


class NoBackup(Exception):
    """This is no database of etcd's, or not a whole one."""


@dataclass(slots=True, frozen=True)
class Lease:
    lease: int
    ttl_s: int
    remaining_ttl_s: int = 0


@dataclass(slots=True)
class Auth:
    enabled: bool = False
    revision: int = 1
    users: list[auth_pb2.User] = field(default_factory=list)
    roles: list[auth_pb2.Role] = field(default_factory=list)


@dataclass(slots=True)
class Around:
    """Everything but the keys."""

    consistent_index: int = 0
    term: int = 0
    compact_revision: int = 0  # scheduled; 0: never
    finished_compact_revision: int = 0
    leases: list[Lease] = field(default_factory=list)
    members: list[rpc_pb2.Member] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)  # IDs of former members
    alarms: list[tuple[int, int]] = field(default_factory=list)  # member, type
    auth: Auth = field(default_factory=Auth)
    v2: Iterable[Row] = ()  # cluster.features.v2.tree; taken once, so that memory need not hold them


# -- writing


def revision_key(main: int, sub: int, tombstone: bool = False) -> bytes:
    """A row's key in the bucket ``key``."""
    key = REVISION.pack(main, b"_", sub)
    return key + b"t" if tombstone else key


def tombstone_value(key: bytes) -> bytes:
    return b"\x0a" + varint(len(key)) + key


def buckets(around: Around) -> Iterator[tuple[bytes, Iterable[Row]]]:
    """Every bucket but ``key``, and its rows in order."""
    yield LEASE, sorted((_I64.pack(one.lease), _lease(one)) for one in around.leases)
    yield META, sorted(_meta(around))
    yield MEMBERS, sorted((b"%x" % one.ID, _member(one)) for one in around.members)
    yield MEMBERS_REMOVED, sorted((b"%x" % one, b"removed") for one in around.removed)
    downgrade = b'{"target-version":"","enabled":false}'
    yield CLUSTER, [(b"clusterVersion", b"3.5.0"), (b"downgrade", downgrade)]
    yield ALARM, sorted((_alarm(member, kind), b"") for member, kind in around.alarms)
    auth = around.auth
    yield AUTH, [(b"authEnabled", bytes((auth.enabled,))), (b"authRevision", _U64.pack(auth.revision))]
    yield USERS, sorted((user.name, user.SerializeToString()) for user in auth.users)
    yield ROLES, sorted((role.name, role.SerializeToString()) for role in auth.roles)
    v2 = iter(around.v2)
    if (first := next(v2, None)) is not None:
        yield V2, chain((first,), v2)


def _meta(around: Around) -> Iterator[Row]:
    yield b"consistent_index", _U64.pack(around.consistent_index)
    yield b"term", _U64.pack(around.term)
    voters = sorted(one.ID for one in around.members if not one.isLearner)
    learners = sorted(one.ID for one in around.members if one.isLearner)
    state: dict[str, Any] = {"voters": voters}
    if learners:
        state["learners"] = learners
    yield b"confState", json.dumps({**state, "auto_leave": False}, separators=(",", ":")).encode()
    if around.compact_revision:
        yield SCHEDULED, revision_key(around.compact_revision, 0)
    if around.finished_compact_revision:
        yield FINISHED, revision_key(around.finished_compact_revision, 0)


def _lease(lease: Lease) -> bytes:
    value = b"\x08" + varint(lease.lease) + b"\x10" + varint(lease.ttl_s)
    return value + b"\x18" + varint(lease.remaining_ttl_s) if lease.remaining_ttl_s else value


def _member(member: rpc_pb2.Member) -> bytes:
    document: dict[str, Any] = {"id": member.ID, "peerURLs": list(member.peerURLs)}
    if member.isLearner:
        document["isLearner"] = True
    if member.name:
        document["name"] = member.name
    if member.clientURLs:
        document["clientURLs"] = list(member.clientURLs)
    return json.dumps(document, separators=(",", ":")).encode()


def _alarm(member: int, kind: int) -> bytes:
    return rpc_pb2.AlarmMember(memberID=member, alarm=kind).SerializeToString()  # type: ignore[arg-type]


# -- reading


def checked_size(data: bytes | mmap, skip_hash_check: bool) -> int:
    """How much of a backup is its database. NoBackup, in etcdutl's words: its hash is missing or wrong."""
    size = len(data)
    has_hash = size % SECTOR == HASH_BYTES
    if not has_hash and not skip_hash_check:
        raise NoBackup("snapshot missing hash but --skip-hash-check=false")
    if not has_hash:
        return size
    size -= HASH_BYTES
    if not skip_hash_check:
        digest = hashlib.sha256()
        for at in range(0, size, 1 << 20):
            digest.update(data[at : min(at + (1 << 20), size)])
        want = bytes(data[size:])
        if digest.digest() != want:
            got, expected = (" ".join(map(str, some)) for some in (digest.digest(), want))
            raise NoBackup(f"expected sha256 [{expected}], got [{got}]")
    return size


def read_revision(key: bytes) -> tuple[int, int, bool]:
    """Main, sub, and whether it is a tombstone's, of a row's key in the bucket ``key``."""
    if len(key) not in (REVISION_BYTES, REVISION_BYTES + 1):
        raise NoBackup(f"invalid revision key {key.hex()}")
    main, _, sub = REVISION.unpack_from(key)
    return main, sub, len(key) > REVISION_BYTES


def key_in(value: bytes) -> bytes:
    """The key of a KeyValue, which begins with it."""
    if value[:1] != b"\x0a":
        return b""
    size, at = read_varint(value, 1)
    return value[at : at + size]


def read_around(database: Database) -> Around:
    """Everything but the keys. NoBackup: it cannot be read."""
    try:
        return _read_around(database)
    except (ValueError, KeyError, TypeError, struct.error, IndexError, DecodeError, RecursionError) as e:
        raise NoBackup(f"cannot read the snapshot: {e}") from e


def _read_around(database: Database) -> Around:
    meta = dict(database.rows(META))
    _check_version(meta.get(STORAGE_VERSION, b"").decode(errors="replace"))
    auth = dict(database.rows(AUTH))
    around = Around(
        consistent_index=_number(meta.get(b"consistent_index")), term=_number(meta.get(b"term")),
        compact_revision=_compaction(meta.get(SCHEDULED)),
        finished_compact_revision=_compaction(meta.get(FINISHED)),
        leases=[_read_lease(value) for _, value in database.rows(LEASE)],
        members=[_read_member(value) for _, value in database.rows(MEMBERS)],
        auth=Auth(auth.get(b"authEnabled") == b"\x01", _number(auth.get(b"authRevision")) or 1,
                  [auth_pb2.User.FromString(value) for _, value in database.rows(USERS)],
                  [auth_pb2.Role.FromString(value) for _, value in database.rows(ROLES)]),
        v2=list(database.rows(V2)))
    for user in around.auth.users:
        user.name.decode()
    for role in around.auth.roles:
        role.name.decode()
    for key, _ in database.rows(ALARM):
        alarm = rpc_pb2.AlarmMember.FromString(key)
        if alarm.alarm in (rpc_pb2.NOSPACE, rpc_pb2.CORRUPT):  # no other one does anything, in etcd neither
            around.alarms.append((alarm.memberID, alarm.alarm))
    return around


def _check_version(version: str) -> None:
    """Refuse a newer storage, as etcd's servers do at their start: it may hold what nobody here reads."""
    major, minor = (int(part) if part.isdecimal() else 0 for part in f"{version}..".split(".")[:2])
    if (major, minor) > _NEWEST:
        newest = ".".join(map(str, _NEWEST))
        raise NoBackup(
            f'cannot read the snapshot: version "{version}" is not supported, {newest} is the newest')


def _number(value: bytes | None) -> int:
    return int(_U64.unpack(value)[0]) if value else 0


def _compaction(value: bytes | None) -> int:
    return read_revision(value)[0] if value else 0


def _read_lease(value: bytes) -> Lease:
    found = {1: 0, 2: 0, 3: 0}
    at = 0
    while at < len(value):
        tag, at = read_varint(value, at)
        if tag & 7:
            raise ValueError("a lease of another form")
        number, at = read_varint(value, at)
        if number >> 64:
            raise ValueError("a lease of another form")
        found[tag >> 3] = number - (1 << 64) if number >> 63 else number
    return Lease(found[1], found[2], found[3])


def _read_member(value: bytes) -> rpc_pb2.Member:
    raw = json.loads(value)
    return rpc_pb2.Member(ID=raw["id"], name=raw.get("name", ""), peerURLs=raw.get("peerURLs") or (),
                          clientURLs=raw.get("clientURLs") or (), isLearner=raw.get("isLearner", False))


