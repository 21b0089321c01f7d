"""A transaction: compares on the state before it, then its operations in order, each seeing those before.

In etcd's order: all compares of the taken branches are decided on the state before the outermost
transaction; then every put of the taken branches is checked against that state, then every range's
revision; nothing can fail after that, so a refused transaction leaves no trace.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from cluster import errors, records
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2 as pb
from cluster.plain_txn import check_revision
from cluster.ranges import Fields, RangeRead, Row
from cluster.spans import Intervals, Span, keys_in
from cluster.view import Current, Outcome, Version, View
from cluster.wire import key_value, varint

_EMPTY_HEADER = b"\x0a\x00"  # of a nested transaction's response
MANY = 256  # a delete of more keys than this is logged as a range (D8)

Compare = pb.Compare
_VERSION, _CREATE, _MOD, _VALUE, _LEASE = 0, 1, 2, 3, 4  # Compare.CompareTarget
_TARGET_FIELD = {_VERSION: "version", _CREATE: "create_revision", _MOD: "mod_revision", _LEASE: "lease"}
_TARGET_AT = {_CREATE: 0, _MOD: 1, _VERSION: 2, _LEASE: 3}  # place in Current
_ABSENT = Current(0, 0, 0, 0)


def field(tag: bytes, body: bytes) -> bytes:
    """A length-delimited field."""
    return tag + varint(len(body)) + body


class Pending:
    """A view that shows what a running transaction has done so far, over the view it began with."""

    __slots__ = ("_keys", "base", "deleted", "items", "ranges", "revision", "writes", "written")

    def __init__(self, base: View) -> None:
        self.base = base
        self.revision = base.revision + 1  # of the transaction, if it changes anything
        self.items: list[bytes] = []
        self.writes: list[tuple[bytes, Version | None]] = []
        self.written: dict[bytes, Version | None] = {}
        self.ranges: list[Span] = []  # deleted whole; none holds a key that was written before
        self.deleted = Intervals()  # the same
        self._keys: list[bytes] | None = None  # those written, sorted, once a range is asked for

    @property
    def header_revision(self) -> int:
        """What an operation's own header says: the transaction's revision once it has changed something."""
        return self.revision if self.items else self.base.revision

    @property
    def compact_revision(self) -> int:
        return self.base.compact_revision

    def lease_exists(self, lease: int) -> bool:
        return self.base.lease_exists(lease)

    def lease_keys(self, lease: int) -> list[bytes]:
        raise NotImplementedError("a transaction revokes no lease")

    def current(self, key: bytes) -> Current | Version | None:
        if key in self.written:
            return self.written[key]
        if self.ranges and self._deleted(key):
            return None
        return self.base.current(key)

    def get(self, key: bytes) -> bytes | None:
        if key in self.written:
            version = self.written[key]
            return None if version is None else version.kv
        if self.ranges and self._deleted(key):
            return None
        return self.base.get(key)

    def _deleted(self, key: bytes) -> bool:
        return key in self.deleted

    def _written_in(self, span: Span) -> Sequence[bytes]:
        """The keys of a span that were written, in order."""
        if not self.written:
            return ()
        if self._keys is None:
            self._keys = sorted(self.written)
        return keys_in(self._keys, span)

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        """At a revision: the state before the transaction. Without: with what it wrote."""
        if revision or not (self.written or self.ranges):
            return self.base.scan(start, end, revision)
        return self._merged(start, end)

    def count(self, start: bytes, end: bytes) -> int:
        """As the base counts, with what this transaction did."""
        span = (start, end)
        found = sum([self.base.count(*piece) for piece in (self.deleted.without(span) if self.ranges else [span])])
        for key in self._written_in(span):
            found += self.written[key] is not None
            found -= not self._deleted(key) and self.base.current(key) is not None
        return found

    def untouched(self, span: Span) -> list[Span] | None:
        """What of a range this transaction has not deleted yet; None if it has written single keys in it."""
        if self._written_in(span):
            return None
        return [piece for piece in self.deleted.without(span) if self.base.count(*piece)] if self.ranges else [span]

    def _merged(self, start: bytes, end: bytes) -> Iterator[Row]:
        own = self._written_in((start, end))
        at = 0
        pieces = self.deleted.without((start, end)) if self.ranges else [(start, end)]
        for key, kv in chain.from_iterable([self.base.scan(*piece) for piece in pieces]):
            while at < len(own) and own[at] <= key:
                version = self.written[own[at]]
                if version is not None:
                    yield own[at], version.kv
                at += 1
            if key not in self.written:
                yield key, kv
        for key in own[at:]:
            version = self.written[key]
            if version is not None:
                yield key, version.kv

    def write(self, key: bytes, version: Version | None, item: bytes) -> None:
        self.items.append(item)
        self.writes.append((key, version))
        if self._keys is not None and key not in self.written:
            insort(self._keys, key)
        self.written[key] = version

    def delete(self, span: Span, item: bytes) -> None:
        """All of a span, in which nothing was written before."""
        self.items.append(item)
        self.ranges.append(span)
        self.deleted.add_span(span)


def apply_put(view: View, request: Any, revision: int) -> tuple[bytes, Version, bytes]:
    """A put that passed its static and lease checks: ``(item, the new version, response after the header)``.

    KeyNotFound if it keeps the value or lease of a key that does not exist.
    """
    key: bytes = request.key
    value: bytes = request.value
    lease: int = request.lease
    current = view.current(key)
    before: bytes | None = None
    if current is None:
        if request.ignore_value or request.ignore_lease:
            raise EtcdError(errors.KEY_NOT_FOUND)
        named, create, version = 0, revision, 1
    else:
        named = create = current[0]
        version = current[2] + 1
        # a pending creation is above every real revision: see ShardLeader, which binds answers late
        assert create < revision or create >= records.PENDING_REVISION, "no key is put twice in one transaction"
        if request.ignore_lease:
            lease = current[3]
        if request.ignore_value or request.prev_kv:
            before = view.get(key)
            assert before is not None, "a live key has a KeyValue"
            if request.ignore_value:
                value = Fields(before).value
    kv = key_value(key, create, revision, version, value, lease)
    item = records.put(key, named, version, value, lease)
    tail = field(b"\x12", before) if before is not None and request.prev_kv else b""
    return item, Version(create, revision, version, lease, kv), tail


def scan(view: View, key: bytes, range_end: bytes, revision: int = 0) -> Iterator[Row]:
    """Live rows of a range in etcd's spelling; an inverted range holds nothing."""
    if not range_end and not revision:
        kv = view.get(key)
        return iter(()) if kv is None else iter(((key, kv),))
    if range_end and range_end != b"\0" and range_end <= key:
        return iter(())
    return view.scan(key, range_end, revision)


class Deleted(NamedTuple):
    """What a delete removes: keys, in key order, or spans with the number of keys in each."""

    keys: list[bytes]
    ranges: list[tuple[bytes, bytes, int]]
    tail: bytes  # the response after its header

    def items(self) -> list[bytes]:
        """Its effect."""
        return [records.delete_range(*span) for span in self.ranges] + [records.delete(key) for key in self.keys]


_NOTHING_DELETED = Deleted([], [], b"")


def apply_delete(view: View, request: Any) -> Deleted:
    """A delete of one key or a range. One of many keys is not spelled out (D8): replicas find them by themselves."""
    key, range_end = request.key, request.range_end
    if not range_end and not request.prev_kv:
        if view.current(key) is None:
            return _NOTHING_DELETED
        return Deleted([key], [], b"\x10\x01")
    if range_end and not request.prev_kv and (range_end == b"\0" or key < range_end):
        count = view.count(key, range_end)
        if not count:
            return _NOTHING_DELETED
        spans = _spans(view, key, range_end) if count > MANY else None
        if spans is not None:
            return Deleted([], [(*span, view.count(*span)) for span in spans], b"\x10" + varint(count))
    rows = list(scan(view, key, range_end))
    if not rows:
        return _NOTHING_DELETED
    parts = [b"\x10", varint(len(rows))]
    if request.prev_kv:
        parts += [field(b"\x1a", kv) for _, kv in rows]
        spans = _spans(view, key, range_end) if len(rows) > MANY else None
        if spans is not None:
            return Deleted([], [(*span, view.count(*span)) for span in spans], b"".join(parts))
    return Deleted([row[0] for row in rows], [], b"".join(parts))


def _spans(view: View, key: bytes, range_end: bytes) -> list[Span] | None:
    """The parts of a range that a running transaction has not touched yet; None if it has written keys in it."""
    if not isinstance(view, Pending):
        return [(key, range_end)]
    return view.untouched((key, range_end))


def read_all(view: View, read: RangeRead) -> bytes:
    """A Range's whole response after the header, at ``read.revision``."""
    rows = scan(view, read.key, read.range_end, read.revision)
    if not read.feed(rows):
        return read.finish()
    read.add_count(sum(1 for _ in rows))
    return read.finish()


class _Plan:
    """A transaction with its branches chosen: the operations of the taken one, nested plans in their places."""

    __slots__ = ("ops", "succeeded")

    def __init__(self, view: View, request: Any) -> None:
        self.succeeded: bool = all(_holds(view, compare) for compare in request.compare)
        self.ops: list[tuple[str, Any]] = []
        for op in request.success if self.succeeded else request.failure:
            kind: str = op.WhichOneof("request")
            body = getattr(op, kind)
            self.ops.append((kind, _Plan(view, body) if kind == "request_txn" else body))

    def walk(self) -> Iterator[tuple[str, Any]]:
        """The operations, nested ones in their places."""
        for kind, body in self.ops:
            if isinstance(body, _Plan):
                yield from body.walk()
            else:
                yield kind, body


def _holds(view: View, compare: Any) -> bool:
    """One compare, on the state before the transaction."""
    key, range_end = compare.key, compare.range_end
    target = compare.target
    if target == _VALUE:
        found = False
        for _, kv in scan(view, key, range_end):
            found = True
            if not _matches(compare.result, Fields(kv).value, compare.value):
                return False
        return found  # a missing key has no value to compare with, not even an unequal one
    name = _TARGET_FIELD.get(target)
    if name is None:  # a target that etcd does not know compares equal
        return _matches(compare.result, 0, 0)
    given: int = getattr(compare, name)
    at = _TARGET_AT[target]
    if not range_end:
        return _matches(compare.result, (view.current(key) or _ABSENT)[at], given)
    found = False
    for _, kv in scan(view, key, range_end):
        found = True
        fields = Fields(kv)
        stored = (fields.create, fields.mod, fields.version, fields.lease)[at]
        if not _matches(compare.result, stored, given):
            return False
    return found or _matches(compare.result, 0, given)


def _matches(result: int, stored: Any, given: Any) -> bool:
    if result == 0:
        return bool(stored == given)
    if result == 1:
        return bool(stored > given)
    if result == 2:
        return bool(stored < given)
    if result == 3:
        return bool(stored != given)
    return True  # a result that etcd does not know always holds


def _check_put(view: View, request: Any) -> None:
    if (request.ignore_value or request.ignore_lease) and view.current(request.key) is None:
        raise EtcdError(errors.KEY_NOT_FOUND)
    if request.lease and not view.lease_exists(request.lease):
        raise EtcdError(errors.LEASE_NOT_FOUND)


def _check_range(view: View, request: Any) -> None:
    if request.revision:
        check_revision(view, request.revision)


def txn(view: View, request: Any) -> Outcome:
    """A transaction that passed its static checks."""
    plan = _Plan(view, request)
    for kind, body in plan.walk():
        if kind == "request_put":
            _check_put(view, body)
    for kind, body in plan.walk():
        if kind == "request_range":
            _check_range(view, body)
    pending = Pending(view)
    tail = _run(pending, plan)
    items = pending.items
    if not items:
        return Outcome(b"", False, tail, [], view.revision)
    item = items[0] if len(items) == 1 else records.txn(items)
    return Outcome(item, True, tail, pending.writes, pending.revision, pending.ranges)


def _run(pending: Pending, plan: _Plan) -> bytes:
    """Run the operations of a plan: the TxnResponse after its header."""
    parts: list[bytes] = [b"\x10\x01"] if plan.succeeded else []
    for kind, body in plan.ops:
        if kind == "request_put":
            item, version, tail = apply_put(pending, body, pending.revision)
            pending.write(body.key, version, item)
            tag = b"\x12"
        elif kind == "request_range":
            tail = read_all(pending, RangeRead(body))
            tag = b"\x0a"
        elif kind == "request_delete_range":
            deleted = apply_delete(pending, body)
            tail = deleted.tail
            for span in deleted.ranges:
                pending.delete(span[:2], records.delete_range(*span))
            for key in deleted.keys:
                pending.write(key, None, records.delete(key))
            tag = b"\x1a"
        else:
            parts.append(field(b"\x1a", field(b"\x22", _EMPTY_HEADER + _run(pending, body))))
            continue
        header = field(b"\x0a", b"\x18" + varint(pending.header_revision))
        parts.append(field(b"\x1a", field(tag, header + tail)))
    return b"".join(parts)
