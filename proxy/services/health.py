"""grpc.health.v1.Health: the one service name "" is SERVING while this front runs, unless the feature gate
StopGRPCServiceOnDefrag is open and this host defragments."""

from __future__ import annotations

from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from proxy.metrics.shard_facts import ShardFacts, gather
from proxy.routing.router import MethodStats
from proxy.shared.context import Call, Context, Registry

SERVICE = "grpc.health.v1.Health"
_SERVING = b"\x08\x01"
_NOT_SERVING = b"\x08\x02"
_SERVICE_UNKNOWN = b"\x08\x03"
_ONLY_SERVICE = b"\x0a\x06\x0a\x00\x12\x02"  # HealthListResponse: the status of "" follows
_CHECK = rpc_pb2.AuthUserGetRequest  # of the form of HealthCheckRequest, whose service is the name
_CANCELED, _NOT_FOUND = 1, 5
_LOOK_S = 0.25


def register(registry: Registry, context: Context) -> None:
    def check(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if request.name:
            stats.failed(_NOT_FOUND)
            call.finish(_NOT_FOUND, "unknown service")
        else:
            stats.ok += 1
            call.reply(_status(context))

    def list_all(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        stats.ok += 1
        call.reply(_ONLY_SERVICE + _status(context))

    context.unary(registry, SERVICE, "Check", _CHECK, check)
    context.unary(registry, SERVICE, "List", rpc_pb2.AuthEnableRequest, list_all)  # as empty as its own
    registry.stream(f"/{SERVICE}/Watch", HealthWatch(context))
    if context.settings.stop_on_defrag:
        context.on_tick.append(_Looks(context).tick)


class _Looks:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = False
        self._next = 0.0

    def tick(self, now: float) -> None:
        if now >= self._next and not self._asking:
            self._next, self._asking = now + _LOOK_S, True
            gather(self._context, self._told)

    def _told(self, shards: list[ShardFacts]) -> None:
        self._asking = False
        self._context.defragmenting.told(any(facts.get("defragmenting") for facts in shards))


def _status(context: Context) -> bytes:
    return _NOT_SERVING if context.defragmenting else _SERVING


class HealthWatch:
    def __init__(self, context: Context) -> None:
        self._stats = context.method("server_stream", SERVICE, "Watch")
        self._context = context
        self._calls: set[Call] = set()
        self._told: set[Call] = set()  # of these, those that asked for a known service
        context.on_stop.append(self.stop)
        context.defragmenting.changed.append(self._changed)

    def opened(self, call: Call) -> None:
        self._stats.started += 1
        if not self._context.no_stream(call, self._stats, self._leaderless):
            self._calls.add(call)

    def message(self, call: Call, data: bytes) -> None:
        """The first message is the request. Others are ignored, as by grpc-go's server streams."""
        if call.closed or call.context:
            return
        call.context = True
        try:
            known = not validate.parse_streamed(_CHECK.FromString, data).name
        except EtcdError as e:
            self._forget(call)
            self._context.refuse(call, self._stats, e)
            return
        if known:
            self._told.add(call)
        self._stats.sent += 1
        call.send(_status(self._context) if known else _SERVICE_UNKNOWN)

    def _changed(self) -> None:
        for call in self._told:
            self._stats.sent += 1
            call.send(_status(self._context))

    def half_closed(self, call: Call) -> None:
        if not (call.context or call.closed):  # without a request
            self._forget(call)
            self._context.refuse_empty(call, self._stats)

    def cancelled(self, call: Call) -> None:
        self._forget(call)
        self._context.given_up(call, self._stats)

    def _leaderless(self, call: Call) -> None:
        self._forget(call)
        self._stats.failed(_CANCELED)
        call.finish(_CANCELED, "Stream has ended.")  # grpc-go's words for any end of its context

    def _forget(self, call: Call) -> None:
        self._calls.discard(call)
        self._told.discard(call)
        self._context.unguard(call)

    def stop(self) -> None:
        for call in tuple(self._calls):
            self._forget(call)
            self._context.refuse(call, self._stats, errors.STOPPED)
