"""Maintenance/Snapshot: the whole store at one revision, as a database of etcd's, and the SHA-256 of it.

One host makes it: its node of shard 0 holds a checkpoint, whose revision is the backup's; its other nodes
hold theirs once they have applied as much; node 0 builds one file of them and streams it
(``node.serving.backups``). All begins anew where a compaction beyond the backup's revision came in between.

Bytes are asked of the node (CREDIT) only as the client takes them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import deque

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import READ, Method
from cluster.wire.protobuf import varint
from proxy.routing.pieces import KEEP_S
from proxy.routing.router import READ_ANY, SERIALIZABLE, Waiting
from proxy.services.shares import ClientShares, Shares
from proxy.shared.context import Call, Context

log = structlog.get_logger("backups")

_HELD = struct.Struct("<QQQQ")  # node.serving.backups.HELD
_REMAINING = struct.Struct("<Q")
_CHUNK_BYTES = 32_768
_LIMIT_S = 3600.0  # without a byte of progress
_LINK_LIMIT_S = 10.0  # to the nodes of a host that is not this one
_MOST_ATTEMPTS = 10
# a client who takes nothing for so long, or less than so much from then on, gives way to one of his own
_SLOW_AFTER_S, _SLOW_BYTES_S = 10.0, 65_536
_OK, _PARTIAL = 0, 4


class _Checkpoint:
    """What one shard's node holds."""

    __slots__ = ("asked", "compact_revision", "name")

    def __init__(self) -> None:
        self.asked: Waiting | None = None
        self.name = ""
        self.compact_revision = 0


class _Sending:
    """One backup on its way to a client."""

    __slots__ = ("attempt", "began", "built", "checkpoints", "chunks", "digest", "done", "index", "member",
                 "moved_at", "passed", "received", "revision", "sent_since", "told_at")

    def __init__(self, shards: int, now: float) -> None:
        self.checkpoints = [_Checkpoint() for _ in range(shards)]
        self.attempt = 1
        self.began = now  # of this attempt
        self.member = 0  # whose nodes make it, once that is known
        self.index = 0  # of the order log, which they have to have applied
        self.revision = 0
        self.built: Waiting | None = None  # the question for the file
        self.chunks: deque[tuple[int, bytes]] = deque()  # bytes that remain behind it, chunk
        self.received = 0
        self.sent_since = self.moved_at = 0.0  # when its client was sent the first of it, and the last
        self.passed = 0  # bytes that he was sent
        self.done = False
        self.digest = hashlib.sha256()
        self.told_at = now


class Snapshot:
    """The stream's handler."""

    def __init__(self, context: Context, service: str) -> None:
        self._context = context
        self._stats = context.method("server_stream", service, "Snapshot")
        settings = context.settings
        self._shares = Shares(settings.max_connection_snapshots)
        self._clients = ClientShares(settings.max_client_snapshots, self._end_slow)
        self._making: dict[Call, _Sending] = {}  # those that nothing has come of yet
        context.on_tick += (self._tick, self._clients.tick)

    def opened(self, call: Call) -> None:
        """A call has begun; its request follows."""
        self._stats.started += 1
        call.context = None
        self._context.no_leader(call, self._stats)

    def message(self, call: Call, data: bytes) -> None:
        """The request."""
        if call.context is not None or call.closed:
            return
        context = self._context
        if not (self._shares.take(call) and self._clients.take(call)):
            context.refuse(call, self._stats, errors.TOO_MANY_REQUESTS)
            return
        sending = call.context = _Sending(context.placement.shards, context.router.loop.time())
        call.on_drain = lambda: self._pump(call, sending)
        self._making[call] = sending
        self._begin(call, sending)

    def half_closed(self, call: Call) -> None:
        """The client has said all it will: without a request there is none."""
        if call.context is None and not call.closed:
            self._stats.failed(errors.Code.UNKNOWN)
            call.finish(errors.Code.UNKNOWN, "EOF")

    def cancelled(self, call: Call) -> None:
        """The client has gone."""
        sending: _Sending | None = call.context
        if sending is not None:
            self._abandon(call, sending)

    # -- checkpoints

    def _begin(self, call: Call, sending: _Sending) -> None:
        """Have shard 0's node hold a checkpoint: of this host, or of one that this front reaches."""
        self._context.router.local(
            call, Method.SNAPSHOT, b"", 0, self._stats, self._held, (sending, sending.attempt, 0))

    def _held(self, waiting: Waiting, status: int, body: bytes) -> None:
        call, (sending, attempt, shard) = waiting.call, waiting.context
        if call.closed or attempt != sending.attempt or status != _PARTIAL:
            if status == _PARTIAL:  # nobody waits for it any more
                self._context.router.cancel(waiting)
            elif not call.closed and attempt == sending.attempt:
                self._fail(call, sending, body)
            return
        waiting.limit_s = _LIMIT_S
        checkpoint = sending.checkpoints[shard]
        index, revision, checkpoint.compact_revision, member = _HELD.unpack_from(body)
        checkpoint.asked = waiting
        checkpoint.name = body[_HELD.size :].decode()
        if shard == 0:
            sending.index, sending.revision, sending.member = index, revision, member
        self._ask_others(call, sending)
        if all(one.name for one in sending.checkpoints):
            self._build(call, sending)

    def _ask_others(self, call: Call, sending: _Sending) -> None:
        """Have the other shards' nodes of that host hold theirs; one without a link yet is asked later."""
        router = self._context.router
        now = router.loop.time()
        for shard, checkpoint in enumerate(sending.checkpoints):
            if shard == 0 or checkpoint.asked is not None:
                continue
            route = router.routes[shard]
            link = route.links.get(sending.member)
            if link is None or not link.up or link.leaving:
                route.ensure(sending.member, now)
                continue
            checkpoint.asked = Waiting(
                call, Method.SNAPSHOT, b"", shard, READ_ANY, now, router.limit_s, self._stats, self._held,
                (sending, sending.attempt, shard), READ.pack(sending.index, 0))
            router.send(link, checkpoint.asked)

    def _release(self, sending: _Sending) -> None:
        """The nodes need hold nothing any more."""
        for shard, checkpoint in enumerate(sending.checkpoints):
            if checkpoint.asked is not None:
                self._context.router.cancel(checkpoint.asked)
                sending.checkpoints[shard] = _Checkpoint()

    # -- the file

    def _build(self, call: Call, sending: _Sending) -> None:
        router = self._context.router
        if any(one.compact_revision > sending.revision for one in sending.checkpoints):
            self._release(sending)
            sending.attempt += 1
            sending.began = router.loop.time()
            if sending.attempt > _MOST_ATTEMPTS:
                error = EtcdError(errors.UNMAPPED, "the store is compacted all the time")
                self._fail(call, sending, error.encode())
            else:
                self._begin(call, sending)
            return
        first = sending.checkpoints[0].asked
        link = router.routes[0].links.get(sending.member)
        if first is None or link is None or not link.up:
            self._fail(call, sending, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
            return
        names = json.dumps([one.name for one in sending.checkpoints]).encode()
        sending.built = Waiting(
            call, Method.SNAPSHOT, names, 0, READ_ANY, router.loop.time(), _LIMIT_S, self._stats,
            self._answer, sending, SERIALIZABLE)
        router.send(link, sending.built)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call, sending = waiting.call, waiting.context
        if call.closed:
            return
        if status == _PARTIAL:
            if self._making.pop(call, None) is not None:
                self._release(sending)
            (remaining,) = _REMAINING.unpack_from(body)
            chunk = body[_REMAINING.size :]
            sending.received += len(chunk)
            sending.chunks.append((remaining, chunk))
        elif status == _OK:
            sending.done = True
            self._clients.over(call)
        else:
            self._fail(call, sending, body)
            return
        self._pump(call, sending)

    def _pump(self, call: Call, sending: _Sending) -> None:
        """Send on what is there, as far as the client takes it."""
        while sending.chunks and not call.closed:
            if call.pending_bytes() > call.backlog_bytes():
                return  # on_drain goes on here
            remaining, chunk = sending.chunks.popleft()
            sending.moved_at = self._context.router.loop.time()
            sending.sent_since = sending.sent_since or sending.moved_at
            sending.passed += len(chunk)
            for at in range(0, len(chunk), _CHUNK_BYTES):
                piece = chunk[at : at + _CHUNK_BYTES]
                sending.digest.update(piece)
                call.send(_blob(piece, remaining + len(chunk) - at - len(piece)))
                self._stats.sent += 1
        if call.closed:
            return
        if sending.done:
            call.send(_blob(sending.digest.digest(), 0))
            call.finish()
            self._stats.sent += 1
            self._stats.ok += 1
        elif sending.built is not None and sending.received:
            self._context.router.credit(sending.built, sending.received)

    # -- ends, and time

    def _fail(self, call: Call, sending: _Sending, error: bytes) -> None:
        self._abandon(call, sending)
        if not call.closed:
            self._context.refuse(call, self._stats, EtcdError.decode(error))

    def _end_slow(self, calls: list[Call]) -> Call | None:
        """End the one of these that has moved least lately, if it is slow, and not for want of anything."""
        now = self._context.router.loop.time()
        call = min(calls, key=lambda one: one.context.moved_at or now)
        sending: _Sending = call.context
        slow = (now - sending.moved_at > _SLOW_AFTER_S
                or sending.passed < (now - sending.sent_since - _SLOW_AFTER_S) * _SLOW_BYTES_S)
        if not (slow and sending.chunks):
            return None
        self._fail(call, sending, EtcdError(errors.TOO_MANY_REQUESTS).encode())
        return call

    def _abandon(self, call: Call, sending: _Sending) -> None:
        self._making.pop(call, None)
        self._release(sending)
        sending.chunks.clear()  # a call that ends may stay for as long as its client takes nothing
        if sending.built is not None and not sending.done:
            self._context.router.cancel(sending.built)
            sending.built = None

    def _tick(self, now: float) -> None:
        for call, sending in tuple(self._making.items()):
            if call.closed:
                self._abandon(call, sending)
                continue
            if sending.member and sending.built is None:
                self._ask_others(call, sending)
                unasked = any(one.asked is None for one in sending.checkpoints)
                if unasked and now - sending.began > _LINK_LIMIT_S:
                    self._fail(call, sending, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                    continue
            if now - sending.told_at > KEEP_S:  # it is not the client who is slow
                sending.told_at = now
                for one in (*(c.asked for c in sending.checkpoints), sending.built):
                    if one is not None:
                        self._context.router.credit(one, 0)


def _blob(blob: bytes, remaining: int) -> bytes:
    """SnapshotResponse in wire form."""
    head = b"\x10" + varint(remaining) if remaining else b""
    return head + b"\x1a" + varint(len(blob)) + blob
