"""What a front asks of the v2 tree, and the answer, as they are on the wire."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cluster.features.v2.text import in_steps


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
    USERS = 4  # cluster.features.v2.users.Show


_WRITE = struct.Struct("<BBQqqII")  # op, flags, prev index, expires, now, lengths of path and previous value
_OPS = frozenset(map(int, Op))
_HALF = 1 << 63
_DIR, _REFRESH, _RECURSIVE = 1, 2, 4
#: A set with no flag, which compares nothing: what it begins with, up to when it expires
PLAIN_SET = _WRITE.pack(Op.SET, 0, 0, 0, 0, 0, 0)[:10]
_SLASH, _NAMED = 16, 32  # of every request for a key
_READ = struct.Struct("<BQ")  # kind, index to wait for
_GET = struct.Struct("<Bq")  # flags, now
_SORTED = 8
_SCAN = struct.Struct("<BQ")  # flags, since
ANSWER = struct.Struct("<QQHBB")  # index, raft index, error code, action, whether the key is new
_WHO = struct.Struct("<HQB")  # length of the name, proof, whether a certificate says it

PROVE = 1  # a code of none but us: compare the password with the hash in the body, and ask again
LEFT = 2  # another one: long texts in the body are left to the front to quote (``left_to_front``)
MOST_NAME_BYTES = 4096  # of a user


class Who(NamedTuple):
    """The user of version 2 that asks; without a name: a guest."""

    name: bytes
    proof: int = 0  # the fingerprint of the hash that the password was compared with; 0: it was not
    certified: bool = False  # the name is a certificate's

    def encode(self) -> bytes:
        return _WHO.pack(len(self.name), self.proof, self.certified) + self.name

    @classmethod
    def decode(cls, data: bytes, at: int, named: int = True) -> tuple[Who | None, int]:
        """The user at a place, if one is ``named``, and where it ends. struct.error: it is none."""
        if not named:
            return None, at
        length, proof, certified = _WHO.unpack_from(data, at)
        at += _WHO.size
        return cls(data[at : at + length], proof, bool(certified)), at + length


def said(who: Who | None) -> bytes:
    """What stands on the wire."""
    return b"" if who is None else who.encode()


@dataclass(slots=True)
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
    now_ns: int = 0  # the front's clock; from a proxy, the leader's (``by_clock``)
    who: Who | None = None  # None: no user is named
    slash: bool = False  # the path was asked for with a slash behind it

    def encode(self) -> bytes:
        flags = self.directory * _DIR + self.refresh * _REFRESH + self.recursive * _RECURSIVE
        flags += self.slash * _SLASH + (self.who is not None) * _NAMED
        head = _WRITE.pack(
            self.op, flags, self.prev_index, self.expires_ns, self.now_ns, len(self.path),
            len(self.prev_value),
        )
        return b"".join((head, self.path, self.prev_value, said(self.who), self.value))

    @classmethod
    def decode(cls, data: bytes) -> Write:
        """struct.error, ValueError: it is none."""
        op, flags, prev_index, expires_ns, now_ns, path_length, prev_length = _WRITE.unpack_from(data)
        at = _WRITE.size + path_length
        end = at + prev_length
        who, value_at = Who.decode(data, end, flags & _NAMED)
        return cls(
            Op(op), checked(data[_WRITE.size : at]), data[value_at:], bool(flags & _DIR), data[at:end],
            prev_index, expires_ns, bool(flags & _REFRESH), bool(flags & _RECURSIVE), now_ns, who,
            bool(flags & _SLASH),
        )


def by_clock(write: bytes, now_ns: int) -> bytes:
    """An encoded ``Write`` as a front with this clock sends it; what is none as it is."""
    if len(write) < _WRITE.size or write[0] not in _OPS:
        return write
    op, flags, prev_index, expires_ns, sent_ns, *lengths = _WRITE.unpack_from(write)
    if expires_ns:
        expires_ns = (expires_ns - sent_ns + now_ns + _HALF) % (2 * _HALF) - _HALF  # it wraps, as Go's
    return _WRITE.pack(op, flags, prev_index, expires_ns, now_ns, *lengths) + write[_WRITE.size :]


def checked(path: bytes) -> bytes:
    """A path that is clean. ValueError: it is not."""
    if path != b"/" and (
        not path.startswith(b"/") or any(n in (b"", b".", b"..") for n in path[1:].split(b"/"))
    ):
        raise ValueError(f"not a clean path: {path!r}")
    return path


def grows(write: bytes) -> bool:
    """Whether an encoded change may take space."""
    return write[:1] not in _SHRINKS and not renews(write)


def renews(write: bytes) -> bool:
    """Whether an encoded change leaves a key no larger than it is, as those do that keep keys with a TTL: a
    refresh, an update without a value (a directory's), or a swap of the value it names for one as short."""
    if write[:1] not in _RENEWS:
        return False
    try:
        wish = Write.decode(write)
    except (struct.error, ValueError):
        return False
    if wish.op == Op.COMPARE_AND_SWAP and wish.prev_value and len(wish.value) <= len(wish.prev_value):
        return True
    return wish.refresh or (wish.op == Op.UPDATE and not wish.value)


_RENEWS = frozenset(bytes((op,)) for op in (Op.SET, Op.UPDATE, Op.COMPARE_AND_SWAP))


#: DELETE, COMPARE_AND_DELETE, and of ``cluster.features.v2.user_changes`` DELETE_USER, DELETE_ROLE, DISABLE
_SHRINKS = frozenset((b"\x06", b"\x07", b"\x41", b"\x43", b"\x45"))


@dataclass(slots=True, frozen=True)
class Get:
    """A read (V2_GET)."""

    path: bytes
    recursive: bool = False
    sorted: bool = False
    now_ns: int = 0
    who: Who | None = None
    slash: bool = False

    def encode(self) -> bytes:
        flags = self.recursive * _RECURSIVE + self.sorted * _SORTED + self.slash * _SLASH
        flags += (self.who is not None) * _NAMED
        return _GET.pack(flags, self.now_ns) + said(self.who) + self.path

    @classmethod
    def decode(cls, data: bytes) -> Get:
        """struct.error, ValueError: it is none."""
        flags, now_ns = _GET.unpack_from(data)
        who, at = Who.decode(data, _GET.size, flags & _NAMED)
        recursive, ordered, slash = (bool(flags & bit) for bit in (_RECURSIVE, _SORTED, _SLASH))
        return cls(checked(data[at:]), recursive, ordered, now_ns, who, slash)


@dataclass(slots=True, frozen=True)
class Scan:
    """The look into the past with which a wait begins (V2_SCAN)."""

    path: bytes
    recursive: bool = False
    since: int = 0  # 0: nothing that is past is wanted, only the index
    who: Who | None = None
    slash: bool = False

    def encode(self) -> bytes:
        flags = self.recursive * _RECURSIVE + self.slash * _SLASH + (self.who is not None) * _NAMED
        return _SCAN.pack(flags, self.since) + said(self.who) + self.path

    @classmethod
    def decode(cls, data: bytes) -> Scan:
        """struct.error, ValueError: it is none."""
        flags, since = _SCAN.unpack_from(data)
        who, at = Who.decode(data, _SCAN.size, flags & _NAMED)
        return cls(checked(data[at:]), bool(flags & _RECURSIVE), since, who, bool(flags & _SLASH))


@dataclass(slots=True)
class Answer:
    """The answer to each of them."""

    index: int  # X-Etcd-Index
    body: bytes  # JSON with its end of line; of a scan that found nothing: empty
    code: int = 0  # errorCode; 0: none; PROVE; of what concerns users: the HTTP status
    action: int = 0  # cluster.features.v2.events.Action
    created: bool = False  # 201
    raft_index: int = 0  # what was applied; of a write: 0

    def encode(self) -> bytes:
        return ANSWER.pack(self.index, self.raft_index, self.code, self.action, self.created) + self.body

    @classmethod
    def decode(cls, data: bytes, at: int = 0) -> Answer:
        index, raft_index, code, action, created = ANSWER.unpack_from(data, at)
        return cls(index, data[at + ANSWER.size :], code, action, bool(created), raft_index)


_LEFT = struct.Struct("<HI")  # the real code, the length of the body
_TEXT = struct.Struct("<I")


def left_to_front(answer: Answer, left: list[bytes]) -> Answer:
    """The answer with the texts that are ``left`` in its body, if there are any."""
    if left:
        parts = [_LEFT.pack(answer.code, len(answer.body)), answer.body]
        for text in left:
            parts += (_TEXT.pack(len(text)), text)
        answer.code, answer.body = LEFT, b"".join(parts)
    return answer


def taken(answer: Answer) -> tuple[int, Iterator[bytes]]:
    """The code and the body, step by step, of such an answer. struct.error, ValueError: it is none."""
    code, at = _LEFT.unpack_from(answer.body)
    at += _LEFT.size
    body, left = answer.body[_LEFT.size : at], []
    while at < len(answer.body):
        (size,) = _TEXT.unpack_from(answer.body, at)
        at += _TEXT.size + size
        left.append(answer.body[at - size : at])
    return code, in_steps(body, left)


def set_of(path: bytes, value: bytes, now_ns: int, expires_ns: int = 0) -> bytes:
    """An encoded ``Write`` of a file that compares nothing, without a user."""
    return _WRITE.pack(Op.SET, 0, 0, expires_ns, now_ns, len(path), 0) + path + value


def get_of(path: bytes, after: int, now_ns: int) -> bytes:
    """What stands behind READ for a ``Get`` of a node, without a user."""
    return _READ.pack(Kind.GET, after) + _GET.pack(0, now_ns) + path


def answer_at(data: bytes, at: int) -> tuple[int, int, int, int, int, bytes]:
    """An ``Answer`` from a place on: index, raft index, code, action, whether the key is new; the body."""
    return *ANSWER.unpack_from(data, at), data[at + ANSWER.size :]


def read_body(kind: Kind, after: int, request: bytes = b"") -> bytes:
    """What stands behind READ. ``after``: the tree's index that this front has shown; the answer must not be
    older."""
    return _READ.pack(kind, after) + request


def split_read(body: bytes) -> tuple[Kind, int, bytes]:
    """Kind, index to wait for, request. struct.error, ValueError: it is none."""
    kind, after = _READ.unpack_from(body)
    return Kind(kind), after, body[_READ.size :]
