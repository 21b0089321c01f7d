"""KV/RangeStream of etcd 3.7: one range of any size in chunks, all of them read at one revision. The last chunk
carries the header, ``more`` and ``count``.

Nodes send on only what the client takes (CREDIT, ``node.streams``), so that a call costs this front at most a window
for each shard, :data:`BACKLOG_BYTES` and a part, however large the range is and however slowly it is read. With several
shards their rows are merged by key as they come, as far as every shard that has not ended has shown its next row.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heapreplace
from typing import Any

from cluster import errors, validate
from cluster.errors import EtcdError
from cluster.messages import HEAD, Method
from cluster.pb import rpc_pb2
from cluster.ranges import RangeRead, Row
from cluster.wire import varint
from proxy.router import MethodStats, Waiting
from proxy.services.context import Call, Context
from proxy.spanning import Gather, range_requests, range_rows

SERVICE = "etcdserverpb.KV"
BACKLOG_BYTES = 1 << 20  # not taken by the client yet: nodes are asked for more only below it
_CREDIT_BYTES = 256 * 1024  # news of so much is worth a record
_PART_BYTES = 512 * 1024
_LIMIT_S = 600.0  # without a byte of progress: from the first part on the client sets the pace
_OK, _PARTIAL = 0, 4


class RangeStream:
    """The method's handler."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stats = context.method("server_stream", SERVICE, "RangeStream")

    def opened(self, call: Call) -> None:
        """A call has begun; its request follows."""
        self._stats.started += 1
        call.context = None

    def message(self, call: Call, data: bytes) -> None:
        """The request."""
        context, stats = self._context, self._stats
        if call.context is not None or context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.RangeRequest.FromString, data)
            if request.sort_order not in (0, 1) or request.sort_target != 0:
                raise EtcdError(errors.UNSUPPORTED_SORT)
            if (request.min_mod_revision or request.max_mod_revision or request.min_create_revision
                    or request.max_create_revision):
                raise EtcdError(errors.UNSUPPORTED_FILTER)
            validate.check_range(request)
            shards = context.placement.shards_of(request.key, request.range_end)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if len(shards) == 1:
            call.context = Passing(context, call, stats)
            context.router.read(
                call, Method.RANGE_STREAM, data, shards[0], request.serializable, stats, call.context.answer)
        else:
            call.context = Merging(context, call, stats, request, shards)
        call.on_drain = call.context.pump

    def half_closed(self, call: Call) -> None:
        """The client has said all it will."""

    def cancelled(self, call: Call) -> None:
        """The client has gone."""
        if call.context is not None:
            call.context.cancel()


def _send(call: Call, part: bytes, *more: bytes) -> None:
    """RangeStreamResponse in wire form, as one message."""
    size = len(part) + sum([len(p) for p in more])
    call.send(b"\x0a" + varint(size), part, *more)


class Passing:
    """A range in one shard: its parts go on as they come."""

    __slots__ = ("_call", "_context", "_credited", "_received", "_stats", "_waiting")

    def __init__(self, context: Context, call: Call, stats: MethodStats) -> None:
        self._context = context
        self._call = call
        self._stats = stats
        self._waiting: Waiting | None = None
        self._received = 0
        self._credited = 0

    def answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        """The node's answers."""
        call, stats = self._call, self._stats
        if status == _PARTIAL:
            _set_going(waiting)
            self._waiting = waiting
            self._received += len(body)
            _send(call, body[HEAD.size :])
            stats.sent += 1
            self.pump()
        elif status == _OK:
            self._waiting = None
            _send(call, self._context.router.header(*HEAD.unpack_from(body)), body[HEAD.size :])
            call.finish()
            stats.sent += 1
            stats.ok += 1
        else:
            self._waiting = None
            _refuse(self._context, call, stats, EtcdError.decode(body))

    def pump(self) -> None:
        """The client has taken something, or something has come: ask for more if there is room."""
        if (self._waiting is not None and self._received - self._credited >= _CREDIT_BYTES
                and self._call.pending_bytes() <= BACKLOG_BYTES):
            self._credited = self._received
            self._context.router.credit(self._waiting, self._received)

    def cancel(self) -> None:
        """The client has gone."""
        if self._waiting is not None:
            self._context.router.cancel(self._waiting)
            self._stats.failed(errors.CONTEXT_CANCELED.code)
            self._waiting = None


class _Source:
    """One shard's rows on their way."""

    __slots__ = ("count", "credited", "done", "marks", "passed", "rows", "waiting")

    def __init__(self) -> None:
        self.rows: deque[Row] = deque()
        self.marks: deque[list[int]] = deque()  # of each part that is not passed on wholly: rows left, its size
        self.passed = 0
        self.credited = 0
        self.count = 0
        self.done = False
        self.waiting: Waiting | None = None


class Merging(Gather):
    """A range over several shards, merged as it comes."""

    __slots__ = ("_begun", "_context", "_read_of", "_request", "_sources")

    def __init__(self, context: Context, call: Call, stats: MethodStats, request: Any, shards: tuple[int, ...]) -> None:
        super().__init__(context.router, call, Method.RANGE_STREAM, range_requests(request, shards), request.serializable,
                         stats, _unused, context.refuse)
        self._context = context
        self._request = request
        self._begun = False
        self._read_of = RangeRead(request)
        self._sources: dict[int, _Source] = {}
        self.start(max(request.revision, 0))

    def _read(self, order_index: int, latest: int, term: int) -> None:
        self._sources = {s: _Source() for s in self.shards}
        super()._read(order_index, latest, term)

    def _part(self, waiting: Waiting, status: int, body: bytes) -> None:
        call = self._call
        if call is None or call.closed or waiting.context[0] != self._tries:
            if status == _PARTIAL:
                self._router.cancel(waiting)
            return
        if status not in (_OK, _PARTIAL):
            self._refused(EtcdError.decode(body))
            return
        source = self._sources[waiting.shard]
        rows, count = range_rows(body[HEAD.size :])
        source.rows += rows
        if status == _PARTIAL:
            _set_going(waiting)
            source.waiting = waiting
            if rows:
                source.marks.append([len(rows), len(body)])
            else:
                source.passed += len(body)
        else:
            source.waiting = None
            source.done = True
            source.count = count
            source.marks.append([len(rows) + 1, 0])
        self.pump()

    def _refused(self, error: EtcdError) -> None:
        if self._begun:
            self._fail(error)  # the client has seen rows of this revision
        else:
            super()._refused(error)

    def pump(self) -> None:
        """Send on what is in order, as far as the client takes it."""
        call = self._call
        if call is None or call.closed or not self._sources:
            return
        sources, read = self._sources.values(), self._read_of
        while call.pending_bytes() <= BACKLOG_BYTES:
            ended = self._merge()
            if ended:
                read.add_count(sum([s.count for s in sources]) - read.count)
                _send(call, self._router.header(self._order, self._term), read.finish())
                self._stats.sent += 1
                self._stats.ok += 1
                self._call = None
                call.finish()
                return
            part = read.take()
            if not part:
                break
            self._begun = True
            self._stats.sent += 1
            _send(call, part)
        for source in sources:
            if source.waiting is not None and source.passed - source.credited >= _CREDIT_BYTES:
                source.credited = source.passed
                self._router.credit(source.waiting, source.passed)

    def _merge(self) -> bool:
        """Give the answer its next rows, about a part of them. True if there are no more."""
        heap = []
        for shard, source in self._sources.items():
            if source.rows:
                heap.append((source.rows[0][0], shard))
            elif not source.done:
                return False  # its next row may come before the others'
        heapify(heap)
        size = 0
        while heap and size < _PART_BYTES:
            shard = heap[0][1]
            source = self._sources[shard]
            row = source.rows.popleft()
            self._read_of.feed((row,))
            size += len(row[1])
            mark = source.marks[0]
            mark[0] -= 1
            if not mark[0]:
                source.passed += mark[1]
                source.marks.popleft()
            if source.rows:
                heapreplace(heap, (source.rows[0][0], shard))
            elif source.done:
                heappop(heap)
            else:
                return False
        return not heap

    def _fail(self, error: EtcdError) -> None:
        self._abandon()
        super()._fail(error)

    def cancel(self) -> None:
        """The client has gone."""
        if self._call is not None:
            self._call = None
            self._abandon()
            self._stats.failed(errors.CONTEXT_CANCELED.code)

    def _abandon(self) -> None:
        for source in self._sources.values():
            if source.waiting is not None:
                self._router.cancel(source.waiting)
                source.waiting = None


def _set_going(waiting: Waiting) -> None:
    """The first part has come: a link that breaks now ends the stream, for another replica would begin again."""
    waiting.pieces = []
    waiting.limit_s = _LIMIT_S


def _refuse(context: Context, call: Call, stats: MethodStats, error: EtcdError) -> None:
    if call.closed:
        stats.failed(error.code)
    else:
        context.refuse(call, stats, error)


def _unused(call: Any, revision: int, term: int, answer: bytes) -> None:
    raise AssertionError("a merged range answers by itself")
