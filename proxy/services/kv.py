"""etcdserverpb.KV. Hot path: with one shard a put is only checked to begin with a key; a read of one key is
not parsed, either. Other ranges are parsed once, for ``serializable``. ``plain_txn`` reads transactions of
single keys. The leader or the replica evaluates a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import plain_put, validate
from cluster.evaluate.footprint import compares_ranges, is_read_only, is_serializable
from cluster.evaluate.reading.ranges import RangeRead, plain_get
from cluster.evaluate.steps import STEP_OPS, Steps
from cluster.evaluate.txns import plain_txn
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from cluster.wire.messages import HEAD, LONE_HEAD, Method, Status
from proxy.grpc.registry import CLIENT_VERSION
from proxy.routing.reads.applied import when_removed
from proxy.routing.router import MethodStats, Waiting
from proxy.services.cluster import not_for_learners
from proxy.services.range_stream import SERVICE, RangeStream
from proxy.services.refusing import refuse_range, shards_shown
from proxy.shared.context import Call, Context, Registry, Serve, UnaryHandler
from proxy.spanning import range_txns
from proxy.spanning.gather import Gather, InPieces, range_requests
from proxy.spanning.merged_ranges import MergedRange
from proxy.spanning.read_txns import is_read, read_txn
from proxy.spanning.sorted_ranges import bytes_of, range_pieces

Message = Any  # generated classes are made at run time
WIDE = -1  # in the place of a shard: several
_LONG_BYTES = 4096  # of a transaction that is checked in later turns alone: some 500 operations
_LONG_SHIFT = 8  # a unit of work (``proxy.http.http2.connection``) parses some 256 bytes
_FEW_OPS = 8  # more, of a plain transaction, count as work
_LONE_BYTES = 16 << 10  # of a lone put by the sequencer's way: larger ones would delay its log
_PHYSICAL_LIMIT_S = 3600.0  # of a physical compaction in order; etcd's member has no limit


def register(registry: Registry, context: Context) -> None:
    for method, make in (("Put", _put), ("Range", _range), ("DeleteRange", _delete_range), ("Txn", _txn)):
        registry.unary(f"/{SERVICE}/{method}", make(context))
    context.unary(registry, SERVICE, "Compact", rpc_pb2.CompactionRequest, _compact(context))
    registry.stream(f"/{SERVICE}/RangeStream", RangeStream(context))


def _put(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Put")
    router, placement = context.router, context.placement
    limit = context.most_logged_bytes
    shard_of = context.placement.shard_of
    parse = rpc_pb2.PutRequest.FromString
    shard0 = router.routes[0]

    def put(call: Call, data: bytes) -> None:
        stats.started += 1
        if shard0.leader_link is None and context.no_leader(call, stats):
            return
        # every encoder writes the key first; others are parsed, and so are judged ones: a malformed request
        # is refused as such, whatever its permissions
        if (
            placement.one
            and 2 < len(data) <= limit
            and data[0] == 0x0A
            and data[1]
            and not router.principals.enabled
        ):
            router.write(call, Method.PUT, data, 0, stats)
            return
        key = plain_put.key_of(data)
        if key is None or len(data) > limit:
            try:
                request = validate.parse(parse, data)
                validate.check_put(request)
                if len(data) > limit:
                    raise EtcdError(errors.REQUEST_TOO_LARGE)
            except EtcdError as e:
                context.refuse(call, stats, e)
                return
            key = request.key
        if placement.one:
            router.write(call, Method.PUT, data, 0, stats)
            return
        shard = shard_of(key)
        # judged by keys of all shards. The shard's leader says so if it knows of users before this front
        if router.principals.enabled and parse(data).lease:
            router.wide(call, Method.PUT, data, stats)
            return
        if shard and len(data) <= _LONE_BYTES and router.lone():
            router.write(call, Method.LONE, LONE_HEAD.pack(shard) + data, 0, stats)
        else:
            router.write(call, Method.PUT, data, shard, stats)

    return put


def _range(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Range")
    router, placement = context.router, context.placement
    shard_of = placement.shard_of
    parse = rpc_pb2.RangeRequest.FromString
    shard0 = router.routes[0]

    def range_(call: Call, data: bytes, stats: MethodStats = stats) -> None:
        stats.started += 1
        if shard0.leader_link is None and context.no_leader(call, stats):
            return
        if (plain := plain_get(data)) is not None:
            key, serializable = plain
            if router.learner and not serializable:
                context.refuse(call, stats, not_for_learners(call.field(CLIENT_VERSION)))
                return
            router.get(call, data, key, serializable, shard_of(key), stats)
            return
        try:
            request = parse(data)
            if router.learner and not request.serializable:  # whatever it asks for, as in etcd
                raise EtcdError(not_for_learners(call.field(CLIENT_VERSION)))
            validate.check_range(request)
        except DecodeError as e:
            context.refuse(call, stats, validate.malformed(str(e)))
            return
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        try:
            shards = shards_shown(context, request)
        except EtcdError as e:
            refuse_range(context, request, call, stats, e)
            return
        if len(shards) == 1:
            router.read(call, Method.RANGE, data, shards[0], request.serializable, stats)
        else:
            _range_over(context, call, request, stats)

    router.moved.anew[Method.RANGE] = partial(_again, range_)
    return range_


def _again(handler: Callable[[Call, bytes, MethodStats], None], waiting: Waiting) -> None:
    waiting.stats.started -= 1
    handler(waiting.call, waiting.body, waiting.stats)


def _range_over(context: Context, call: Call, request: Message, stats: MethodStats) -> None:
    def reply(call: Call, revision: int, term: int, pieces: list[bytes]) -> None:
        stats.ok += 1
        call.reply(context.router.header(revision, term), *pieces)

    def answer(call: Call, revision: int, term: int, tails: list[list[bytes]]) -> None:
        context.stepped.put_together(
            call, bytes_of(tails), range_pieces(request, tails), partial(reply, call, revision, term),
            partial(context.refuse, call, stats))

    refuse = partial(refuse_range, context, request)
    gather: Gather
    if RangeRead(request).ordered:
        gather = InPieces(
            context.router, call, Method.RANGE, range_requests(request, context.placement),
            request.serializable, stats, answer, refuse)
    else:
        gather = MergedRange(
            context.router, call, request, context.placement, stats, reply, refuse)
    gather.start(max(request.revision, 0))


def _delete_range(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "DeleteRange")

    def delete_range(call: Call, data: bytes, stats: MethodStats = stats) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.DeleteRangeRequest.FromString, data)
            validate.check_delete_range(request)
            shards = context.placement.shards_of(request.key, request.range_end)
            context.check_size(data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if len(shards) == 1:
            context.router.write(call, Method.DELETE_RANGE, data, shards[0], stats)
        else:
            context.router.wide(call, Method.DELETE_RANGE, data, stats)

    return delete_range


def _is_compacted(error: bytes) -> bool:
    return EtcdError.decode(error).kind is errors.COMPACTED


def _compact(context: Context) -> Serve:
    router = context.router

    def answered(waiting: Waiting, status: int, body: bytes) -> None:
        if status == Status.PARTIAL:
            waiting.limit_s = _PHYSICAL_LIMIT_S
            return
        # etcd's member has applied what it acknowledges, or what it refuses as compacted already, and with
        # ``physical`` removed it; this host's replicas may be behind
        request = waiting.context
        done = status == Status.OK or (status == Status.ERROR and _is_compacted(body))
        if done:
            router.show_compaction(request.revision)
        if done and request.physical:
            asks = waiting.calls(lambda asked, *_: answer(asked, status, body))
            when_removed(router, asks, router.routes, lambda: context.stopping)
        else:
            answer(waiting, status, body)

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        if not (context.failed(waiting, status, body) or context.given_up(waiting.call, waiting.stats)):
            waiting.stats.ok += 1
            waiting.call.reply(router.header(*HEAD.unpack_from(body)), body[HEAD.size :])

    def compact(call: Call, data: bytes, request: Message, stats: MethodStats) -> None:
        context.check_size(data)
        router.write(call, Method.COMPACT, data, 0, stats, answered, request)

    return compact


def _txn(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Txn")
    router = context.router
    limit, max_ops = context.most_logged_bytes, context.common.max_txn_ops
    most_fields = 3 * max_ops
    placement, shard0 = context.placement, router.routes[0]

    def txn(call: Call, data: bytes, stats: MethodStats = stats) -> None:
        stats.started += 1
        if shard0.leader_link is None and context.no_leader(call, stats):
            return
        if len(data) <= limit:
            plain = plain_txn.read_few(data, most_fields)
            if plain is not None and (ops := plain.ops()) <= max_ops:
                if ops > _FEW_OPS:
                    call.costs(ops)
                shard = 0 if placement.alone else _plain_shard(placement, plain)
                if plain.read_only and plain.serializable and plain.oldest < router.compacted:
                    shard = WIDE  # as each range by itself: the replica may be behind the compaction
                if shard == WIDE and is_read(plain):
                    read_txn(context, call, data, plain, stats)
                elif shard == WIDE and plain.read_only:
                    range_txns.RangeTxn(context, call, rpc_pb2.TxnRequest.FromString(data), stats).start()
                elif shard == WIDE:
                    router.wide(call, Method.TXN, data, stats)
                elif plain.read_only:
                    router.read(call, Method.READ_TXN, data, shard, plain.serializable, stats)
                else:
                    router.write(call, Method.TXN, data, shard, stats)
                return
        refuse = partial(context.refuse, call, stats)
        try:
            request = validate.parse(rpc_pb2.TxnRequest.FromString, data)
        except EtcdError as e:
            refuse(e)
            return
        steps = _checked(context, stats, call, data, request, router.moved.began)
        if len(data) > _LONG_BYTES:
            call.costs(len(data) >> _LONG_SHIFT)
            context.stepped.start(call, steps, refuse)
        else:
            ops = len(request.compare) + len(request.success) + len(request.failure)
            context.stepped.begin(call, ops, steps, refuse)

    router.moved.anew[Method.READ_TXN] = partial(_again, txn)
    return txn


def _checked(context: Context, stats: MethodStats, call: Call, data: bytes, request: Message,
             began: float) -> Steps[None]:
    """``began``: when it was asked first, if it is asked again."""
    router = context.router
    yield from validate.checking_txn(request, context.common.max_txn_ops)
    if len(data) > context.most_logged_bytes and not is_read_only(request):  # only the log has a limit
        raise EtcdError(errors.REQUEST_TOO_LARGE)
    write = router.in_turn.compare if (yield from compares_ranges(request)) else router.write
    found: set[int] = set()
    while not context.placement.alone:
        table = context.placement.table
        yield from _collect(context, request, found)
        if context.placement.table is table:
            break  # it goes on by this table, without a pause
        found.clear()  # keys have moved meanwhile
    shard = WIDE if _may_be_compacted(context, request) else _shard_of_all(found)
    if shard == WIDE and range_txns.is_read(request):
        range_txns.RangeTxn(context, call, request, stats).start()
    elif shard == WIDE and len(data) > context.most_logged_bytes:
        raise EtcdError(errors.REQUEST_TOO_LARGE)  # reads that shards can only answer by the log
    elif shard == WIDE:
        write(call, Method.WIDE, bytes((Method.TXN,)) + data, 0, stats)
    elif is_read_only(request):
        with router.moved.since(began):
            router.read(call, Method.READ_TXN, data, shard, is_serializable(request), stats)
    else:
        write(call, Method.TXN, data, shard, stats)


def _plain_shard(placement: Placement, plain: plain_txn.Plain) -> int:
    found = set(map(placement.shard_of, plain.keys()))
    if plain.of_the_past and (placement.table.past or (placement.table.pruned and plain.read_only)):
        return WIDE  # each is read where it was then
    return _shard_of_all(found)


def _shard_of_all(found: set[int]) -> int:
    """The shard that has all keys of a transaction, shard 0 if there are none. WIDE: several have them."""
    return WIDE if len(found) > 1 else next(iter(found), 0)


def _may_be_compacted(context: Context, request: Message) -> bool:
    """Whether a read-only transaction may show a revision of which this front does not know whose keys were
    whose (G2), or one that a replica behind the compaction would still show."""
    compacted = context.router.compacted if is_serializable(request) else 0
    below = 1 << 63 if context.placement.table.pruned else compacted
    return below > 0 and range_txns.is_read(request) and any(
        0 < op.request_range.revision < below for ops in (request.success, request.failure) for op in ops)


def _collect(context: Context, request: Message, found: set[int]) -> Steps[None]:
    for compare in request.compare:
        found.update(context.placement.shards_of(compare.key, compare.range_end))
    for place, op in enumerate((*request.success, *request.failure), 1):
        if not place % STEP_OPS:
            yield
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            yield from _collect(context, op.request_txn, found)
            yield
        elif kind == "request_put":
            found.add(context.placement.shard_of(op.request_put.key))
        elif kind is not None:
            inner = getattr(op, kind)
            found.update(context.placement.shards_of(inner.key, inner.range_end))
            if kind == "request_range" and inner.revision > 0 and context.placement.table.past:
                found.update(context.placement.kept)  # each is read where it was then
