"""etcdserverpb.Maintenance: Status, Hash, HashKV, Snapshot, Alarm (list). The rest comes later.

A snapshot is the node's own format; what etcdctl checks of a file holds: the payload is padded to a multiple of 512
bytes and followed by its SHA-256.
"""

from __future__ import annotations

import hashlib
import struct

from cluster import errors, validate
from cluster.errors import EtcdError
from cluster.messages import HEAD, Method
from cluster.pb import rpc_pb2
from cluster.version import ETCD_VERSION
from cluster.wire import varint
from proxy.router import Waiting
from proxy.services.context import BACKLOG_BYTES, SLOW_CLIENT, Call, Context, Registry, UnaryHandler
from proxy.shard_facts import ShardFacts, gather
from proxy.spanning import Gather, hash_answer

SERVICE = "etcdserverpb.Maintenance"
_CHUNK_BYTES = 32_768
_PADDING = 512
_REMAINING = struct.Struct("<Q")


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    for name, make in (("Status", _status), ("Alarm", _alarm), ("Hash", _hash), ("HashKV", _hash_kv)):
        registry.unary(f"/{SERVICE}/{name}", make(context))
    registry.stream(f"/{SERVICE}/Snapshot", Snapshot(context))


def _status(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Status")
    router = context.router

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if status != 0:
            if not call.closed:
                context.refuse(call, stats, EtcdError.decode(body))
            return
        response = rpc_pb2.StatusResponse.FromString(body[HEAD.size:])
        response.version = ETCD_VERSION
        if not response.leader and errors.NO_LEADER.text not in response.errors:
            response.errors.append(errors.NO_LEADER.text)
        head = HEAD.unpack_from(body)

        def reply(shards: list[ShardFacts]) -> None:
            """Raft's figures are shard 0's; the database is all shards' together."""
            others = [facts for facts in shards[1:] if facts["up"]]
            response.dbSize += sum(facts["size_bytes"] for facts in others)
            response.dbSizeInUse += sum(facts["size_in_use_bytes"] for facts in others)
            if not call.closed:
                stats.ok += 1
                call.reply(router.header(*head), response.SerializeToString())

        if context.placement.shards == 1:
            reply([])
        else:
            gather(context, reply)

    def status(call: Call, data: bytes) -> None:
        stats.started += 1
        router.local(call, Method.STATUS, data, 0, stats, answer)

    return status


def _alarm(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Alarm")

    def alarm(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.AlarmRequest.FromString, data)
            if request.action != rpc_pb2.AlarmRequest.GET:
                raise EtcdError(errors.UNKNOWN_METHOD, "alarms can only be listed yet")
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        context.router.read(call, Method.ALARM, data, 0, False, stats)

    return alarm


def _hash(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Hash")

    def hash_(call: Call, data: bytes) -> None:
        stats.started += 1
        context.router.local(call, Method.HASH, data, 0, stats)

    return hash_


def _hash_kv(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "HashKV")

    def hash_kv(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        if context.placement.shards == 1:
            context.router.read(call, Method.HASH_KV, data, 0, True, stats)
            return
        wanted = max(validate.parse(rpc_pb2.HashKVRequest.FromString, data).revision, 0)

        def answer(call: Call, revision: int, term: int, blob: bytes) -> None:
            stats.ok += 1
            call.reply(context.router.header(revision, term), hash_answer(blob, wanted or revision))

        requests = dict.fromkeys(range(context.placement.shards), data)
        Gather(context.router, call, Method.HASH_KV, requests, True, stats, answer, context.refuse).start(wanted)

    return hash_kv


class _Sending:
    """One snapshot on its way to a client."""

    __slots__ = ("digest", "padding", "started")

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.padding = 0
        self.started = False


class Snapshot:
    """Maintenance/Snapshot: chunks of at most 32 KB, then the SHA-256 of all of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stats = context.method("server_stream", SERVICE, "Snapshot")

    def opened(self, call: Call) -> None:
        """A call has begun; its request follows."""
        self._stats.started += 1
        call.context = None

    def message(self, call: Call, data: bytes) -> None:
        """The request."""
        if self._context.placement.shards > 1:
            # a file with one shard's keys would look like a whole backup
            self._context.refuse(call, self._stats, EtcdError(
                errors.UNKNOWN_METHOD, "a store of several shards cannot be saved to one file yet"))
        elif call.context is None:
            call.context = sending = _Sending()
            self._context.router.local(call, Method.SNAPSHOT, data, 0, self._stats, self._answer, sending)

    def half_closed(self, call: Call) -> None:
        """The client has said all it will."""

    def cancelled(self, call: Call) -> None:
        """The client has gone; the router's sweep ends the read."""

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if call.closed:
            return
        sending: _Sending = waiting.context
        if status not in (_OK, _PARTIAL):
            self._context.refuse(call, self._stats, EtcdError.decode(body))
            return
        if status == _PARTIAL:
            (remaining,) = _REMAINING.unpack_from(body)
            self._send(call, sending, body[_REMAINING.size:], remaining)
            if call.pending_bytes() > BACKLOG_BYTES:
                self._context.router.cancel(waiting)
                self._context.refuse(call, self._stats, EtcdError(errors.MESSAGE_TOO_LARGE, SLOW_CLIENT))
            return
        if sending.padding:
            self._message(call, sending, bytes(sending.padding), 0)
        call.send(_blob(sending.digest.digest(), 0))
        call.finish()
        self._stats.sent += 1
        self._stats.ok += 1

    def _send(self, call: Call, sending: _Sending, chunk: bytes, remaining: int) -> None:
        if not sending.started:
            sending.started = True
            sending.padding = -(remaining + len(chunk)) % _PADDING
        for at in range(0, len(chunk), _CHUNK_BYTES):
            piece = chunk[at : at + _CHUNK_BYTES]
            self._message(call, sending, piece, remaining + len(chunk) - at - len(piece) + sending.padding)

    def _message(self, call: Call, sending: _Sending, piece: bytes, remaining: int) -> None:
        sending.digest.update(piece)
        call.send(_blob(piece, remaining))
        self._stats.sent += 1


def _blob(blob: bytes, remaining: int) -> bytes:
    """SnapshotResponse in wire form."""
    head = b"\x10" + varint(remaining) if remaining else b""
    return head + b"\x1a" + varint(len(blob)) + blob


_OK, _PARTIAL = 0, 4
