"""The speculative state of a shard other than 0, with unknown pending revisions (D6), and how a transaction's
answer is made again once they are known. What cannot be decided is an exception: see
``cluster.order.leading.shard_leader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.effects.records import PENDING_REVISION
from cluster.evaluate.overlay import LOOK, AppliedState, Overlay
from cluster.evaluate.spans import Intervals, Span
from cluster.evaluate.txns.plain_txn import GET, MOD, PUT, Plain
from cluster.evaluate.view import Current, Version
from cluster.order.prepare import Row

_CREATE, _MOD = 1, 2  # Compare.CompareTarget


class Blocked(Exception):
    """It must show or compare what is pending: run it again once that is applied."""


class Elsewhere(Exception):
    """Only the sequencer can decide: hand it over. Certainly not logged."""


class PendingOverlay(Overlay):
    __slots__ = ()

    def __init__(self, store: AppliedState) -> None:
        super().__init__(store)
        self.revision = PENDING_REVISION  # counts up: different pending effects stay different

    def get(self, key: bytes) -> bytes | None:
        """The live key's KeyValue; Blocked if it is pending."""
        pending = self._writes.get(key)
        if pending is None:
            return self._applied(key)
        if pending[1] is None:
            return None
        raise Blocked

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        """Live rows of a range; Blocked if any of it is pending, Elsewhere above the applied revision."""
        if revision:
            if revision > self._store.revision:
                raise Elsewhere
            return self._store.scan(start, end, revision, LOOK)
        if self.touches(start, end):
            raise Blocked
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

    def lease_exists(self, lease: int) -> bool:
        """True is safe, as a revoke locks every shard. Elsewhere: a missing lease may be unknown here."""
        if self._store.lease(lease) is None:
            raise Elsewhere
        return True


class Recorder:
    """Records what a transaction read, so that its answer can be made again at known revisions."""

    __slots__ = (
        "_base", "_counts", "_currents", "_gets", "_leases", "_scans", "compact_revision", "revision")

    def __init__(self, base: PendingOverlay) -> None:
        self._base: PendingOverlay | None = base
        self._currents: dict[bytes, Current | Version | None] = {}
        self._gets: dict[bytes, bytes | None] = {}
        self._counts: dict[tuple[bytes, bytes], int] = {}
        # what was read of each so far, and the rest
        self._scans: dict[tuple[bytes, bytes, int], tuple[list[Row], Iterator[Row]]] = {}
        self._leases: dict[int, bool] = {}
        self.revision = base.revision
        self.compact_revision = base.compact_revision

    def current(self, key: bytes) -> Current | Version | None:
        if key not in self._currents and self._base is not None:
            self._currents[key] = self._base.current(key)
        return self._currents[key]

    def get(self, key: bytes) -> bytes | None:
        if key not in self._gets and self._base is not None:
            self._gets[key] = self._base.get(key)
        return self._gets[key]

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        wanted = (start, end, revision)
        if wanted not in self._scans and self._base is not None:
            self._scans[wanted] = [], self._base.scan(start, end, revision)
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

    def replay(self, revision: int) -> Recorder:
        self._base = None
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


def shows_rows(request: Any) -> bool:
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range" or (kind == "request_put" and op.request_put.prev_kv) or (
            kind == "request_delete_range" and op.request_delete_range.prev_kv
        ) or (kind == "request_txn" and shows_rows(op.request_txn)):
            return True
    return False


def check_plain(view: PendingOverlay, plain: Plain) -> None:
    """As :func:`check_undecidable`, of a transaction of single keys."""
    applied = view.applied.revision
    for key, at, _, given in plain.compare:
        if at <= MOD and given > applied and view.touches(key, b""):  # type: ignore[operator]  # a number
            raise Blocked
    ops = plain.success + plain.failure
    if any(op[0] == GET for op in ops):
        for op in ops:
            if op[0] == PUT and view.touches(op[1], b""):
                raise Blocked
            if op[4] > applied and op[0] == GET:
                raise Elsewhere


def check_undecidable(view: PendingOverlay, request: Any, shows: bool) -> None:
    """Blocked for what a pending revision leaves open, Elsewhere for a range above the applied one, also an
    empty one, which nothing reads. ``shows``: whether its answer can hold KeyValues."""
    applied = view.applied.revision
    for compare in request.compare:
        given = compare.mod_revision if compare.target == _MOD else (
            compare.create_revision if compare.target == _CREATE else 0)
        if given > applied and view.touches(compare.key, compare.range_end):
            raise Blocked
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_put" and shows and view.touches(op.request_put.key, b""):
            raise Blocked  # a row read back would show a pending creation
        if kind == "request_range" and op.request_range.revision > applied:
            raise Elsewhere
        if kind == "request_txn":
            check_undecidable(view, op.request_txn, shows)
