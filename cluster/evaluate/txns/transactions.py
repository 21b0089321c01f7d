"""A transaction: compares on the state before it, then its operations in order, each seeing those before.

In etcd's order: all compares of the taken branches are decided on the state before the outermost
transaction; then every put of the taken branches is checked against that state, then every range's
revision; nothing can fail after that, so a refused transaction leaves no trace.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.footprint import inverted
from cluster.evaluate.reading.ranges import Fields, RangeRead, Row
from cluster.evaluate.spans import Intervals, Span, keys_in
from cluster.evaluate.steps import STEP_OPS
from cluster.evaluate.steps import Steps as Steps
from cluster.evaluate.steps import finish as finish
from cluster.evaluate.txns.plain_txn import check_revision
from cluster.evaluate.view import Current, Outcome, Version, View
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import key_value, varint

Weigh = Callable[[bytes, bytes], int]  # how many keys a range has, about

_STEP_ROWS, _STEP_BYTES = 256, 256 << 10
_PIECE_BYTES = 4096  # smaller ones cost less to copy than to pass on
_RANGE_COST = 8  # of a range besides its rows, in rows
_EMPTY_HEADER = b"\x0a\x00"  # of a nested transaction's response

Compare = pb.Compare
_VERSION, _CREATE, _MOD, VALUE, _LEASE = 0, 1, 2, 3, 4  # Compare.CompareTarget
_TARGET_FIELD = {
    _VERSION: "version", _CREATE: "create_revision", _MOD: "mod_revision", VALUE: "value", _LEASE: "lease"}
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
        found = sum(
            [self.base.count(*piece) for piece in (self.deleted.without(span) if self.ranges else [span])]
        )
        for key in self._written_in(span):
            found += self.written[key] is not None
            found -= not self._deleted(key) and self.base.current(key) is not None
        return found

    def untouched(self, span: Span) -> list[Span] | None:
        """What of a range this transaction has not deleted yet; None if it has written single keys in it."""
        if self._written_in(span):
            return None
        return (
            [piece for piece in self.deleted.without(span) if self.base.count(*piece)]
            if self.ranges
            else [span]
        )

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
                yield key, kv  # a PAUSE, too
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

    def outcome(self, tail: bytes) -> Outcome:
        """What it has done; ``tail``: the response after its header."""
        items = self.items
        if not items:
            return Outcome(b"", False, tail, [], self.base.revision)
        item = items[0] if len(items) == 1 else records.txn(items)
        return Outcome(item, True, tail, self.writes, self.revision, self.ranges)

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
        assert create < revision or create >= records.PENDING_REVISION, (
            "no key is put twice in one transaction"
        )
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
    total: int

    def items(self) -> list[bytes]:
        """Its effect."""
        return [records.delete_range(*span) for span in self.ranges] + [
            records.delete(key) for key in self.keys
        ]


_NOTHING_DELETED = Deleted([], [], 0)


def find_deleted(view: View, request: Any) -> Deleted:
    """What a delete of one key or a range does. One of many keys is not spelled out (D8): replicas find them
    by themselves."""
    key, range_end = request.key, request.range_end
    if not range_end:
        return _NOTHING_DELETED if view.current(key) is None else Deleted([key], [], 1)
    if range_end != b"\0" and range_end <= key:
        return _NOTHING_DELETED
    count = view.count(key, range_end)
    if not count:
        return _NOTHING_DELETED
    spans = _spans(view, key, range_end) if count > GRAIN.many_keys else None
    if spans is not None:
        return Deleted([], [(*span, view.count(*span)) for span in spans], count)
    return Deleted([row[0] for row in view.scan(key, range_end) if row[0]], [], count)


def deleted_pieces(view: View, request: Any, deleted: Deleted) -> Steps[list[bytes]]:
    """The response after its header; the view is as it was before the delete."""
    pieces = [b"\x10" + varint(deleted.total)] if deleted.total else []
    if not (request.prev_kv and deleted.total):
        return pieces
    rows = scan(view, request.key, request.range_end)
    ended = False
    while not ended:
        some, ended = some_rows(rows)
        pieces.append(b"".join([field(b"\x1a", kv) for _, kv in some]))
        if not ended:
            yield
    return pieces


def _spans(view: View, key: bytes, range_end: bytes) -> list[Span] | None:
    """The parts of a range that a running transaction has not touched yet; None if it has written keys in
    it."""
    if not isinstance(view, Pending):
        return [(key, range_end)]
    return view.untouched((key, range_end))


def some_rows(rows: Iterator[Row]) -> tuple[list[Row], bool]:
    """The next rows, for one step; whether these are the last."""
    some: list[Row] = []
    size = 0
    for row in rows:
        if not row[0]:  # PAUSE
            return some, False
        some.append(row)
        size += len(row[1])
        if len(some) >= _STEP_ROWS or size >= _STEP_BYTES:
            return some, False
    return some, True


def range_pieces(view: View, read: RangeRead) -> Steps[list[bytes]]:
    """A Range's response after the header, at ``read.revision``."""
    rows = scan(view, read.key, read.range_end, read.revision)
    ended = False
    while not ended and not read.satisfied:
        some, ended = some_rows(rows)
        # a limited range needs the first of them, and the number of all
        read.add_count(len(some) - _fed(read, some))
        if not ended:
            yield
    while not ended:
        some, ended = some_rows(rows)
        read.add_count(len(some))
        if not ended:
            yield
    yield from read.ending()
    return read.take_parts()


def _fed(read: RangeRead, rows: list[Row]) -> int:
    before = read.count
    read.feed(rows)
    return read.count - before


def read_all(view: View, read: RangeRead) -> bytes:
    """A Range's whole response after the header, at ``read.revision``."""
    return b"".join(finish(range_pieces(view, read)))


class Plan:
    """A transaction with its branches chosen: the operations of the taken one, nested plans in their
    places."""

    __slots__ = ("deleted", "ops", "succeeded")

    def __init__(self, succeeded: bool) -> None:
        self.succeeded = succeeded
        self.ops: list[tuple[str, Any]] = []
        self.deleted: dict[int, Deleted] = {}  # what its deletes were found to do, by their places

    def walk(self) -> Iterator[tuple[str, Any]]:
        """The operations, nested ones in their places."""
        for kind, body in self.ops:
            if isinstance(body, Plan):
                yield from body.walk()
            else:
                yield kind, body


class Unlooked(Exception):
    """It takes too long for one turn: its range compares are looked at ahead (``range_compares``), or all of
    it is evaluated then (``draft``)."""


class Decided(Protocol):
    """Range compares that were looked at."""

    def holds(self, compare: Any, view: View) -> bool:
        """One of them. Unlooked: it has to be looked at, or again."""


class Turn:
    """What range compares may take where they are decided in one turn, as those of a transaction that writes
    are."""

    __slots__ = ("_left", "looked")

    def __init__(self, looked: Decided | None = None) -> None:
        """``looked``: they were looked at ahead, and what changed since, too."""
        self.looked = looked
        self._left = GRAIN.turn_rows

    def spend(self, rows: int) -> None:
        """So many more are looked at. Unlooked: too many."""
        self._left -= rows
        if self._left < 0:
            raise Unlooked


def plan_of(view: View, request: Any, turn: Turn | None = None) -> Steps[Plan]:
    """Its branches, chosen by its compares."""
    succeeded = True
    for compare in request.compare:
        if not (yield from holds(view, compare, turn)):
            succeeded = False
            break
    plan = Plan(succeeded)
    for place, op in enumerate(request.success if succeeded else request.failure, 1):
        kind: str = op.WhichOneof("request")
        body = getattr(op, kind)
        plan.ops.append((kind, (yield from plan_of(view, body, turn)) if kind == "request_txn" else body))
        if kind == "request_txn" or not place % STEP_OPS:
            yield
    return plan


def is_known(target: int) -> bool:
    """Whether etcd knows a compare's target: with another one it compares as equal."""
    return target in _TARGET_FIELD


def given_of(compare: Any) -> Any:
    """What a compare of a known target compares with."""
    return getattr(compare, _TARGET_FIELD[compare.target])


def holds(view: View, compare: Any, turn: Turn | None) -> Steps[bool]:
    """One compare, on the state before the transaction. ``turn``: see :func:`txn`."""
    key, range_end = compare.key, compare.range_end
    target = compare.target
    if not is_known(target):
        return matches(compare.result, 0, 0)
    given = given_of(compare)
    if not range_end and target != VALUE:
        return matches(compare.result, (view.current(key) or _ABSENT)[_TARGET_AT[target]], given)
    if turn is not None and range_end and not inverted((key, range_end)):
        if turn.looked is not None:
            return turn.looked.holds(compare, view)
        turn.spend(_RANGE_COST)
    else:
        turn = None
    rows = scan(view, key, range_end)
    found = ended = False
    while not ended:
        some, ended = some_rows(rows)
        for _, kv in some:
            found = True
            fields = Fields(kv)
            if target == VALUE:
                stored: Any = fields.value
            else:
                stored = (fields.create, fields.mod, fields.version, fields.lease)[_TARGET_AT[target]]
            if not matches(compare.result, stored, given):
                return False
        if turn is not None:
            turn.spend(
                len(some) if some or ended else GRAIN.turn_rows + 1
            )  # without a row, very many were passed over
        if not ended:
            yield
    # a missing key has no value to compare with, not even an unequal one
    return found or (target != VALUE and matches(compare.result, 0, given))


def matches(result: int, stored: Any, given: Any) -> bool:
    """Whether a compare's result is what it asks for."""
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


class Late:
    """The answer of a request that shows many rows: made beside the loop, out of the state before it.

    What the request did is logged and does not depend on the rows that it shows."""

    __slots__ = ("_run", "fetch")

    def __init__(self, run: Callable[[View], Steps[list[bytes]]]) -> None:
        self._run = run
        # brings the rows that lie elsewhere, and says then whether they are there; None: all are here
        self.fetch: Callable[[Callable[[bool], None]], None] | None = None

    def pieces(self, view: View) -> Steps[list[bytes]]:
        """The response after its header. ``view``: the applied state at the revision before the request."""
        return self._run(view)


class DueAnswer(NamedTuple):
    """A late answer, now that its place is known."""

    late: Late
    before: int  # revision before the request
    revision: int  # for its header


def txn(view: View, request: Any, weigh: Weigh | None = None, turn: Turn | None = None) -> Outcome:
    """A transaction that passed its static checks. ``weigh``: how many keys a range has, about: an answer
    that shows very many is made late; None: no answer is. ``turn``: what its range compares may take
    (Unlooked); None: as long as they do."""
    plan = finish(plan_of(view, request, turn))
    finish(check_plan(view, plan))
    late = weigh is not None and _shows_many(plan, weigh)
    pending = Pending(view)
    pieces = finish(run_plan(pending, plan, shows=not late, known=False))
    outcome = pending.outcome(b"" if late else b"".join(pieces))
    if late:
        outcome.late = Late(lambda before: run_plan(Pending(before), plan, shows=True, known=True))
    return outcome


def read_txn(view: View, request: Any) -> Steps[list[bytes]]:
    """A transaction that changes nothing: its response after the header. The view stays as it is between
    steps."""
    plan = yield from plan_of(view, request)
    yield from check_plan(view, plan)
    return (yield from run_plan(Pending(view), plan, shows=True, known=False))


def delete_range(view: View, request: Any, weigh: Weigh | None = None) -> Outcome:
    """A DeleteRangeRequest that passed its static checks. ``weigh``: see :func:`txn`."""
    found = find_deleted(view, request)
    late = weigh is not None and request.prev_kv and found.total > GRAIN.late_rows
    tail = b"" if late else b"".join(finish(deleted_pieces(view, request, found)))
    items = found.items()
    if not items:
        return Outcome(b"", False, tail, [], view.revision)
    item = items[0] if len(items) == 1 else records.txn(items)
    outcome = Outcome(item, True, tail, [(key, None) for key in found.keys], view.revision + 1,
                      [(key, end) for key, end, _ in found.ranges])
    if late:
        outcome.late = Late(lambda before: deleted_pieces(before, request, found))
    return outcome


def check_plan(view: View, plan: Plan) -> Steps[None]:
    """Whether its operations may be done. EtcdError."""
    for place, (kind, body) in enumerate(plan.walk(), 1):
        if kind == "request_put":
            _check_put(view, body)
        if not place % STEP_OPS:
            yield
    for place, (kind, body) in enumerate(plan.walk(), 1):
        if kind == "request_range":
            _check_range(view, body)
        if not place % STEP_OPS:
            yield


def _shows_many(plan: Plan, weigh: Weigh) -> bool:
    """Whether the answer shows so many rows, or needs so many looked at, that it is not made in one go."""
    left = GRAIN.late_rows
    for kind, body in plan.walk():
        if (kind == "request_range" or (kind == "request_delete_range" and body.prev_kv)) and body.range_end:
            left -= _RANGE_COST
            if left > 0 and not inverted((body.key, body.range_end)):
                left -= weigh(body.key, body.range_end)
            if left <= 0:
                return True
    return False


def run_plan(pending: Pending, plan: Plan, *, shows: bool, known: bool) -> Steps[list[bytes]]:
    """Run the operations of a plan: the TxnResponse after its header, in pieces. ``shows``: else the rows
    that it shows are left out. ``known``: what its deletes do was found before."""
    pieces: list[bytes] = [b"\x10\x01"] if plan.succeeded else []
    for place, (kind, body) in enumerate(plan.ops):
        if kind == "request_txn" or place % STEP_OPS == STEP_OPS - 1:
            yield
        if kind == "request_put":
            item, version, tail = apply_put(pending, body, pending.revision)
            pending.write(body.key, version, item)
            tag, inner = b"\x12", [tail]
        elif kind == "request_range":
            tag, inner = b"\x0a", []
            if shows:
                inner = yield from range_pieces(pending, RangeRead(body))
                if body.range_end:
                    yield  # many of few rows are many rows
        elif kind == "request_delete_range":
            if not known:
                plan.deleted[place] = find_deleted(pending, body)
            deleted = plan.deleted[place]
            tag, inner = b"\x1a", []
            if shows:
                inner = yield from deleted_pieces(pending, body, deleted)
                if body.prev_kv:
                    yield
            for span in deleted.ranges:
                pending.delete(span[:2], records.delete_range(*span))
            for key in deleted.keys:
                pending.write(key, None, records.delete(key))
        else:
            nested = yield from run_plan(pending, body, shows=shows, known=known)
            pieces += _field(b"\x1a", _field(b"\x22", [_EMPTY_HEADER, *nested]))
            continue
        header = field(b"\x0a", b"\x18" + varint(pending.header_revision))
        pieces += _field(b"\x1a", _field(tag, [header, *inner]))
    return pieces


def _field(tag: bytes, pieces: list[bytes]) -> list[bytes]:
    """A length-delimited field, in pieces where it is large."""
    size = sum(map(len, pieces))
    if size < _PIECE_BYTES:
        return [field(tag, b"".join(pieces))]
    return [tag + varint(size), *pieces]
