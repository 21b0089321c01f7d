"""Read-only transactions over several shards with ranges, named revisions, or compares of ranges.

Each shard decides the compares of its keys, at one revision; then each range of the taken branch is read
there, as a range by itself is. No lock, no order record, no work for a leader but the read index. A
transaction that meets a compaction starts over with a new revision (H16).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.footprint import is_read_only, is_serializable
from cluster.evaluate.reading.ranges import RangeRead
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint
from proxy.routing.router import MethodStats
from proxy.shared.context import Call, Context
from proxy.spanning.gather import Gather, InPieces, range_requests
from proxy.spanning.merged_ranges import MergedRange
from proxy.spanning.sorted_ranges import bytes_of, range_pieces

_TRIES = 5
_NOTHING = b""  # a transaction without operations


def is_read(request: Any) -> bool:
    """Whether a transaction over several shards is answered so. A negative revision is compared with what was
    compacted: only the sequencer knows that."""
    return is_read_only(request) and all(
        op.request_range.revision >= 0 for ops in (request.success, request.failure) for op in ops)


class RangeTxn:
    """One such transaction, statically checked."""

    def __init__(self, context: Context, call: Call, request: Any, stats: MethodStats) -> None:
        self._context = context
        self._call = call
        self._request = request
        self._stats = stats
        self._serializable = is_serializable(request)
        self._tries = 0
        self._held = call.gathered  # bytes that its client held before
        self._asked: list[int] = []  # shards, by compare
        self._first: Gather | None = None  # while the compares are being decided
        self._order_index = 0  # that the revision needs applied
        self._ops: list[Any] = []
        self._pieces: list[bytes] = []
        self._revision = self._term = 0
        self._named = False  # the revision that is being read at

    def start(self) -> None:
        """Decide the compares."""
        self._named = False
        self._first = Gather(
            self._context.router, self._call, Method.READ_TXN, self._ask, self._serializable, self._stats,
            self._compared, self._failed,
        )
        self._first.start()

    def _ask(self, revision: int) -> list[tuple[int, bytes]]:
        shards_at = self._context.placement.shards_at
        asked: list[tuple[int, bytes]] = []
        self._asked = []
        for compare in self._request.compare:
            shards = shards_at(compare.key, compare.range_end, revision)
            count = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(
                key=compare.key, range_end=compare.range_end, count_only=True))
            body = rpc_pb2.TxnRequest(compare=[compare], success=[count], failure=[count]).SerializeToString()
            asked += [(shard, body) for shard in shards]
            self._asked.append(len(shards))
        if self._serializable or not asked:  # H17: the revision must be one that all of them have applied
            touched = {shard for ops in (self._request.success, self._request.failure) for op in ops
                       for shard in shards_at(op.request_range.key, op.request_range.range_end, revision)}
            asked += [(shard, _NOTHING) for shard in sorted(touched - {shard for shard, _ in asked})]
        # by both branches, as etcd does: of these none is read
        if self._context.router.principals.judged(self._call):
            branches = [[*self._request.success, *self._request.failure]]
            if len(branches[0]) > self._context.common.max_txn_ops:  # as many as each may have
                branches = [list(self._request.success), list(self._request.failure)]
            asked += [(0, rpc_pb2.TxnRequest(failure=branch).SerializeToString()) for branch in branches]
        return asked

    def _compared(self, call: Any, revision: int, term: int, tails: list[bytes]) -> None:
        answers = iter(tails)
        assert self._first is not None
        self._order_index = self._first.order_index
        # it knows of this method: rows kept in such a cycle stay until the garbage collector comes
        self._first = None
        succeeded = True
        for shards in self._asked:
            succeeded = (
                _holds([rpc_pb2.TxnResponse.FromString(next(answers)) for _ in range(shards)]) and succeeded
            )
        self._revision, self._term = revision, term
        self._ops = [
            op.request_range for op in (self._request.success if succeeded else self._request.failure)
        ]
        self._pieces = [b"\x10\x01"] if succeeded else []
        self._next(0)

    def _next(self, place: int) -> None:
        context, call = self._context, self._call
        if context.given_up(call, self._stats):
            return
        if place == len(self._ops):
            self._stats.ok += 1
            call.reply(context.router.header(self._revision, self._term), *self._pieces)
            return
        request = self._ops[place]
        # in their order: one before it may name a revision that is compacted
        try:
            context.router.check_compacted(request.revision)
            if request.revision > self._revision:
                raise EtcdError(errors.FUTURE_REV)
        except EtcdError as e:
            context.refuse(call, self._stats, e)
            return
        placement, key, end = context.placement, request.key, request.range_end
        router, stats, failed = context.router, self._stats, self._failed
        gather: Gather
        if not end:
            asked = rpc_pb2.RangeRequest()
            asked.CopyFrom(request)
            asked.revision = 0
            gather = Gather(
                router, call, Method.RANGE,
                lambda revision: [
                    (shard, asked.SerializeToString()) for shard in placement.shards_at(key, b"", revision)],
                self._serializable, stats, lambda call, revision, term, tails: self._read(place, tails),
                failed,
            )
        elif RangeRead(request).ordered:
            gather = InPieces(
                router, call, Method.RANGE, range_requests(request, placement), self._serializable, stats,
                lambda call, revision, term, tails: context.stepped.put_together(
                    call, bytes_of(tails), range_pieces(request, tails), partial(self._read, place),
                    partial(context.refuse, call, stats)),
                failed,
            )
        else:
            gather = MergedRange(router, call, request, placement, stats,
                                 lambda call, revision, term, pieces: self._read(place, pieces), failed)
        self._named = request.revision > 0
        gather.at(self._order_index, request.revision or self._revision, self._revision, self._term)

    def _read(self, place: int, pieces: list[bytes]) -> None:
        revision = b"\x18" + varint(self._revision)
        header = b"\x0a" + varint(len(revision)) + revision  # an operation's own
        size = len(header) + sum(map(len, pieces))
        tag = b"\x0a" + varint(size)  # response_range
        self._pieces += (b"\x1a" + varint(len(tag) + size) + tag + header, *pieces)
        self._next(place + 1)

    def _failed(self, call: Any, stats: MethodStats, error: EtcdError) -> None:
        self._first = None
        passing = error.kind is errors.COMPACTED or (error.kind is errors.FUTURE_REV and self._serializable)
        if not passing or self._named or self._tries == 2 * _TRIES:
            self._context.refuse(call, stats, error)
            return
        self._tries += 1
        self._serializable = self._serializable and self._tries < _TRIES  # as a range by itself (Gather)
        self._pieces = []  # what came before is dropped
        call.gather(self._held - call.gathered)
        self.start()


def _holds(parts: list[Any]) -> bool:
    """A compare, by each shard's word on its own keys: it holds for all that exist; without any, as each
    shard says."""
    there = [part.succeeded for part in parts if part.responses[0].response_range.count]
    return all(there) if there else bool(parts[0].succeeded)
