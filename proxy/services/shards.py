"""musterpb.Shards, a service that etcd does not have."""

from __future__ import annotations

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
    context.unary(registry, SERVICE, "EnableGrowth", shards_pb2.EnableGrowthRequest, _enable_growth(context))
    context.unary(
        registry, SERVICE, "AddShard", shards_pb2.AddShardRequest, _change_shard(context, births.ADD))
    context.unary(
        registry, SERVICE, "RetireShard", shards_pb2.RetireShardRequest,
        _change_shard(context, births.RETIRE))
    context.unary(registry, SERVICE, "Advice", shards_pb2.AdviceRequest, _advice(context))
    moves.register(registry, context, SERVICE)


def _enable_growth(context: Context) -> Serve:
    write = context.writing(Method.GROW)

    def enable_growth(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if context.leader_lacks(GROWTH_SINCE):
            raise errors.GROWTH_UNKNOWN.error(level=request.level or LEVEL, known=0)
        write(call, data, request, stats)

    return enable_growth


def _advice(context: Context) -> Serve:
    ask = context.writing(Method.ADVICE)  # it changes nothing, but only the leader knows

    def advice(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if context.leader_lacks(LOADS_SINCE):
            raise EtcdError(errors.ADVICE_UNKNOWN)
        ask(call, data, request, stats)

    return advice


def _change_shard(context: Context, kind: int) -> Serve:
    write = context.writing(Method.SHARD_CHANGE, bytes((kind,)))

    def change_shard(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if context.leader_lacks(BIRTHS_SINCE):
            raise errors.GROWTH_UNKNOWN.error(level=BIRTHS, known=BIRTHS - 1)
        write(call, data, request, stats)

    return change_shard
