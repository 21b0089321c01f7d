"""etcdserverpb.Watch: opens and ends streams; ``proxy.watch`` serves them."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from proxy.shared.context import Call, Context, Registry
from proxy.watch.stream import WatchStream

SERVICE = "etcdserverpb.Watch"


def register(registry: Registry, context: Context) -> None:
    registry.stream(f"/{SERVICE}/Watch", WatchService(context))


class WatchService:
    def __init__(self, context: Context, grpc_type: str = "bidi_stream") -> None:
        self._context = context
        self._hub = context.hub
        context.on_stop.append(self.stop)
        self._stats = context.method(grpc_type, SERVICE, "Watch")

    def opened(self, call: Call) -> None:
        self._stats.started += 1
        call.context = None
        if self._context.no_stream(call, self._stats, self._leaderless):
            return
        call.context = stream = WatchStream(self._hub, call, self._stats)
        self._hub.open(stream)

    def message(self, call: Call, data: bytes) -> None:
        stream: WatchStream | None = call.context
        if stream is None or stream.closed:
            return
        self._stats.received += 1
        try:
            stream.request(validate.parse_streamed(rpc_pb2.WatchRequest.FromString, data))
        except EtcdError as e:
            self._end(call, e)

    def half_closed(self, call: Call) -> None:
        ...

    def cancelled(self, call: Call) -> None:
        stream: WatchStream | None = call.context
        if stream is not None and not stream.closed:
            self._close(call, stream)
            self._context.given_up(call, self._stats)

    def stop(self) -> None:
        for stream in tuple(self._hub.streams):
            if stream.stats is self._stats:
                self._end(stream.call, EtcdError(errors.STOPPED))

    def _leaderless(self, call: Call) -> None:
        self._end(call, EtcdError(errors.NO_LEADER))

    def _end(self, call: Call, error: EtcdError) -> None:
        stream: WatchStream | None = call.context
        if stream is not None and not stream.closed:
            self._close(call, stream)
            self._context.refuse(call, self._stats, error)

    def _close(self, call: Call, stream: WatchStream) -> None:
        self._hub.close(stream)
        call.context = None
        self._context.unguard(call)
