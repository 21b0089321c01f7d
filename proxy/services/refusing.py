"""Ranges of a revision that a host's fronts know to be compacted: which they are, how they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from proxy.routing.router import MethodStats
from proxy.shared.context import Call, Context


def shards_shown(context: Context, request: Any) -> Sequence[int]:
    """The shards that had a range at the revision that it names. EtcdError: that is below the pruning, or
    compacted, as fronts know before the host's replica."""
    shards = context.placement.shards_at(request.key, request.range_end, max(request.revision, 0))
    if request.serializable:
        context.router.check_compacted(request.revision)
    return shards


def refuse_range(context: Context, request: Any, call: Call, stats: MethodStats, error: EtcdError) -> None:
    """The permission is judged first, as in etcd. That takes a read index, for which a serializable read does
    not wait: this host's replica judges it."""

    def judged(refused: EtcdError | None) -> None:
        context.refuse(call, stats, refused or error)

    ask, local = context.hub.permissions.ask, request.serializable
    judges = error.kind in (errors.COMPACTED, errors.FUTURE_REV)
    if not judges or not ask(call, request.key, request.range_end, judged, local=local):
        context.refuse(call, stats, error)
