"""How long calls take, by method: ``grpc_server_handling_seconds``, which etcd has with
``--metrics=extensive`` only; and which took long, where few milliseconds are long
(``proxy.routing.slow``).

These kinds of calls take the place of the others then. Without the flags, nothing of it is on a call's way.
"""

from __future__ import annotations

import time

from cluster.histogram import DEFAULT_S, Histogram
from proxy.grpc import wire
from proxy.grpc.calls import Call, StreamCall, UnaryCall
from proxy.http.http2 import Connection, HeaderBlock


class TimedUnaryCall(UnaryCall):
    """One that is timed, from its header block to its answer."""

    __slots__ = ("_began",)
    timed = True

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._began = time.monotonic()

    def reply(self, *parts: bytes) -> None:
        super().reply(*parts)
        self._began = observe(self, self._began)

    def finish(self, status: int = 0, message: str = "") -> None:
        super().finish(status, message)
        self._began = observe(self, self._began)

    def cancelled(self, code: int) -> None:
        super().cancelled(code)
        self._began = observe(self, self._began)

    def expired(self) -> None:
        super().expired()
        self._began = observe(self, self._began)


class TimedStreamCall(StreamCall):
    """One that is timed, from its header block to its status or its client's reset."""

    __slots__ = ("_began",)

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._began = time.monotonic()

    def finish(self, status: int = 0, message: str = "") -> None:
        super().finish(status, message)
        self._began = observe(self, self._began)

    def cancelled(self, code: int) -> None:
        super().cancelled(code)
        self._began = observe(self, self._began)

    def expired(self) -> None:
        super().expired()
        self._began = observe(self, self._began)


def observe(call: Call, began: float) -> float:
    """Count a call that has ended; what ``began`` is from now on: negative, so that it counts once."""
    if began >= 0:
        route, took_s = call.headers.route, time.monotonic() - began
        if route.times is not None:
            route.times.observe(took_s)
        if route.slow is not None:
            route.slow(wire.text_of(call.path), call.peer, took_s)
    return -1.0


KINDS: dict[type[Call], type[Call]] = {UnaryCall: TimedUnaryCall, StreamCall: TimedStreamCall}


def new_times() -> Histogram:
    """For one method."""
    return Histogram(DEFAULT_S)
