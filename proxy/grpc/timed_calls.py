"""Calls that are timed, for ``grpc_server_handling_seconds`` (with ``--metrics=extensive`` only, as in etcd),
and for a slow log with a limit of few milliseconds (``proxy.routing.slow``).

They take the place of the other kinds then; without the flags a call carries none of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.histogram import DEFAULT_S, Histogram
from proxy.grpc import wire
from proxy.grpc.calls import Call
from proxy.grpc.kinds import StreamCall, UnaryCall
from proxy.http.http2 import Connection, HeaderBlock

Ended = Callable[[str, str, float], None]  # a call's path, its client's address, how long it took in s


@dataclass(slots=True, frozen=True)
class Timing:
    """What wants to know how long a call took that no HTTP/2 stream carries."""

    path: str
    times: Histogram | None
    slow: Ended | None

    def observe(self, client: str, took_s: float) -> None:
        if self.times is not None:
            self.times.observe(took_s)
        if self.slow is not None:
            self.slow(self.path, client, took_s)


class _Timed(Call):
    __slots__ = ()
    _began: float  # negative once it is counted

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._began = time.monotonic()  # type: ignore[misc]  # a slot of each kind

    def finish(self, status: int = 0, message: str = "") -> None:
        super().finish(status, message)
        self._observe()

    def cancelled(self, code: int) -> None:
        super().cancelled(code)
        self._observe()

    def expired(self) -> None:
        super().expired()
        self._observe()

    def _observe(self) -> None:
        if self._began < 0:
            return
        route, took_s = self.headers.route, time.monotonic() - self._began
        self._began = -1.0  # type: ignore[misc]  # a slot of each kind
        if route.times is not None:
            route.times.observe(took_s)
        if route.slow is not None:
            route.slow(wire.text_of(self.path), self.peer, took_s)


class TimedUnaryCall(_Timed, UnaryCall):
    """One request, one answer."""

    __slots__ = ("_began",)
    timed = True

    def reply(self, *parts: bytes) -> None:
        super().reply(*parts)
        self._observe()


class TimedStreamCall(_Timed, StreamCall):
    """A stream of messages."""

    __slots__ = ("_began",)


KINDS: dict[type[Call], type[Call]] = {UnaryCall: TimedUnaryCall, StreamCall: TimedStreamCall}


def new_times() -> Histogram:
    """For one method."""
    return Histogram(DEFAULT_S)
