"""The transaction that nearly all are: compares of single keys, then puts, reads and deletes of single keys.

Hot path. :func:`read` takes such a TxnRequest out of its wire form without a message object: the front for
its shard, the leader for locks and evaluation. It is strict: anything that it does not know to the last byte,
or that would be refused for its form, is None. ``transactions`` then gives the same answers
(``tests/unit/semantics/txns/test_plain_txn.py``). A compare, a put and a get of one key (256 B): read 2.4 us,
evaluated 2.1, answered 1.2; through messages 17 us in all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import eq, gt, lt, ne
from typing import Any, NamedTuple

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import Fields, row_tags
from cluster.evaluate.view import Current, Outcome, Version, View, version_of
from cluster.wire.protobuf import read_varint, varint

GET, PUT, DELETE = 0x0A, 0x12, 0x1A  # RequestOp's tags
RESULTS: tuple[Callable[[Any, Any], bool], ...] = (eq, gt, lt, ne)  # by Compare.CompareResult
# what a compare looks at: the first four as they stand in Current
CREATE, MOD, VERSION, LEASE, VALUE = range(5)

Compare = tuple[bytes, int, int, int | bytes]  # key, one of CREATE ... VALUE, place in RESULTS, given
# tag and key; a put: its key and value fields in wire form (KeyValue's, the value's may be empty), lease; a
# get: b"", b"", revision
Op = tuple[int, bytes, bytes, bytes, int]
# what an operation answers, whatever the revision will be: see :func:`answer`
Said = tuple[int, bytes | None, bytes, bytes]

_TARGETS = (VERSION, CREATE, MOD, VALUE, LEASE)  # by Compare.CompareTarget
_GIVEN = (0x20, 0x28, 0x30, 0x3A, 0x40)  # tag of the field that a target is compared with
Known = Callable[[bytes | None], bytes | None]
ABSENT = Current(0, 0, 0, 0)
# values of single keys that compares have read: so many are kept, one of them larger than that
_KEPT, _KEPT_BYTES = 32, 32 << 10
_FIELD_BYTES = 5  # of a compare, at least; an operation has seven
_SMALL = [bytes((i,)) for i in range(0x80)]
# in Said: a get of what this very transaction has put, of a key that was there or was not
_OWN, _OWN_NEW = 1, 2
_ITEM_PUT, _ITEM_PUT_NEW, _ITEM_PUT_REF = map(
    int, (records.Item.PUT, records.Item.PUT_NEW, records.Item.PUT_REF)
)
_PENDING = records.PENDING_REVISION
_PUT_FIXED = records.PUT_FIXED
_pack_put = records.PUT_HEAD.pack
_SAID_PUT: Said = (PUT, None, b"", b"")


class Plain(NamedTuple):
    """A transaction of this form. Keys are 1 to 127 bytes long, no branch puts a key twice or puts and
    deletes it."""

    compare: list[Compare]
    success: list[Op]
    failure: list[Op]
    read_only: bool  # it goes around the log
    serializable: bool  # of a read-only one: any replica may answer at once

    def keys(self) -> list[bytes]:
        """Every key that it names, some more than once."""
        return (
            [compare[0] for compare in self.compare]
            + [op[1] for op in self.success]
            + [op[1] for op in self.failure]
        )

    @property
    def of_the_past(self) -> bool:
        """Whether it reads at a revision that it names."""
        return any(op[4] and op[0] == GET for op in self.success + self.failure)

    @property
    def oldest(self) -> int:
        """The lowest revision that it names; beyond all if it names none."""
        return min((op[4] for op in self.success + self.failure if op[4] and op[0] == GET), default=1 << 63)

    def ops(self) -> int:
        """What counts against the limit of operations."""
        return max(len(self.compare), len(self.success), len(self.failure))


_plain: Callable[[tuple[list[Compare], list[Op], list[Op], bool, bool]], Plain] = partial(
    tuple.__new__, Plain
)


def has_more(data: bytes, fields: int) -> bool:
    """Whether a TxnRequest has more compares and operations: reading very many holds the loop. What is none
    has not."""
    if len(data) <= _FIELD_BYTES * fields:
        return False
    pos = 0
    try:
        for _ in range(fields):
            size, after = read_varint(data, pos + 1)
            pos = after + size
            if pos >= len(data):
                return False
    except IndexError:
        return False
    return True


def read_few(data: bytes, fields: int) -> Plain | None:
    """:func:`read`, unless there are more compares and operations than that."""
    return None if has_more(data, fields) else read(data)


def read(data: bytes) -> Plain | None:
    """A TxnRequest of this form; None: it must be parsed."""
    compares: list[Compare] = []
    success: list[Op] = []
    failure: list[Op] = []
    changes, serializable = 0, True
    pos, end = 0, len(data)
    try:
        while pos < end:
            tag, size = data[pos], data[pos + 1]
            at = pos + 2
            if size >= 0x80:
                size, at = _number(data, pos + 1)
            pos = at + size  # the field's end
            if pos > end:
                return None
            if tag == 0x0A:
                compares.append(_compare(data, at, pos))
                continue
            if tag != 0x12 and tag != 0x1A:
                return None
            kind, size = data[at], data[at + 1]
            at += 2
            if size >= 0x80:
                size, at = _number(data, at - 1)
            # the operation is its body and nothing else, and begins with the key
            if at + size != pos or data[at] != 0x0A:
                return None
            key_len = data[at + 1]
            key_end = at + 2 + key_len
            if not 0 < key_len < 0x80 or key_end > pos:
                return None
            key = data[at + 2 : key_end]
            if kind == PUT:
                op = _put(data, at, key_end, pos, key)
                changes += 1
            elif key_end < pos:
                op, local = _special_get(data, kind, key, key_end, pos)
                serializable &= local
            else:
                op = kind, key, b"", b"", 0
                if kind == GET:
                    serializable = False
                elif kind == DELETE:
                    changes += 1
                else:
                    return None
            (success if tag == 0x12 else failure).append(op)
    except (IndexError, _Odd):
        return None
    if changes > 1 and _repeats(success, failure):
        return None
    return _plain((compares, success, failure, not changes, serializable))


class _Odd(Exception):
    """Something that only a parser should judge."""


def _number(data: bytes, pos: int) -> tuple[int, int]:
    """A varint of several bytes, in its only canonical form; no negative one."""
    if 0 < (high := data[pos + 1]) < 0x80:  # nearly all are sizes below 16 KiB
        return data[pos] & 0x7F | high << 7, pos + 2
    value, after = read_varint(data, pos)
    if value >> 63 or not data[after - 1]:
        raise _Odd
    return value, after


def _compare(data: bytes, pos: int, end: int) -> Compare:
    result = target = 0
    if data[pos] == 0x08:
        result = data[pos + 1]
        pos += 2
    if data[pos] == 0x10:
        target = data[pos + 1]
        pos += 2
    if result > 3 or target > 4 or data[pos] != 0x1A:
        raise _Odd
    key_len = data[pos + 1]
    key_end = pos + 2 + key_len
    if not 0 < key_len < 0x80 or key_end > end:
        raise _Odd
    key = data[pos + 2 : key_end]
    given: int | bytes
    if key_end == end:  # none is given
        given = b"" if target == 3 else 0
    elif data[key_end] != _GIVEN[target]:
        raise _Odd
    else:
        given, pos = data[key_end + 1], key_end + 2
        if given >= 0x80:
            given, pos = _number(data, key_end + 1)
        if target == 3:
            size = given
            given = data[pos : pos + size]
            pos += size
        if pos != end:
            raise _Odd
    return key, _TARGETS[target], result, given


def _put(data: bytes, at: int, key_end: int, end: int, key: bytes) -> Op:
    value, lease, pos = b"", 0, key_end
    if pos < end and data[pos] == 0x12:
        size, start = data[pos + 1], pos + 2
        if size >= 0x80:
            size, start = _number(data, pos + 1)
        if size:
            value = b"\x2a" + data[pos + 1 : start + size]
        pos = start + size
    if pos < end and data[pos] == 0x18:
        lease, pos = data[pos + 1], pos + 2
        if lease >= 0x80:
            lease, pos = _number(data, pos - 1)
    if pos != end:
        raise _Odd
    return PUT, key, data[at:key_end], value, lease


def _special_get(data: bytes, kind: int, key: bytes, pos: int, end: int) -> tuple[Op, bool]:
    """A get with more than its key, and whether it is serializable."""
    revision = 0
    # gets of a transaction in memory (STM) are at the revision of its first read
    if data[pos] == 0x20:
        revision, pos = data[pos + 1], pos + 2
        if revision >= 0x80:
            revision, pos = _number(data, pos - 1)
    rest = data[pos:end]
    if kind != GET or pos > end or rest not in (b"", b"\x38\x01"):
        raise _Odd
    return (GET, key, b"", b"", revision), bool(rest)


def _repeats(*branches: list[Op]) -> bool:
    """Whether a branch puts a key twice, or puts and deletes it."""
    for ops in branches:
        puts = [op[1] for op in ops if op[0] == PUT]
        known = set(puts)
        if len(known) < len(puts) or not known.isdisjoint([op[1] for op in ops if op[0] == DELETE]):
            return True
    return False


def valued(plain: Plain) -> set[bytes]:
    """The keys whose values decide something, or are shown."""
    return {compare[0] for compare in plain.compare if compare[1] == VALUE}.union(
        op[1] for op in plain.success + plain.failure if op[0] == GET)


def check_revision(view: View, revision: int) -> None:
    """Whether a transaction can read at a named revision. EtcdError."""
    if revision > view.revision:
        raise EtcdError(errors.FUTURE_REV)
    # etcd counts "never compacted" as -1, and negative revisions are below everything else
    if revision < (view.compact_revision or -1):
        raise EtcdError(errors.COMPACTED)


def value_of(view: View, key: bytes, values: dict[bytes, bytes | None]) -> bytes | None:
    """A key's value, which is read if ``values`` has not kept it."""
    if key in values:
        return values[key]
    kv = view.get(key)
    value = None if kv is None else Fields(kv).value
    if values and (len(values) >= _KEPT or (value is not None and len(value) > _KEPT_BYTES)):
        values.clear()
    values[key] = value
    return value


def _holds(view: View, compare: Compare, values: dict[bytes, bytes | None]) -> bool:
    key, at, result, given = compare
    stored: int | bytes | None
    if at == VALUE:
        stored = value_of(view, key, values)
        if stored is None:
            return False  # a missing key has no value to compare with, not even an unequal one
    else:
        stored = (view.current(key) or ABSENT)[at]
    return bool(RESULTS[result](stored, given))


def _check(view: View, ops: list[Op]) -> None:
    """Leases and revisions that are named; puts first, as etcd. EtcdError."""
    for op in ops:
        if op[0] == PUT and op[4] and not view.lease_exists(op[4]):
            raise EtcdError(errors.LEASE_NOT_FOUND)
    for op in ops:
        if op[0] == GET and op[4]:
            check_revision(view, op[4])


class Large(Exception):
    """It shows more bytes than it may at once."""


def _branch(view: View, plain: Plain) -> tuple[bool, list[Op]]:
    """Whether all compares hold, and what is done then: nothing of it can fail. EtcdError."""
    succeeded = True
    values: dict[bytes, bytes | None] = {}
    for compare in plain.compare:
        if not _holds(view, compare, values):
            succeeded = False
            break
    ops = plain.success if succeeded else plain.failure
    for op in ops:
        if op[4]:
            _check(view, ops)
            break
    return succeeded, ops


ANY_BYTES = 1 << 62


def run(
    view: View, plain: Plain, most_bytes: int = ANY_BYTES, known: Known | None = None,
) -> tuple[Outcome, Callable[[int], bytes]]:
    """What it does, but for the outcome's tail, and how to make that out of the revision before it.
    EtcdError, and Large: its gets show more than ``most_bytes``. ``known``: see :func:`answer`."""
    succeeded, ops = _branch(view, plain)
    items: list[bytes] = []
    writes: list[tuple[bytes, Version | None]] = []
    said: list[Said] = []
    written: dict[bytes, Said] = {}  # what a get answers from now on
    revision = view.revision + 1
    mod, shown = varint(revision), 0
    for kind, key, head, value, lease in ops:
        if kind == PUT:
            # no branch puts a key twice, or deletes it besides: what the view has is what was there before
            current = view.current(key)
            if current is None:
                item, create, version, own = _ITEM_PUT_NEW, revision, 1, _OWN_NEW
                created, tail = b"", b"\x20\x01" + value
            else:
                item, create, version, own = _ITEM_PUT_REF, current[0], current[2] + 1, _OWN
                tail = b"\x20" + varint(version) + value
                created = b"\x10" + varint(create)
                if create < _PENDING:
                    item = _ITEM_PUT
                    head += created
                    created = b""
            if lease:
                tail += b"\x30" + varint(lease)
            kv = _own_kv(own, head, mod, tail)
            head_len = len(head)
            items.append(
                _pack_put(item, _PUT_FIXED + head_len + len(tail), len(key), head_len, lease) + head + tail
            )
            writes.append((key, version_of((create, revision, version, lease, kv))))
            written[key] = own, kv, head + created, tail
            said.append(_SAID_PUT)
        elif kind == GET:
            if lease:  # a revision: the state before the transaction
                row = next(iter(view.scan(key, b"", lease)), None)
                said.append((GET, None if row is None else row[1], b"", b""))
            else:
                said.append(written[key] if key in written else (GET, view.get(key), b"", b""))
            shown += len(said[-1][1] or b"")
            if shown > most_bytes:
                raise Large
        elif key not in written and view.current(key) is not None:
            items.append(records.delete(key))
            writes.append((key, None))
            written[key] = GET, None, b"", b""
            said.append((DELETE, b"\x10\x01", b"", b""))
        else:
            said.append((DELETE, None, b"", b""))
    late = partial(answer, succeeded, said, revision, known=known)
    if not items:
        return Outcome(b"", False, b"", writes, revision - 1), late
    return Outcome(items[0] if len(items) == 1 else records.txn(items), True, b"", writes, revision), late


def _own_kv(own: int, head: bytes, mod: bytes, tail: bytes) -> bytes:
    return b"%b\x18%b%b" % (head, mod, tail) if own == _OWN else b"%b\x10%b\x18%b%b" % (head, mod, mod, tail)


def answer(
    succeeded: bool, said: list[Said], evaluated_at: int, before: int, known: Known | None = None,
) -> bytes:
    """The TxnResponse after its header, once the revision ``before`` the transaction is known. It was
    evaluated as if its own were ``evaluated_at``. ``known``: of a row with pending revisions."""
    parts: list[bytes] = [b"\x10\x01"] if succeeded else []
    own_header = _header(before + 1)
    # what an operation's own header says: the transaction's revision once it has changed something
    header = own_header if said and said[0] is _SAID_PUT else _header(before)
    for kind, kv, head, tail in said:
        if kind == PUT:
            header = own_header
            parts.append(b"\x1a%b\x12%b%b" % (_SMALL[len(header) + 2], _SMALL[len(header)], header))
        elif kind == DELETE:
            if kv is None:
                kv = b""
            else:
                header = own_header
            body = header + kv
            parts.append(b"\x1a%b\x1a%b%b" % (_SMALL[len(body) + 2], _SMALL[len(body)], body))
        else:
            if kind != GET and before + 1 != evaluated_at:
                kv = _own_kv(kind, head, varint(before + 1), tail)
            if known is not None:
                kv = known(kv)
            if kv is None:
                parts.append(b"\x1a%b\x0a%b%b" % (_SMALL[len(header) + 2], _SMALL[len(header)], header))
            else:
                row = row_tags[len(kv)]
                size = varint(len(header) + len(row) + len(kv) + 2)
                parts.append(b"\x1a%b\x0a%b%b%b%b\x20\x01" % (
                    varint(len(header) + len(row) + len(kv) + 3 + len(size)), size, header, row, kv))
    return b"".join(parts)


def _header(revision: int) -> bytes:
    number = varint(revision)
    return b"\x0a%b\x18%b" % (_SMALL[len(number) + 1], number)
