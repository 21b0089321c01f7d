"""Reads of this replica: answered from its applied state once that is recent enough.

A read names the order index that it must reflect (from the sequencer's read index) or none (serializable).
A read is answered only by a table of placement that has the same owners of what it asks for as the one its
front sent it by (G7). Else the front is told MOVED, or the read waits until this replica has its table.
Tables are the same only byte for byte: a forced start that dropped a change (decision 77) gives its number to
another one, which a front that outlives it does not know. Its reads wait until it goes by this replica's.

Long reads run as generators in slices (``node.slicing``), from one RocksDB snapshot, and never hold up an
apply or a heartbeat. Slices leave as PARTIAL records, so the memory of a request is bounded.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint
from cluster.faults import MISTAKES, faults
from cluster.features.auth.reads import Show
from cluster.placement import Table
from cluster.wire.messages import READ, Method, Status
from node.links.fronts import FrontLink
from node.slicing.slicer import Slicer, Slices
from node.storage import Compacted, FutureRevision, Reader, StateStore

_RANGES = frozenset(map(int, (Method.RANGE, Method.RANGE_STREAM, Method.RANGE_ROWS, Method.STREAM_ROWS)))
# each shard reports all that it owns; of questions about users, these go by keys
_WHOLE = frozenset(map(int, (Method.LEASE_KEYS, Method.HASH_KV)))
_BY_KEYS = frozenset(map(int, (Show.MAY_WATCH, Show.MAY_REVOKE, Show.MAY_LIST)))
Span = tuple[bytes, bytes]
_EVERYTHING: Sequence[Span] = ((b"\0", b"\0"),)


def reader_at(store: StateStore, revision: int) -> Reader:
    """``store.reader``; EtcdError in etcd's words if the revision cannot be read."""
    try:
        return store.reader(revision)
    except Compacted as e:
        raise EtcdError(errors.COMPACTED) from e
    except FutureRevision as e:
        raise EtcdError(errors.FUTURE_REV) from e


class Waiting:
    """Requests that wait for an applied order index."""

    __slots__ = ("_heap", "_serial", "limit")

    def __init__(self, limit: int) -> None:
        self._heap: list[tuple[int, int, float, Callable[[], None]]] = []
        self._serial = 0
        self.limit = limit

    def add(self, index: int, deadline: float, serve: Callable[[], None]) -> bool:
        """Run ``serve`` once ``index`` is applied; False if too many wait already."""
        if len(self._heap) >= self.limit:
            return False
        self._serial += 1
        heapq.heappush(self._heap, (index, self._serial, deadline, serve))
        return True

    def release(self, applied: int, now: float) -> None:
        """Serve what waited for ``applied`` or less and is within its time limit."""
        heap = self._heap
        while heap and heap[0][0] <= applied:
            _, _, deadline, serve = heapq.heappop(heap)
            if now < deadline:
                serve()

    def sweep(self, now: float) -> None:
        if self._heap:
            self._heap = [w for w in self._heap if now < w[2]]
            heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)


@dataclass(slots=True, eq=False)
class _Late:
    """A read that cannot be served at once. No function of its own: that would refer to itself, until the
    garbage collector comes."""

    reads: Reads
    link: FrontLink
    rid: int
    method: int
    revision: int
    request: bytes
    serve: Callable[[FrontLink, int, int, bytes], Slices | None]
    deadline: float
    table: Table | None  # that its front went by
    row: bytes  # the same (FrontLink.row)
    cancelled: bool = False

    def __call__(self) -> None:
        self.reads.serve_if_agreed(self)


class Reads:
    """Admission of reads: wait for the index, then serve, errors answered in one place."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, slicer: Slicer, mark_dirty: Callable[[FrontLink], None],
        applied_index: Callable[[], int], limit: int = 100_000,
    ) -> None:
        self._loop = loop
        self._slicer = slicer
        self._mark_dirty = mark_dirty
        self._applied_index = applied_index
        self.waiting = Waiting(limit)
        self.generation = 0  # of the table applied here; 0: no key has moved
        self._table: Table | None = None
        self._row = b""  # the table for fronts; empty: no key has moved
        self._early: list[_Late] = []  # reads by newer tables than that, or by others of its number
        self._late: dict[tuple[bytes, int], _Late] = {}  # reads that wait
        self._running: dict[tuple[bytes, int], bool] = {}  # long reads; whether they are cancelled
        #: What such a one has left behind is not awaited (``node.serving.streams.Streams.end``).
        self.on_cancelled: Callable[[FrontLink, int], None] = lambda link, rid: None

    def submit(
        self, link: FrontLink, rid: int, timeout_ms: int, body: bytes,
        serve: Callable[[FrontLink, int, int, bytes], Slices | None], method: int = 0,
    ) -> None:
        """``serve(link, rid, revision, request)`` once the order index in ``body`` is applied. ``method``: of
        a read of keys."""
        min_index, revision = READ.unpack_from(body)
        request = body[READ.size :]
        if min_index <= self._applied_index() and self._goes_by_this(link):
            self._serve(link, rid, revision, request, serve)
            return
        late = _Late(
            self, link, rid, method, revision, request, serve, self._loop.time() + timeout_ms / 1000,
            link.table, link.row)
        if min_index <= self._applied_index():
            late()
        elif self.waiting.add(min_index, late.deadline, late):
            self._late[link.identity, rid] = late
        else:
            self.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))

    def placed(self, table: Table) -> None:
        """A table is applied: before any read goes by it."""
        self._table, self.generation = table, table.moved
        self._row = table.encode() if table.moved else b""
        early, self._early = self._early, []
        for late in early:
            late()

    def told(self, link: FrontLink) -> None:
        """A front goes by another table. If that is this replica's, it asks again what came by others."""
        if not self._goes_by_this(link):
            return
        its = [late for late in self._early if late.link is link]
        if its:
            self._early = [late for late in self._early if late.link is not link]
        for late in its:
            late()

    def _goes_by_this(self, link: FrontLink) -> bool:
        """Whether a front goes by the table applied here."""
        if link.row is self._row:
            return True
        if link.row != self._row:
            return False
        link.row = self._row  # of its next reads the two need no look
        return True

    def serve_if_agreed(self, late: _Late) -> None:
        """G7: a read whose index is applied, unless its front sent it by a table with other owners."""
        if late.cancelled:
            return
        self._late.pop((late.link.identity, late.rid), None)
        if self._agrees(late):
            self._serve(late.link, late.rid, late.revision, late.request, late.serve)

    def _agrees(self, late: _Late) -> bool:
        link, rid, table = late.link, late.rid, late.table
        generation = 0 if table is None else table.moved
        mine = self._table
        if late.row == self._row or not link.alive:
            return True
        if mine is None and table is not None:  # none was applied since the start: that of the beginning
            mine = Table.initial(table.base)
        if mine is None or agree(mine, table, late.method, late.request):
            return True
        if generation < self.generation or self._goes_by_this(link):
            link.answer(rid, Status.MOVED, self._row or mine.encode())
            self._mark_dirty(link)
        elif len(self._early) >= self.waiting.limit:
            self.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
        else:
            self._early.append(late)
            self._late[link.identity, rid] = late
        return False

    @property
    def running(self) -> int:
        """Long reads, parked ones apart."""
        return len(self._running)

    def waits(self, link: FrontLink, body: bytes) -> bool:
        """Whether a read may have to wait for what is not applied here: an entry, or its front's table."""
        return bool(READ.unpack_from(body)[0] > self._applied_index()) or not self._goes_by_this(link)

    def _serve(
        self, link: FrontLink, rid: int, revision: int, request: bytes,
        serve: Callable[[FrontLink, int, int, bytes], Slices | None],
    ) -> None:
        try:
            work = serve(link, rid, revision, request)
        except EtcdError as e:
            self.refuse(link, rid, e)
            return
        except MISTAKES as error:
            self._fault(link, rid, error)
            return
        if link.pending:
            self._mark_dirty(link)
        if work is not None:
            self.start(link, rid, work)

    def start(self, link: FrontLink, rid: int, work: Slices, part: bool = False) -> None:
        """Long work for a request of a front. ``part``: see :meth:`Slicer.start`."""
        self._running[link.identity, rid] = False
        self._slicer.start(self._guarded(link, rid, work), part)

    def _guarded(self, link: FrontLink, rid: int, work: Slices) -> Slices:
        """Long work ends when its front is gone or cancels, and its errors become answers."""
        mark = (link.identity, rid)
        try:
            for _ in work:
                if not link.alive or self._running.get(mark):
                    return
                if link.pending:
                    self._mark_dirty(link)
                yield
        except EtcdError as e:
            self.refuse(link, rid, e)
        except MISTAKES as error:
            self._fault(link, rid, error)
        finally:
            cancelled = self._running.pop(mark, False)
            work.close()  # what is parked by that may have been started again
            if cancelled:
                self.cancel(link, rid)
                self.on_cancelled(link, rid)
        if link.pending:
            self._mark_dirty(link)

    def cancel(self, link: FrontLink, rid: int) -> None:
        mark = (link.identity, rid)
        if mark in self._running:
            self._running[mark] = True
        elif (late := self._late.pop(mark, None)) is not None:
            late.cancelled = True

    def _fault(self, link: FrontLink, rid: int, error: Exception) -> None:
        """A read met a fault of this program: only that read ends."""
        faults.met("reading", error)
        self.refuse(link, rid, EtcdError(errors.INTERNAL_FAULT))

    def refuse(self, link: FrontLink, rid: int, error: EtcdError) -> None:
        link.answer(rid, Status.ERROR, error.encode())
        self._mark_dirty(link)

    def sweep(self) -> None:
        now = self._loop.time()
        self.waiting.sweep(now)
        self._early = [late for late in self._early if now < late.deadline]
        for mark, late in [pair for pair in self._late.items() if now >= pair[1].deadline]:
            del self._late[mark]
            late.cancelled = True
            if late.link.alive:  # a front waits longer for a hash
                self.refuse(late.link, late.rid, EtcdError(errors.TIMEOUT))


def agree(mine: Table, theirs: Table | None, method: int, request: bytes) -> bool:
    """``theirs`` None: the table of the beginning."""
    other = Table.initial(mine.base) if theirs is None else theirs
    return all(mine.agrees(other, *span) for span in _spans(method, request))


def _spans(method: int, request: bytes) -> Sequence[Span]:
    if method in _WHOLE or (method == Method.AUTH_SHOW and request and request[0] in _BY_KEYS):
        return _EVERYTHING
    if method != Method.READ_TXN and method not in _RANGES:
        return ()
    try:
        return footprint(Method.RANGE if method in _RANGES else method, request).reads
    except EtcdError:
        return ()  # it is refused in its turn
