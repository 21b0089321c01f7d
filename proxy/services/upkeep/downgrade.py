"""Maintenance/Downgrade: VALIDATE is a linearizable read, ENABLE and CANCEL are writes
(``cluster.features.downgrade``)."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.features import downgrade
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.shared.context import Call, Context, UnaryHandler


def downgrades(context: Context, service: str) -> UnaryHandler:
    """The method's handler."""
    stats = context.method("unary", service, "Downgrade")

    def handle(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.DowngradeRequest.FromString, data)
            if request.action not in (downgrade.VALIDATE, downgrade.ENABLE, downgrade.CANCEL):
                raise EtcdError(errors.UNKNOWN_DOWNGRADE_ACTION)
            if (
                request.action != downgrade.CANCEL
            ):  # what is no version costs no quorum, and no log entry holds it
                downgrade.target_version(request.version)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if request.action == downgrade.VALIDATE:
            context.router.read(call, Method.DOWNGRADE, data, 0, False, stats)
        else:
            context.router.write(call, Method.SET_DOWNGRADE, data, 0, stats)

    return handle
