"""A transaction: compares on the state before it, then its operations in order, each seeing those before.

In etcd's order: all compares of the taken branches are decided on the state before the outermost transaction.
Then every put of the taken branches is checked against that state, then every range's revision. After that
only what is logged and not in the request can be too large: values that puts keep, and keys of deleted
ranges. A refused transaction leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import Fields, RangeRead
from cluster.evaluate.reading.rows import range_pieces, scan, some_rows, spend
from cluster.evaluate.spans import inverted
from cluster.evaluate.steps import STEP_BYTES, STEP_OPS, Steps, finish
from cluster.evaluate.txns.compares import RANGE_COST, Turn, Undrafted, holds
from cluster.evaluate.txns.pending import Pending
from cluster.evaluate.txns.plain_txn import Large, check_revision
from cluster.evaluate.view import Late, Outcome, Version, View
from cluster.grain import GRAIN
from cluster.placement.owned import Shown
from cluster.wire.protobuf import key_value, varint

Weigh = Callable[[bytes, bytes], int]  # how many keys a range has, about

_PIECE_BYTES = 4096  # smaller ones cost less to copy than to pass on
_EMPTY_HEADER = b"\x0a\x00"  # of a nested transaction's response


def field(tag: bytes, body: bytes) -> bytes:
    """A length-delimited field."""
    return tag + varint(len(body)) + body


def apply_put(view: View, request: Any, revision: int, shows: bool = True) -> tuple[bytes, Version, bytes]:
    """A put that passed its static and lease checks: ``(item, the new version, response after the header)``.
    ``shows``: else the response lacks the row before. KeyNotFound if it keeps the value or lease of a key
    that does not exist."""
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
        shows = shows and request.prev_kv
        if request.ignore_value or shows:
            before = view.get(key)
            assert before is not None, "a live key has a KeyValue"
            if request.ignore_value:
                value = Fields(before).value
    kv = key_value(key, create, revision, version, value, lease)
    item = records.put(key, named, version, value, lease)
    tail = field(b"\x12", before) if before is not None and shows else b""
    return item, Version(create, revision, version, lease, kv), tail


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

    def do(self, pending: Pending) -> None:
        """In the order of keys, as etcd tells them."""
        for start, end, count in sorted([*self.ranges, *((key, b"", 1) for key in self.keys)]):
            if end:
                pending.delete((start, end), records.delete_range(start, end, count))
            else:
                pending.write(start, None, records.delete(start))


_NOTHING_DELETED = Deleted([], [], 0)


def find_deleted(view: View, request: Any) -> Steps[Deleted]:
    """What a delete of one key or a range does. One of many keys, or of large rows, or among many keys that
    are gone, is not spelled out (D8): replicas find them."""
    key, range_end = request.key, request.range_end
    if not range_end:
        return _NOTHING_DELETED if view.current(key) is None else Deleted([key], [], 1)
    if range_end != b"\0" and range_end <= key:
        return _NOTHING_DELETED
    count = view.count(key, range_end)
    if not count:
        return _NOTHING_DELETED
    spelled = view.kept_bytes if isinstance(view, Pending) else 0
    keys = None if count > GRAIN.many_keys else _few_keys(view, key, range_end, GRAIN.delete_bytes - spelled)
    if keys is not None:
        return Deleted(keys, [], count)
    if not isinstance(view, Pending):
        return Deleted([], [(key, range_end, count)], count)
    spans = yield from view.untouched((key, range_end))
    return Deleted(view.put_in((key, range_end)), spans, count)


def _few_keys(view: View, key: bytes, range_end: bytes, left: int) -> list[bytes] | None:
    """The keys of a range; None where their rows take more than ``left`` bytes, or very many that are gone
    lie between them: no more are read."""
    keys = []
    for row in view.scan(key, range_end):
        left -= len(row[1])
        if left < 0 or not row[0]:  # PAUSE
            return None
        keys.append(row[0])
    return keys


def deleted_pieces(
    view: View, request: Any, deleted: Deleted, left: list[int] | None = None
) -> Steps[list[bytes]]:
    """The response after its header; the view is as it was before the delete. ``left``: see ``spend``."""
    pieces = [b"\x10" + varint(deleted.total)] if deleted.total else []
    if not (request.prev_kv and deleted.total):
        return pieces
    rows = scan(view, request.key, request.range_end)
    ended = False
    while not ended:
        some, ended = some_rows(rows)
        spend(left, some, ended)
        pieces.append(b"".join([field(b"\x1a", kv) for _, kv in some]))
        if not ended:
            yield
    return pieces


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


def _check_put(view: View, request: Any) -> None:
    if (request.ignore_value or request.ignore_lease) and view.current(request.key) is None:
        raise EtcdError(errors.KEY_NOT_FOUND)
    if request.lease and not view.lease_exists(request.lease):
        raise EtcdError(errors.LEASE_NOT_FOUND)


def _check_range(view: View, request: Any) -> None:
    if request.revision:
        check_revision(view, request.revision)


class DueAnswer(NamedTuple):
    """A late answer, now that its place is known."""

    late: Late
    before: int  # revision before the request
    revision: int  # for its header
    shown: Shown | None = None  # None: what a write at the next revision owns


def txn(view: View, request: Any, weigh: Weigh | None = None, turn: Turn | None = None) -> Outcome:
    """A transaction that passed its static checks. ``weigh``: how many keys a range has, about: an answer
    that shows very many rows, or large ones, is made late; None: no answer is. ``turn``: how much its range
    compares may look at (Unlooked); None: as much as they need."""
    plan = finish(plan_of(view, request, turn))
    if turn is not None and turn.drafts and _deletes_many(plan):
        raise Undrafted
    finish(check_plan(view, plan))
    late = weigh is not None and _shows_many(plan, weigh)
    pending = Pending(view)
    try:
        left = None if weigh is None else [GRAIN.late_bytes]
        pieces = finish(run_plan(pending, plan, shows=not late, known=False, left=left))
    except Large:
        late, pending = True, Pending(view)
        finish(run_plan(pending, plan, shows=False, known=False))
    outcome = pending.outcome(b"" if late else b"".join(pieces))
    if late:
        outcome.late = Late(lambda before: run_plan(Pending(before), plan, shows=True, known=True))
    return outcome


def read_txn(view: View, request: Any) -> Steps[list[bytes]]:
    """A transaction that changes nothing: its response after the header. The view must not change between
    steps."""
    plan = yield from plan_of(view, request)
    yield from check_plan(view, plan)
    return (yield from run_plan(Pending(view), plan, shows=True, known=False))


def delete_range(view: View, request: Any, weigh: Weigh | None = None) -> Outcome:
    """A DeleteRangeRequest that passed its static checks. ``weigh``: see :func:`txn`."""
    found = finish(find_deleted(view, request))
    late = weigh is not None and request.prev_kv and found.total > GRAIN.late_rows
    left = None if weigh is None or not request.range_end else [GRAIN.late_bytes]
    try:
        tail = b"" if late else b"".join(finish(deleted_pieces(view, request, found, left)))
    except Large:
        late, tail = True, b""
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
    """Whether the answer shows so many rows, or looks at so many, that it is not made in one go."""
    left = GRAIN.late_rows
    for kind, body in plan.walk():
        if (kind == "request_range" or (kind == "request_delete_range" and body.prev_kv)) and body.range_end:
            left -= RANGE_COST
            if left > 0 and not inverted((body.key, body.range_end)):
                left -= weigh(body.key, body.range_end)
            if left <= 0:
                return True
    return False


def _deletes_many(plan: Plan) -> bool:
    deletes = [body for kind, body in plan.walk() if kind == "request_delete_range" and body.range_end]
    return len(deletes) > GRAIN.turn_deletes


def run_plan(
    pending: Pending, plan: Plan, *, shows: bool, known: bool, left: list[int] | None = None
) -> Steps[list[bytes]]:
    """Run the operations of a plan: the TxnResponse after its header, in pieces. ``shows``: else rows are
    left out of it. ``known``: what its deletes do was found before. ``left``: see ``spend``."""
    pieces: list[bytes] = [b"\x10\x01"] if plan.succeeded else []
    read = 0  # bytes of rows in this step
    for place, (kind, body) in enumerate(plan.ops):
        if kind == "request_txn" or place % STEP_OPS == STEP_OPS - 1:
            yield
        if kind == "request_put":
            item, version, tail = apply_put(pending, body, pending.revision, shows)
            pending.write(body.key, version, item)
            if body.ignore_value:
                pending.keeps(len(item))
            if tail:
                spend(left, ((body.key, tail),))
                read += len(tail)
            tag, inner = b"\x12", [tail]
        elif kind == "request_range":
            tag, inner = b"\x0a", []
            if shows:
                inner = yield from range_pieces(pending, RangeRead(body), left)
                # many of few rows are many rows
                read += STEP_BYTES if body.range_end else sum(map(len, inner))
        elif kind == "request_delete_range":
            if not known:
                plan.deleted[place] = yield from find_deleted(pending, body)
                if body.range_end:
                    yield
            deleted = plan.deleted[place]
            tag, inner = b"\x1a", []
            if shows:
                inner = yield from deleted_pieces(pending, body, deleted, left)
                read += STEP_BYTES if body.prev_kv else 0
            deleted.do(pending)
            if body.range_end:
                pending.keeps(sum(map(len, deleted.keys)))
        else:
            nested = yield from run_plan(pending, body, shows=shows, known=known, left=left)
            pieces += _field(b"\x1a", _field(b"\x22", [_EMPTY_HEADER, *nested]))
            continue
        header = field(b"\x0a", b"\x18" + varint(pending.header_revision))
        pieces += _field(b"\x1a", _field(tag, [header, *inner]))
        if read >= STEP_BYTES:
            read = 0
            yield
    return pieces


def _field(tag: bytes, pieces: list[bytes]) -> list[bytes]:
    """A length-delimited field, in pieces where it is large."""
    size = sum(map(len, pieces))
    if size < _PIECE_BYTES:
        return [field(tag, b"".join(pieces))]
    return [tag + varint(size), *pieces]
