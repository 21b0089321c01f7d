"""musterpb.Shards, a service that etcd does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features import births
from cluster.features.growth import BIRTHS, LEVEL
from cluster.pb import shards_pb2
from cluster.wire.frames import BIRTHS_SINCE, GROWTH_SINCE, LOADS_SINCE
from cluster.wire.messages import Method
from proxy.routing.router import MethodStats
from proxy.services import moves
from proxy.shared.context import Call, Context, Registry, Serve

SERVICE = "musterpb.Shards"


def register(registry: Registry, context: Context) -> None:
    def unary(name: str, request: Any, serve: Serve) -> None:
        context.unary(registry, SERVICE, name, request, serve)

    def change(kind: int) -> Serve:
        return _asking(
            context, context.writing(Method.SHARD_CHANGE, bytes((kind,))), BIRTHS_SINCE,
            lambda _: errors.GROWTH_UNKNOWN.error(level=BIRTHS, known=BIRTHS - 1))

    unary("EnableGrowth", shards_pb2.EnableGrowthRequest, _asking(
        context, context.writing(Method.GROW), GROWTH_SINCE,
        lambda request: errors.GROWTH_UNKNOWN.error(level=request.level or LEVEL, known=0)))
    unary("AddShard", shards_pb2.AddShardRequest, change(births.ADD))
    unary("RetireShard", shards_pb2.RetireShardRequest, change(births.RETIRE))
    # it changes nothing, but only the leader knows
    unary("Advice", shards_pb2.AdviceRequest, _asking(
        context, context.writing(Method.ADVICE), LOADS_SINCE, lambda _: EtcdError(errors.ADVICE_UNKNOWN)))
    moves.register(registry, context, SERVICE)


def _asking(context: Context, ask: Serve, since: int, unknown: Callable[[Any], EtcdError]) -> Serve:
    """Asks a leader that knows how, which its hello says ``since`` a form. ``unknown``: refuses a request to
    another one."""

    def serve(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if context.leader_lacks(since):
            raise unknown(request)
        ask(call, data, request, stats)

    return serve
