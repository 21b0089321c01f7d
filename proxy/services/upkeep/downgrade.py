"""Maintenance/Downgrade: VALIDATE is a linearizable read, ENABLE and CANCEL are writes
(``cluster.features.downgrade``)."""

from __future__ import annotations

from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.features import downgrade
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.shared.context import Call, Context, UnaryHandler


def _checked(request: Any) -> None:
    if request.action not in (downgrade.VALIDATE, downgrade.ENABLE, downgrade.CANCEL):
        raise EtcdError(errors.UNKNOWN_DOWNGRADE_ACTION)
    if request.action != downgrade.CANCEL:
        downgrade.target_version(request.version)


def downgrades(context: Context, service: str) -> UnaryHandler:
    """The method's handler."""
    stats = context.method("unary", service, "Downgrade")

    def handle(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.DowngradeRequest.FromString, data)
            # what is no version costs no quorum; who is judged is told first whether he may ask
            if not context.router.principals.judged(call):
                _checked(request)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if request.action == downgrade.VALIDATE:
            context.router.read(call, Method.DOWNGRADE, data, 0, False, stats)
        else:
            context.router.write(call, Method.SET_DOWNGRADE, data, 0, stats)

    return handle
