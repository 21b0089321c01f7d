"""Maintenance/Defragment: this host's replica of every shard, one after the other, while requests go on
beside it."""

from __future__ import annotations

from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.routing.router import Waiting
from proxy.shared.context import Call, Context, UnaryHandler

_LIMIT_S = 3600.0  # of one shard: etcd's member has no limit, its client has


def defragment(context: Context, service: str) -> UnaryHandler:
    """The method's handler."""
    stats = context.method("unary", service, "Defragment")
    router, shards = context.router, context.placement.shards

    def ask(call: Call, shard: int) -> None:
        router.local(call, Method.DEFRAGMENT, b"", shard, stats, answered, None, _LIMIT_S)

    def answered(waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if call.closed:
            return  # the nodes tell when it is over
        if status != 0:
            context.defragmenting.ends(call)
            context.refuse(call, stats, EtcdError.decode(body))
        elif waiting.shard + 1 < shards:
            ask(call, waiting.shard + 1)
        else:
            context.defragmenting.ends(call)
            stats.ok += 1
            call.reply(b"")  # no header, as etcd's

    def handle(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats) and not context.malformed(
            call, stats, rpc_pb2.DefragmentRequest.FromString, data
        ):
            context.defragmenting.begins(call)
            ask(call, 0)

    return handle
