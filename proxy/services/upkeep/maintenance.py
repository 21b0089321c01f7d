"""etcdserverpb.Maintenance: Status, Alarm, Hash and HashKV here, the others in modules of their own."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.version import ETCD_VERSION
from cluster.wire.messages import HEAD, Method
from proxy.metrics.shard_facts import ShardFacts, gather
from proxy.routing.router import MethodStats, Waiting
from proxy.services.upkeep.backup import Snapshot
from proxy.services.upkeep.defragment import defragment
from proxy.services.upkeep.downgrade import downgrades
from proxy.services.upkeep.moving import MoveLeader
from proxy.shared.context import Call, Context, Registry, UnaryHandler
from proxy.spanning.gather import Gather, hash_answer

SERVICE = "etcdserverpb.Maintenance"
# a compaction comes to all shards of a host within some milliseconds, where nothing is wrong
_HASH_AGAIN_S = 0.02
_HASH_TRIES = 50


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    for name, make in (("Status", _status), ("Alarm", _alarm), ("Hash", _hash), ("HashKV", _hash_kv)):
        registry.unary(f"/{SERVICE}/{name}", make(context))
    registry.unary(f"/{SERVICE}/Defragment", defragment(context, SERVICE))
    registry.unary(f"/{SERVICE}/MoveLeader", MoveLeader(context, SERVICE).handle)
    registry.unary(f"/{SERVICE}/Downgrade", downgrades(context, SERVICE))
    registry.stream(f"/{SERVICE}/Snapshot", Snapshot(context, SERVICE))


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
            response.errors.insert(0, errors.NO_LEADER.text)
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
        if context.no_leader(call, stats) or context.malformed(
            call, stats, rpc_pb2.StatusRequest.FromString, data
        ):
            return
        router.local(call, Method.STATUS, b"", 0, stats, answer)

    return status


def _alarm(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Alarm")

    def alarm(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.AlarmRequest.FromString, data)
            validate.check_alarm(request)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if request.action == rpc_pb2.AlarmRequest.GET:
            context.router.read(call, Method.ALARM, data, 0, False, stats)
        else:
            context.router.write(call, Method.SET_ALARM, data, 0, stats)

    return alarm


def _hash(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "Hash")

    def hash_(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats) or context.malformed(
            call, stats, rpc_pb2.HashRequest.FromString, data
        ):
            return
        context.router.local(call, Method.HASH, b"", 0, stats)

    return hash_


def _hash_kv(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "HashKV")

    def hash_kv(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            wanted = max(validate.parse(rpc_pb2.HashKVRequest.FromString, data).revision, 0)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if context.placement.shards == 1:
            context.router.read(call, Method.HASH_KV, data, 0, True, stats)
            return

        _Hash(context, call, data, wanted, stats).ask()

    return hash_kv


class _Hash:
    """One hash of all shards, which must have removed the same versions."""

    def __init__(self, context: Context, call: Call, data: bytes, wanted: int, stats: MethodStats) -> None:
        self._context = context
        self._call = call
        self._data = data
        self._wanted = wanted
        self._stats = stats
        self._left = _HASH_TRIES

    def ask(self) -> None:
        """Ask the host's replicas of all shards."""
        context = self._context
        if not self._call.closed:
            requests = [(shard, self._data) for shard in range(context.placement.shards)]
            Gather(context.router, self._call, Method.HASH_KV, requests, True, self._stats, self._answer,
                   context.refuse).start(self._wanted)

    def _answer(self, call: Call, revision: int, term: int, blob: bytes) -> None:
        context, tail = self._context, hash_answer(blob, self._wanted or revision)
        if tail is not None:
            self._stats.ok += 1
            call.reply(context.router.header(revision, term), tail)
        elif self._left:
            self._left -= 1
            context.router.loop.call_later(_HASH_AGAIN_S, self.ask)
        else:
            context.refuse(call, self._stats, EtcdError(errors.TIMEOUT))
