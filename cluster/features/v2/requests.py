"""What a front asks of the v2 tree, and the answer, as they are on the wire."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """Which change. Numbers are never reused."""

    SET = 1
    CREATE = 2
    UPDATE = 3
    COMPARE_AND_SWAP = 4
    CREATE_IN_ORDER = 5
    DELETE = 6
    COMPARE_AND_DELETE = 7


class Kind(IntEnum):
    """Which read. Numbers are never reused."""

    GET = 1
    SCAN = 2
    COUNTS = 3


_WRITE = struct.Struct("<BBQqqII")  # op, flags, prev index, expires, now, lengths of path and previous value
_DIR, _REFRESH, _RECURSIVE = 1, 2, 4
_READ = struct.Struct("<BQ")  # kind, index to wait for
_GET = struct.Struct("<Bq")  # flags, now
_SORTED = 8
_SCAN = struct.Struct("<BQ")  # flags, since
_ANSWER = struct.Struct("<QQHBB")  # index, raft index, error code, action, whether the key is new


@dataclass(slots=True, frozen=True)
class Write:
    """A change that is wanted (V2_WRITE)."""

    op: Op
    path: bytes  # clean, its namespace first
    value: bytes = b""
    directory: bool = False
    prev_value: bytes = b""  # empty: it is not compared
    prev_index: int = 0  # 0: it is not compared
    expires_ns: int = 0  # ns since 1970; 0: never
    refresh: bool = False
    recursive: bool = False
    now_ns: int = 0  # the front's clock

    def encode(self) -> bytes:
        """On the wire."""
        flags = self.directory * _DIR + self.refresh * _REFRESH + self.recursive * _RECURSIVE
        head = _WRITE.pack(
            self.op,
            flags,
            self.prev_index,
            self.expires_ns,
            self.now_ns,
            len(self.path),
            len(self.prev_value),
        )
        return b"".join((head, self.path, self.prev_value, self.value))

    @classmethod
    def decode(cls, data: bytes) -> Write:
        """Off the wire. struct.error, ValueError: it is none."""
        op, flags, prev_index, expires_ns, now_ns, path_length, prev_length = _WRITE.unpack_from(data)
        at = _WRITE.size + path_length
        end = at + prev_length
        return cls(
            Op(op),
            checked(data[_WRITE.size : at]),
            data[end:],
            bool(flags & _DIR),
            data[at:end],
            prev_index,
            expires_ns,
            bool(flags & _REFRESH),
            bool(flags & _RECURSIVE),
            now_ns,
        )


def checked(path: bytes) -> bytes:
    """A path that is clean. ValueError: it is not."""
    if path != b"/" and (
        not path.startswith(b"/") or any(n in (b"", b".", b"..") for n in path[1:].split(b"/"))
    ):
        raise ValueError(f"not a clean path: {path!r}")
    return path


def grows(write: bytes) -> bool:
    """Whether an encoded change may take space."""
    return write[:1] not in (b"\x06", b"\x07")  # DELETE, COMPARE_AND_DELETE


@dataclass(slots=True, frozen=True)
class Get:
    """A read (V2_GET)."""

    path: bytes
    recursive: bool = False
    sorted: bool = False
    now_ns: int = 0

    def encode(self) -> bytes:
        """On the wire."""
        return _GET.pack(self.recursive * _RECURSIVE + self.sorted * _SORTED, self.now_ns) + self.path

    @classmethod
    def decode(cls, data: bytes) -> Get:
        """Off the wire. struct.error, ValueError: it is none."""
        flags, now_ns = _GET.unpack_from(data)
        path = checked(data[_GET.size :])
        return cls(path, bool(flags & _RECURSIVE), bool(flags & _SORTED), now_ns)


@dataclass(slots=True, frozen=True)
class Scan:
    """The look into the past with which a wait begins (V2_SCAN)."""

    path: bytes
    recursive: bool = False
    since: int = 0  # 0: nothing that is past is wanted, only the index

    def encode(self) -> bytes:
        """On the wire."""
        return _SCAN.pack(self.recursive * _RECURSIVE, self.since) + self.path

    @classmethod
    def decode(cls, data: bytes) -> Scan:
        """Off the wire. struct.error, ValueError: it is none."""
        flags, since = _SCAN.unpack_from(data)
        return cls(checked(data[_SCAN.size :]), bool(flags & _RECURSIVE), since)


@dataclass(slots=True, frozen=True)
class Answer:
    """What comes back for each of them."""

    index: int  # X-Etcd-Index
    body: bytes  # JSON with its end of line; of a scan that found nothing: empty
    code: int = 0  # errorCode; 0: none
    action: int = 0  # cluster.features.v2.events.Action
    created: bool = False  # 201
    raft_index: int = 0  # what was applied; of a write: 0

    def encode(self) -> bytes:
        """On the wire."""
        return _ANSWER.pack(self.index, self.raft_index, self.code, self.action, self.created) + self.body

    @classmethod
    def decode(cls, data: bytes, at: int = 0) -> Answer:
        """Off the wire, from a place on."""
        index, raft_index, code, action, created = _ANSWER.unpack_from(data, at)
        return cls(index, data[at + _ANSWER.size :], code, action, bool(created), raft_index)


def read_body(kind: Kind, after: int, request: bytes = b"") -> bytes:
    """What stands behind READ. ``after``: the tree's index that this front has shown; the answer is to be no
    older."""
    return _READ.pack(kind, after) + request


def split_read(body: bytes) -> tuple[Kind, int, bytes]:
    """Kind, index to wait for, request. struct.error, ValueError: it is none."""
    kind, after = _READ.unpack_from(body)
    return Kind(kind), after, body[_READ.size :]
