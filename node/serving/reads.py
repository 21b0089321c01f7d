"""Reads of this replica: answered from its applied state once that is recent enough.

A read names the order index that it must reflect (from the sequencer's read index) or none (serializable).
What must wait is kept in a heap by index. Long reads (a range of many keys, a hash, history) run as
generators in slices (``node.slicing``), from one RocksDB snapshot: they never hold up an apply or a
heartbeat. The memory of one request is bounded by the
answers the front has to buffer: slices leave as PARTIAL records.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import MISTAKES, faults
from cluster.wire.messages import READ, Status
from node.links.fronts import FrontLink
from node.slicing.slicer import Slicer, Slices

log = structlog.get_logger("reads")


class HasTerm(Protocol):
    """What an answer's header says of Raft."""

    @property
    def term(self) -> int: ...


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
        """Serve whoever waited for ``applied`` or less; who gave up is dropped (the front has answered)."""
        heap = self._heap
        while heap and heap[0][0] <= applied:
            _, _, deadline, serve = heapq.heappop(heap)
            if now < deadline:
                serve()

    def sweep(self, now: float) -> None:
        """Drop those past their time limit."""
        if self._heap:
            self._heap = [w for w in self._heap if now < w[2]]
            heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)


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
        self._running: dict[tuple[bytes, int], bool] = {}  # long reads; whether they are cancelled

    def submit(
        self, link: FrontLink, rid: int, timeout_ms: int, body: bytes,
        serve: Callable[[FrontLink, int, int, bytes], Slices | None],
    ) -> None:
        """``serve(link, rid, revision, request)`` once the order index in ``body`` is applied."""
        min_index, revision = READ.unpack_from(body)
        request = body[READ.size :]
        if min_index <= self._applied_index():
            self._serve(link, rid, revision, request, serve)
            return
        deadline = self._loop.time() + timeout_ms / 1000
        if not self.waiting.add(
            min_index, deadline, lambda: self._serve(link, rid, revision, request, serve)
        ):
            self.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))

    def behind(self, body: bytes) -> bool:
        """Whether a read has to wait for what is not applied here."""
        return bool(READ.unpack_from(body)[0] > self._applied_index())

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
            self._running.pop(mark, None)  # before it is closed: what is parked by that may be started again
            work.close()
        if link.pending:
            self._mark_dirty(link)

    def cancel(self, link: FrontLink, rid: int) -> None:
        """Nobody waits for this read any more."""
        if (link.identity, rid) in self._running:
            self._running[link.identity, rid] = True

    def _fault(self, link: FrontLink, rid: int, error: Exception) -> None:
        """A read met a fault of this program: it is answered so, and nothing else ends."""
        faults.met("reading", error)
        self.refuse(link, rid, EtcdError(errors.INTERNAL_FAULT))

    def refuse(self, link: FrontLink, rid: int, error: EtcdError) -> None:
        """Answer with an error."""
        link.answer(rid, Status.ERROR, error.encode())
        self._mark_dirty(link)

    def sweep(self) -> None:
        """Once a second: forget who gave up."""
        self.waiting.sweep(self._loop.time())
