"""The speculative state of a shard other than 0, with unknown pending revisions (D6), and how a transaction's
answer is made again once they are known. What cannot be decided is an exception: see
``cluster.order.leading.shard_leader``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cluster.effects.records import PENDING_REVISION
from cluster.evaluate.overlay import LOOK, AppliedState, Overlay
from cluster.evaluate.reading.rows import merged
from cluster.evaluate.spans import Intervals, Span
from cluster.evaluate.txns.plain_txn import GET, MOD, PUT, Plain
from cluster.evaluate.view import Current, Version, version_of
from cluster.order.leading.bound import Bound, pending_row
from cluster.order.prepare import Row

_CREATE, _MOD = 1, 2  # Compare.CompareTarget


class Blocked(Exception):
    """It must compare what is pending, or the like: run it again once that is applied."""


class ShowsPending(Blocked):
    """It shows what is pending: run it on :class:`Rows`, or on a :class:`Recorder`."""


class Elsewhere(Exception):
    """Only the sequencer can decide: hand it over. Certainly not logged."""


class PendingOverlay(Overlay):
    __slots__ = ()

    def __init__(self, store: AppliedState) -> None:
        super().__init__(store)
        self.revision = PENDING_REVISION  # counts up: different pending effects stay different

    def get(self, key: bytes) -> bytes | None:
        """The live key's KeyValue; ShowsPending if it is pending."""
        pending = self._writes.get(key)
        if pending is not None and pending[1] is not None:
            raise ShowsPending
        return self.row(key)

    def row(self, key: bytes) -> bytes | None:
        """As :meth:`get`; what is pending has its pending revisions."""
        pending = self._writes.get(key)
        if pending is None:
            return self._applied(key)
        if pending[1] is None:
            return None
        row = pending_row(key, pending[1])
        self.read += len(row)
        return row

    def rows(self, start: bytes, end: bytes) -> Iterator[Row]:
        """As :meth:`scan` of what is live; what is pending has its pending revisions."""
        rows, keys = self._rows(start, end), self.written_in((start, end))
        if not keys:
            return rows
        writes = self._writes

        def written(key: bytes) -> Version | None:
            version = writes[key][1]
            if version is None:
                return None
            row = pending_row(key, version)
            self.read += len(row)
            return version_of((*version[:4], row))

        return merged(rows, keys, written)

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        """Live rows of a range; ShowsPending if any is pending, Elsewhere above the applied revision."""
        if revision:
            if revision > self._store.revision:
                raise Elsewhere
            return self._store.scan(start, end, revision, LOOK)
        if self.touches(start, end):
            raise ShowsPending
        return self._store.scan(start, end, 0, LOOK)

    def changing(self, span: Span) -> Sequence[bytes]:
        if self.touches(*span):
            raise Blocked
        return ()

    def count(self, start: bytes, end: bytes) -> int:
        """How many live keys a range has; Blocked if any of it is pending."""
        if self.touches(start, end):
            raise Blocked
        return self._store.live_count(start, end)

    def weigh(self, start: bytes, end: bytes) -> int:
        """How many keys a range has, about."""
        return self._store.live_count(start, end) + len(self.written_in((start, end)))

    def settled(self, around: Span | None, spans: Intervals) -> None:
        """As of :class:`Overlay`; but Blocked, not NotYet."""
        if self._deletes(around, spans):
            raise Blocked

    def touches(self, start: bytes, end: bytes) -> bool:
        if self._ranges and self._gone.meets((start, end)):
            return True
        writes = self._writes
        if not writes:
            return False
        if end == b"":
            return start in writes
        return bool(self.written_in((start, end)))

    def applied_batch(self, batch: int, keys: Iterable[bytes], last: int, bound: Bound) -> None:
        """As :meth:`forget`; ``last``: the pending revision of its last change. A key that a later batch
        wrote has a known creation from now on: however long it is hot, nothing old is asked of ``bound``."""
        writes = self._writes
        for key in keys:
            pending = writes.get(key)
            if pending is None:
                continue
            number, version = pending
            if number <= batch:
                del writes[key]
            elif version is not None and PENDING_REVISION < version[0] <= last:
                writes[key] = number, version_of((bound.known(version[0]), *version[1:]))
        self.forget(batch, (), ())

    def lease_exists(self, lease: int) -> bool:
        """True is safe, as a revoke locks every shard. Elsewhere: a missing lease may be unknown here."""
        if self._store.lease(lease) is None:
            raise Elsewhere
        return True


class Rows:
    """The same state; rows that are pending have their pending revisions."""

    __slots__ = (
        "compact_revision", "count", "current", "get", "lease_exists", "lease_keys", "revision", "scan")

    def __init__(self, base: PendingOverlay) -> None:
        self.revision, self.compact_revision = base.revision, base.compact_revision
        self.current, self.get, self.scan, self.count = base.current, base.row, base.scan, base.count
        self.lease_exists, self.lease_keys = base.lease_exists, base.lease_keys


class Recorder:
    """Records what a transaction read, so that its answer can be made again at known revisions."""

    __slots__ = (
        "_base", "_counts", "_currents", "_gets", "_leases", "_pending", "_scans", "compact_revision",
        "revision")

    def __init__(self, base: PendingOverlay) -> None:
        self._base: PendingOverlay | None = base
        self._currents: dict[bytes, Current | Version | None] = {}
        self._gets: dict[bytes, bytes | None] = {}
        self._counts: dict[tuple[bytes, bytes], int] = {}
        # what was read of each so far, and the rest
        self._scans: dict[tuple[bytes, bytes, int], tuple[list[Row], Iterator[Row]]] = {}
        self._pending: set[tuple[bytes, bytes, int]] = set()  # of these, those with rows that are pending
        self._leases: dict[int, bool] = {}
        self.revision = base.revision
        self.compact_revision = base.compact_revision

    def current(self, key: bytes) -> Current | Version | None:
        if key not in self._currents and self._base is not None:
            self._currents[key] = self._base.current(key)
        return self._currents[key]

    def get(self, key: bytes) -> bytes | None:
        if key not in self._gets and self._base is not None:
            self._gets[key] = self._base.row(key)
        return self._gets[key]

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        wanted = (start, end, revision)
        if wanted not in self._scans and self._base is not None:
            base = self._base
            if not revision and base.touches(start, end):
                self._pending.add(wanted)
                self._scans[wanted] = [], base.rows(start, end)
            else:
                self._scans[wanted] = [], base.scan(start, end, revision)
        return _recorded(*self._scans[wanted])

    def count(self, start: bytes, end: bytes) -> int:
        if (start, end) not in self._counts and self._base is not None:
            self._counts[start, end] = self._base.count(start, end)
        return self._counts[start, end]

    def lease_exists(self, lease: int) -> bool:
        if lease not in self._leases and self._base is not None:
            self._leases[lease] = self._base.lease_exists(lease)
        return self._leases[lease]

    def lease_keys(self, lease: int) -> list[bytes]:
        raise NotImplementedError("a transaction revokes no lease")

    def replay(self, revision: int, bound: Bound) -> Recorder:
        """The same at known revisions; its own is the one after ``revision``."""
        self._base = None
        row = bound.row
        self._currents = {key: bound.current(current) for key, current in self._currents.items()}
        self._gets = {key: row(kv) for key, kv in self._gets.items()}
        for wanted in self._pending:
            rows, _ = self._scans[wanted]
            rows[:] = [(key, row(kv) or b"") for key, kv in rows]
        self._scans = {wanted: (rows, iter(())) for wanted, (rows, _) in self._scans.items()}
        self.revision = revision
        return self


def _recorded(rows: list[Row], rest: Iterator[Row]) -> Iterator[Row]:
    at = 0
    while True:
        if at == len(rows):
            row = next(rest, None)
            if row is None:
                return
            rows.append(row)
        yield rows[at]
        at += 1


def check_plain(view: PendingOverlay, plain: Plain) -> bool:
    """As :func:`check_undecidable`, of a transaction of single keys; whether it may read back a put of
    its own to a pending key."""
    applied = view.applied.revision
    for key, at, _, given in plain.compare:
        if at <= MOD and given > applied and view.touches(key, b""):  # type: ignore[operator]  # a number
            raise Blocked
    ops = plain.success + plain.failure
    if not any(op[0] == GET for op in ops):
        return False
    if any(op[4] > applied and op[0] == GET for op in ops):
        raise Elsewhere
    return any(op[0] == PUT and view.touches(op[1], b"") for op in ops)


def check_undecidable(view: PendingOverlay, request: Any) -> None:
    """Blocked for what a pending revision leaves open, Elsewhere for a range above the applied one, also an
    empty one, which nothing reads. Elsewhere also for a range of the past: its rows may be very many, and the
    sequencer has them pinned, where a turn would read them all."""
    applied = view.applied.revision
    for compare in request.compare:
        given = compare.mod_revision if compare.target == _MOD else (
            compare.create_revision if compare.target == _CREATE else 0)
        if given > applied and view.touches(compare.key, compare.range_end):
            raise Blocked
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            range_ = op.request_range
            if range_.revision > applied or (range_.range_end and range_.revision > 0):
                raise Elsewhere
            given = max(range_.min_mod_revision, range_.max_mod_revision,
                        range_.min_create_revision, range_.max_create_revision)
            if given > applied and view.touches(range_.key, range_.range_end):
                raise Blocked  # it may pass over rows that it takes now
        elif kind == "request_txn":
            check_undecidable(view, op.request_txn)
