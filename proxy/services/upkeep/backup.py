"""Maintenance/Snapshot: the whole store at one revision, as an etcd database, and its SHA-256. One host makes
it. Its node of shard 0 holds a checkpoint, whose revision is the backup's; its other nodes hold theirs once
they have applied as much. Node 0 has one file made of them and streams it as the client takes it
(``node.serving.backups``). If a compaction beyond the backup's revision or a new shard comes before the
first byte, the backup starts again."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import HELD, READ, Method
from cluster.wire.protobuf import varint
from proxy.routing.pieces import KEEP_S
from proxy.routing.reads.applied import when_applied
from proxy.routing.router import READ_ANY, SERIALIZABLE, Waiting
from proxy.routing.waiting import OK, PARTIAL
from proxy.services.shares import ClientShares, Shares
from proxy.shared.context import Call, Context

log = structlog.get_logger("backups")

_REMAINING = struct.Struct("<Q")
_CHUNK_BYTES = 32_768
_LIMIT_S = 3600.0  # without progress
_LINK_LIMIT_S = 10.0  # until another host's nodes have links
_MOST_ATTEMPTS = 10
# a call that takes nothing for so long, or less than so much from then on, gives way to its client's next
_SLOW_AFTER_S, _SLOW_BYTES_S = 10.0, 65_536


@dataclass(slots=True)
class _Checkpoint:
    asked: Waiting | None = None
    name: str = ""
    compact_revision: int = 0


@dataclass(slots=True)
class _Sending:
    checkpoints: dict[int, _Checkpoint]  # by shard: of those that kept keys when this attempt began
    began: float  # this attempt
    told_at: float
    attempt: int = 1
    member: int = 0  # that makes it, once known
    index: int = 0  # of the order log, to be applied by all
    revision: int = 0
    built: Waiting | None = None  # the question for the file
    chunks: deque[tuple[int, bytes]] = field(default_factory=deque)  # bytes behind the chunk, chunk
    received: int = 0  # bytes
    passed: int = 0  # bytes sent
    sent_since: float = 0.0  # when the first chunk was sent
    moved_at: float = 0.0  # when the last was
    done: bool = False
    digest: Any = field(default_factory=hashlib.sha256)


class Snapshot:
    def __init__(self, context: Context, service: str) -> None:
        self._context = context
        self._stats = context.method("server_stream", service, "Snapshot")
        settings = context.settings
        self._shares = Shares(settings.max_connection_snapshots)
        self._clients = ClientShares(settings.max_client_snapshots, self._end_slow)
        self._making: dict[Call, _Sending] = {}  # without a byte yet
        context.on_tick += (self._tick, self._clients.tick)

    def opened(self, call: Call) -> None:
        self._stats.started += 1
        call.context = None
        self._context.no_leader(call, self._stats)

    def message(self, call: Call, data: bytes) -> None:
        if call.context is not None or call.closed:
            return
        context = self._context
        try:
            validate.parse_streamed(rpc_pb2.SnapshotRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, self._stats, e)
            return
        if not (self._shares.take(call) and self._clients.take(call)):
            context.refuse(call, self._stats, errors.TOO_MANY_REQUESTS)
            return
        now = context.router.loop.time()
        sending = call.context = _Sending(self._none_held(), now, now)
        call.on_drain = lambda: self._pump(call, sending)
        self._making[call] = sending
        self._begin(call, sending)

    def half_closed(self, call: Call) -> None:
        if call.context is None and not call.closed:
            self._context.refuse_empty(call, self._stats)

    def cancelled(self, call: Call) -> None:
        self._context.given_up(call, self._stats)
        sending: _Sending | None = call.context
        if sending is not None:
            self._abandon(call, sending)

    def _none_held(self) -> dict[int, _Checkpoint]:
        return {shard: _Checkpoint() for shard in self._context.placement.kept}

    def _outdated(self, sending: _Sending) -> bool:
        """Whether a shard has come or gone since this attempt began."""
        return sending.checkpoints.keys() != set(self._context.placement.kept)

    def _begin(self, call: Call, sending: _Sending) -> None:
        """Have a node of shard 0 hold a checkpoint: this host's, or one that this front reaches. What this
        host has acknowledged is in it, as in an etcd member's, unless its node stays behind."""
        router, attempt = self._context.router, sending.attempt

        def hold(*_: object) -> None:
            if not call.closed and attempt == sending.attempt:
                router.local(
                    call, Method.SNAPSHOT, b"", 0, self._stats, self._held, (sending, attempt, 0)
                )

        waiting = Waiting(
            call, Method.SNAPSHOT, b"", 0, READ_ANY, router.loop.time(), router.limit_s, self._stats)
        when_applied(router, waiting.calls(hold), (0,))

    def _held(self, waiting: Waiting, status: int, body: bytes) -> None:
        call, (sending, attempt, shard) = waiting.call, waiting.context
        if call.closed or attempt != sending.attempt or status != PARTIAL:
            if status == PARTIAL:
                self._context.router.cancel(waiting)
            elif not call.closed and attempt == sending.attempt:
                if self._outdated(sending):
                    sending.checkpoints[shard] = _Checkpoint()  # _tick starts again, or the file is good
                else:
                    self._fail(call, sending, body)
            return
        waiting.limit_s = _LIMIT_S
        checkpoint = sending.checkpoints[shard]
        index, revision, checkpoint.compact_revision, member = HELD.unpack_from(body)
        checkpoint.asked = waiting
        checkpoint.name = body[HELD.size :].decode()
        if shard == 0:
            sending.index, sending.revision, sending.member = index, revision, member
        if self._outdated(sending):
            return  # _tick starts again
        self._ask_others(call, sending)
        if all(one.name for one in sending.checkpoints.values()):
            self._build(call, sending)

    def _ask_others(self, call: Call, sending: _Sending) -> None:
        router = self._context.router
        now = router.loop.time()
        for shard, checkpoint in list(sending.checkpoints.items()):
            if shard == 0 or checkpoint.asked is not None:
                continue
            route = router.routes[shard]
            route.wanted.add(sending.member)
            link = route.links.get(sending.member)
            if link is None or not link.usable:
                route.ensure(sending.member, now)
                continue
            route.wanted.discard(sending.member)
            checkpoint.asked = Waiting(
                call, Method.SNAPSHOT, b"", shard, READ_ANY, now, router.limit_s, self._stats,
            ).calls(self._held, (sending, sending.attempt, shard), READ.pack(sending.index, 0))
            router.send(link, checkpoint.asked)

    def _release(self, sending: _Sending) -> None:
        router = self._context.router
        for shard, checkpoint in list(sending.checkpoints.items()):
            if (route := router.routes.get(shard)) is not None:  # others that want it say so again
                route.wanted.discard(sending.member)
            if checkpoint.asked is not None:
                router.cancel(checkpoint.asked)
                sending.checkpoints[shard] = _Checkpoint()

    def _again(self, call: Call, sending: _Sending, why: str) -> None:
        """Start again: ``why`` these checkpoints make no backup."""
        self._release(sending)
        if sending.built is not None:
            self._context.router.cancel(sending.built)
            sending.built = None
        sending.attempt += 1
        sending.began = self._context.router.loop.time()
        sending.checkpoints = self._none_held()
        sending.member = 0
        if sending.attempt > _MOST_ATTEMPTS:
            self._fail(call, sending, EtcdError(errors.BACKUP_UNFIT, why).encode())
        else:
            self._begin(call, sending)

    def _build(self, call: Call, sending: _Sending) -> None:
        router = self._context.router
        if any(one.compact_revision > sending.revision for one in sending.checkpoints.values()):
            self._again(call, sending, "a backup could not be made: the store is compacted all the time")
            return
        first = sending.checkpoints[0].asked
        link = router.routes[0].links.get(sending.member)
        if first is None or link is None or not link.up:
            self._fail(call, sending, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
            return
        by_shard = {shard: one.name for shard, one in sending.checkpoints.items()}
        of_the_beginning = list(by_shard) == list(range(self._context.common.shard_count))
        names = json.dumps(list(by_shard.values()) if of_the_beginning else by_shard).encode()
        sending.built = Waiting(
            call, Method.SNAPSHOT, names, 0, READ_ANY, router.loop.time(), _LIMIT_S, self._stats,
        ).calls(self._answer, sending, SERIALIZABLE)
        router.send(link, sending.built)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call, sending = waiting.call, waiting.context
        if call.closed or waiting is not sending.built:
            return  # of an attempt that was given up
        if status == PARTIAL:
            if self._making.pop(call, None) is not None:
                self._release(sending)
            (remaining,) = _REMAINING.unpack_from(body)
            chunk = body[_REMAINING.size :]
            sending.received += len(chunk)
            sending.chunks.append((remaining, chunk))
        elif status == OK:
            sending.done = True
            self._clients.over(call)
        else:
            error = EtcdError.decode(body)
            if call in self._making and (error.kind is errors.BACKUP_UNFIT or self._outdated(sending)):
                self._again(call, sending, error.text)
            else:
                self._fail(call, sending, body)
            return
        self._pump(call, sending)

    def _pump(self, call: Call, sending: _Sending) -> None:
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

    def _fail(self, call: Call, sending: _Sending, error: bytes) -> None:
        self._abandon(call, sending)
        if not call.closed:
            self._context.refuse(call, self._stats, EtcdError.decode(error))

    def _end_slow(self, calls: list[Call]) -> Call | None:
        """End the call whose last progress is oldest, if its client is slow though there is data for it."""
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
        sending.chunks.clear()  # an ended call may stay until its client reads
        if sending.built is not None and not sending.done:
            self._context.router.cancel(sending.built)
            sending.built = None

    def _tick(self, now: float) -> None:
        for call, sending in tuple(self._making.items()):
            if call.closed:
                self._abandon(call, sending)
                continue
            if sending.built is None and self._outdated(sending):
                self._again(call, sending, "a backup could not be made: shards come and go")
                continue
            if sending.member and sending.built is None:
                self._ask_others(call, sending)
                unasked = any(one.asked is None for one in sending.checkpoints.values())
                if unasked and now - sending.began > _LINK_LIMIT_S:
                    self._fail(call, sending, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                    continue
            if now - sending.told_at > KEEP_S:  # the client is not slow
                sending.told_at = now
                for one in (*(c.asked for c in sending.checkpoints.values()), sending.built):
                    if one is not None:
                        self._context.router.credit(one, 0)


def _blob(blob: bytes, remaining: int) -> bytes:
    """SnapshotResponse in wire form."""
    head = b"\x10" + varint(remaining) if remaining else b""
    return head + b"\x1a" + varint(len(blob)) + blob
