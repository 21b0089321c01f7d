"""KV/RangeStream of etcd 3.7: one range of any size in chunks, all read at one revision. Nodes send on only
what the client takes (CREDIT, ``node.serving.streams``): a call costs this front at most a window for each
shard, a backlog (``proxy.grpc.calls.BACKLOG_BYTES``) and a part. So a connection has a share of them, and the
rest wait. Several shards' rows are merged by key as far as every shard that has not ended has sent its next
row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.faults import HANDLER_MISTAKES
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method
from cluster.wire.protobuf import varint
from proxy.routing.pieces import KEEP_S
from proxy.routing.router import MethodStats, Waiting
from proxy.routing.waiting import OK, PARTIAL
from proxy.services.refusing import refuse_range, shards_shown
from proxy.services.shares import Shares
from proxy.shared.context import Call, Context
from proxy.spanning.merged_ranges import RowGather, ending

SERVICE = "etcdserverpb.KV"
_CREDIT_BYTES = 256 * 1024  # reported in one record
_PART_BYTES = 512 * 1024
_LIMIT_S = 600.0  # without progress
_TURNS = 200  # of streams that waited, in a sweep


class RangeStream:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._stats = context.method("server_stream", SERVICE, "RangeStream")
        self._most = context.settings.max_connection_range_streams
        self._shares = Shares(self._most)
        # by connection, in the order of their turns
        self._waiting: dict[Any, dict[Call, WaitsForTurn]] = {}
        context.on_tick.append(self._tick)
        context.router.moved.anew[Method.RANGE_STREAM] = lambda waiting: self._begin(
            waiting.call, waiting.body)

    def opened(self, call: Call) -> None:
        self._stats.started += 1
        call.context = None

    def message(self, call: Call, data: bytes) -> None:
        context, stats = self._context, self._stats
        if call.closed or call.context is not None or context.no_leader(call, stats):
            return
        if call.connection not in self._waiting and self._shares.take(call):
            self._begin(call, data)
        elif not self._most:
            context.refuse(call, stats, errors.TOO_MANY_REQUESTS)
        else:
            call.connection.taken_on(call, len(data))
            call.context = WaitsForTurn(self, call, data, context.router.loop.time())
            self._waiting.setdefault(call.connection, {})[call] = call.context

    def _tick(self, now: float) -> None:
        """Streams that have ended make room for those that wait, connection after connection."""
        turns = _TURNS
        for connection in list(self._waiting):
            if not turns:
                return
            if (waiting := self._waiting.pop(connection, None)) is None:
                continue
            self._waiting[connection] = waiting  # behind the others next time
            while waiting and turns:
                one = next(iter(waiting.values()))
                late = now - one.since > self._context.router.limit_s
                if not late and not self._shares.take(one.call):
                    break
                turns -= 1
                self.forget(one.call)
                connection.answered(one.call)
                if late:
                    self._context.refuse(one.call, self._stats, errors.TOO_MANY_REQUESTS)
                    continue
                try:
                    self._begin(one.call, one.data)
                except HANDLER_MISTAKES as error:
                    one.call.fault(error)

    def forget(self, call: Call) -> None:
        """It waits no more."""
        waiting = self._waiting.get(call.connection)
        if waiting is not None and waiting.pop(call, None) is not None and not waiting:
            del self._waiting[call.connection]

    def gone(self, call: Call) -> None:
        self.forget(call)
        self._context.given_up(call, self._stats)

    def _begin(self, call: Call, data: bytes) -> None:
        context, stats = self._context, self._stats
        try:
            request = validate.parse_streamed(rpc_pb2.RangeRequest.FromString, data)
            _check(request)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if request.sort_target:  # without an order: by key, as etcd reads
            request.ClearField("sort_target")
            data = request.SerializeToString()
        try:
            shards = shards_shown(context, request)
        except EtcdError as e:
            call.context = Judged()
            refuse_range(context, request, call, stats, e)
            return
        if len(shards) == 1:
            call.context = Passing(context, call, stats)
            context.router.read(
                call, Method.RANGE_STREAM, data, shards[0], request.serializable, stats, call.context.answer)
        else:
            call.context = Merging(context, call, stats, request)
        call.on_drain = call.context.pump

    def half_closed(self, call: Call) -> None:
        if call.context is None and not call.closed:
            self._context.refuse_empty(call, self._stats)

    def cancelled(self, call: Call) -> None:
        if call.context is not None:
            call.context.cancel()
        else:
            self._context.given_up(call, self._stats)


@dataclass(slots=True, eq=False)
class WaitsForTurn:
    streams: RangeStream
    call: Call
    data: bytes
    since: float  # loop time

    def cancel(self) -> None:
        self.streams.gone(self.call)


class Judged:
    """Of a call that is refused, once it is known whether its client may read."""

    def cancel(self) -> None: ...


def _check(request: Any) -> None:
    """Refuse what etcd refuses, in its order: what is wrong, then what streams lack. EtcdError."""
    validate.check_range(request)
    if request.sort_order and (request.sort_order != rpc_pb2.RangeRequest.ASCEND or request.sort_target):
        raise EtcdError(errors.UNSUPPORTED_SORT)
    if (request.min_mod_revision or request.max_mod_revision or request.min_create_revision
            or request.max_create_revision):
        raise EtcdError(errors.UNSUPPORTED_FILTER)


def _send(call: Call, part: bytes, *more: bytes) -> None:
    size = len(part) + sum([len(p) for p in more])
    call.send(b"\x0a" + varint(size), part, *more)


@dataclass(slots=True, eq=False)
class Passing:
    context: Context
    call: Call
    stats: MethodStats
    _waiting: Waiting | None = None
    _received: int = 0
    _credited: int = 0

    def answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call, stats = self.call, self.stats
        if status == PARTIAL:
            self._waiting = waiting
            self._received += len(body)
            if len(body) == HEAD.size:  # a sign of life: it is not begun yet
                self.pump()
                return
            _set_going(waiting)
            _send(call, body[HEAD.size :])
            stats.sent += 1
            self.pump()
        elif status == OK:
            self._waiting = None
            _send(call, self.context.router.header(*HEAD.unpack_from(body)), body[HEAD.size :])
            call.finish()
            stats.sent += 1
            stats.ok += 1
        else:
            self._waiting = None
            self.context.refuse(call, stats, EtcdError.decode(body))

    def pump(self) -> None:
        if (self._waiting is not None and self._received - self._credited >= _CREDIT_BYTES
                and self.call.pending_bytes() <= self.call.backlog_bytes()):
            self._credited = self._received
            self.context.router.credit(self._waiting, self._received)

    def cancel(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self.context.router.cancel(waiting):  # else ``answer`` hears of it
            self.context.given_up(self.call, self.stats)


class Merging(RowGather):
    __slots__ = ("_begun", "_context", "_credited", "_told_at", "_waiting")

    def __init__(self, context: Context, call: Call, stats: MethodStats, request: Any) -> None:
        super().__init__(
            context.router, call, Method.STREAM_ROWS, request, context.placement, stats,
            partial(refuse_range, context, request))
        self._context = context
        self._begun = False
        self._told_at = 0.0
        self._waiting: dict[int, Waiting] = {}  # those that send parts, by place
        self._credited: dict[int, int] = {}
        self.start(max(request.revision, 0))

    def _read(self, order_index: int, latest: int, term: int) -> None:
        self._credited = {}
        super()._read(order_index, latest, term)

    def _came(self, waiting: Waiting, place: int, last: bool) -> None:
        if last:
            self._waiting.pop(place, None)
        else:
            if self._merge.rows:  # else it may be a sign of life
                _set_going(waiting)
            self._waiting[place] = waiting
        self.pump()

    def _refused(self, error: EtcdError) -> None:
        if self._begun:
            self._fail(error)  # the client has seen rows of this revision
        else:
            super()._refused(error)

    def pump(self) -> None:
        call, merge, stats = self._call, self._merge, self._stats
        if call is None or call.closed or not self._order:
            return
        while call.pending_bytes() <= call.backlog_bytes():
            runs: list[bytes] = []
            merge.take(runs, _PART_BYTES)
            ended = merge.ended
            if ended:
                _send(call, self._router.header(self._order, self._term), *runs,
                      ending(self._request, self._count, merge.rows))
                stats.sent += 1
                stats.ok += 1
                self._call = None
                self._abandon()  # a limit may be reached before shards have said all
                call.finish()
                return
            if not runs:
                break
            self._begun = True
            stats.sent += 1
            _send(call, b"".join(runs))
        now = self._router.loop.time()
        keep = self._begun and now - self._told_at > KEEP_S
        if keep:
            self._told_at = now
        for place, waiting in self._waiting.items():
            passed = merge.passed(place)
            # other shards' rows may delay this one's for long
            if keep or passed - self._credited.get(place, 0) >= _CREDIT_BYTES:
                self._credited[place] = passed
                self._router.credit(waiting, passed)

    def cancel(self) -> None:
        if self._call is not None:
            self._context.given_up(self._call, self._stats)
            self._call = None
            self._abandon()

    def _abandon(self) -> None:
        self._waiting = {}
        super()._abandon()


def _set_going(waiting: Waiting) -> None:
    """The first part has come: if its link breaks, the stream ends, as another replica would start again."""
    waiting.pieces = []
    waiting.limit_s = _LIMIT_S
