"""musterpb.Shards, muster's own: what etcd has not."""

from __future__ import annotations

from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.growth import LEVEL
from cluster.pb import shards_pb2
from cluster.wire.frames import GROWTH_SINCE
from cluster.wire.messages import Method
from proxy.routing.router import MethodStats
from proxy.shared.context import Call, Context, Registry, Serve

SERVICE = "musterpb.Shards"


def register(registry: Registry, context: Context) -> None:
    context.unary(registry, SERVICE, "EnableGrowth", shards_pb2.EnableGrowthRequest, _enable_growth(context))


def _enable_growth(context: Context) -> Serve:
    write = context.writing(Method.GROW)

    def enable_growth(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        leader = context.router.routes[0].leader_link
        if leader is not None and leader.version < GROWTH_SINCE:
            text = errors.GROWTH_UNKNOWN.text.format(level=request.level or LEVEL, known=0)
            raise EtcdError(errors.GROWTH_UNKNOWN, text)
        write(call, data, request, stats)

    return enable_growth
