"""Maintenance/Snapshot: this host's replica of every shard in one stream, then the SHA-256 of all of it.

The payload is muster's own format. What etcdctl checks of a file holds: its length is a multiple of 512 before the
32 bytes of the hash. With one shard the payload is that shard's state stream; with several it is a head of
512 bytes (:data:`MAGIC`, count u32, then the length u64 of each shard's stream) and the shards' streams in order.
The shards' checkpoints are made at the same time, not at the same revision: every version up to the lowest of their
revisions is in all of them, which is what a restore goes back to.

Bytes are asked of the nodes (CREDIT) only as the client takes them, one shard after the other.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint
from proxy.routing.pieces import KEEP_S
from proxy.routing.router import Waiting
from proxy.services.context import Call, Context
from proxy.services.shares import Shares

MAGIC = b"muster backup 1\n"
_HEAD_BYTES = 512
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_REMAINING = struct.Struct("<Q")
_CHUNK_BYTES = 32_768
_LIMIT_S = 3600.0  # without a byte of progress
_OK, _PARTIAL = 0, 4


class _Part:
    """One shard's stream."""

    __slots__ = ("chunks", "done", "received", "size", "waiting")

    def __init__(self) -> None:
        self.waiting: Waiting | None = None
        self.size = -1  # not known yet
        self.received = 0
        self.chunks: deque[bytes] = deque()
        self.done = False


class _Sending:
    """One backup on its way to a client."""

    __slots__ = ("at", "digest", "left", "parts", "started", "told_at")

    def __init__(self, shards: int) -> None:
        self.parts = [_Part() for _ in range(shards)]
        self.digest = hashlib.sha256()
        self.at = 0  # the part being sent
        self.left = 0  # bytes of the payload to come
        self.started = False
        self.told_at = 0.0


class Snapshot:
    """The stream's handler."""

    def __init__(self, context: Context, service: str) -> None:
        self._context = context
        self._stats = context.method("server_stream", service, "Snapshot")
        self._shares = Shares(context.settings.max_connection_snapshots)

    def opened(self, call: Call) -> None:
        """A call has begun; its request follows."""
        self._stats.started += 1
        call.context = None

    def message(self, call: Call, data: bytes) -> None:
        """The request."""
        if call.context is not None:
            return
        context = self._context
        if not self._shares.take(call):
            context.refuse(call, self._stats, errors.TOO_MANY_REQUESTS)
            return
        sending = call.context = _Sending(context.placement.shards)
        call.on_drain = lambda: self._pump(call, sending)
        for shard in range(context.placement.shards):
            context.router.local(call, Method.SNAPSHOT, data, shard, self._stats, self._answer, (sending, shard))

    def half_closed(self, call: Call) -> None:
        """The client has said all it will."""

    def cancelled(self, call: Call) -> None:
        """The client has gone."""
        sending: _Sending | None = call.context
        if sending is not None:
            self._abandon(sending)

    def _abandon(self, sending: _Sending) -> None:
        for part in sending.parts:
            if part.waiting is not None and not part.done:
                self._context.router.cancel(part.waiting)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        sending, shard = waiting.context
        part = sending.parts[shard]
        part.waiting = waiting
        waiting.limit_s = _LIMIT_S  # from now on the client sets the pace
        if call.closed:
            return
        if status == _PARTIAL:
            (remaining,) = _REMAINING.unpack_from(body)
            chunk = body[_REMAINING.size :]
            part.received += len(chunk)
            part.size = part.received + remaining
            part.chunks.append(chunk)
        elif status == _OK:
            part.size = part.received
            part.done = True
        else:
            part.done = True
            self._abandon(sending)
            self._context.refuse(call, self._stats, EtcdError.decode(body))
            return
        self._pump(call, sending)

    def _pump(self, call: Call, sending: _Sending) -> None:
        """Send on what is there, as far as the client takes it."""
        parts = sending.parts
        if not sending.started:
            if any(p.size < 0 for p in parts):
                return
            sending.started = True
            sending.left = sum(p.size for p in parts)
            if len(parts) > 1:
                sending.left += _HEAD_BYTES
                head = MAGIC + _COUNT.pack(len(parts)) + b"".join(_LENGTH.pack(p.size) for p in parts)
                self._bytes(call, sending, head.ljust(_HEAD_BYTES, b"\0"))
        while sending.at < len(parts) and not call.closed:
            part = parts[sending.at]
            while part.chunks:
                if call.pending_bytes() > call.backlog_bytes():
                    return  # on_drain goes on here
                self._bytes(call, sending, part.chunks.popleft())
            if not part.done:
                if part.waiting is not None:
                    self._context.router.credit(part.waiting, part.received)
                return
            sending.at += 1
        if sending.at == len(parts) and not call.closed:
            call.send(_blob(sending.digest.digest(), 0))
            call.finish()
            self._stats.sent += 1
            self._stats.ok += 1

    def _keep(self, sending: _Sending) -> None:
        """The client takes what comes first: nodes whose turn comes later are told that it is not they who are stalled."""
        now = self._context.router.loop.time()
        if now - sending.told_at > KEEP_S:
            sending.told_at = now
            for part in sending.parts[sending.at + 1 :]:
                if part.waiting is not None and not part.done:
                    self._context.router.credit(part.waiting, 0)

    def _bytes(self, call: Call, sending: _Sending, chunk: bytes) -> None:
        self._keep(sending)
        for at in range(0, len(chunk), _CHUNK_BYTES):
            piece = chunk[at : at + _CHUNK_BYTES]
            sending.left -= len(piece)
            sending.digest.update(piece)
            call.send(_blob(piece, sending.left))
            self._stats.sent += 1


def _blob(blob: bytes, remaining: int) -> bytes:
    """SnapshotResponse in wire form."""
    head = b"\x10" + varint(remaining) if remaining else b""
    return head + b"\x1a" + varint(len(blob)) + blob
