"""Calls with a span each, where ``--enable-distributed-tracing`` asks for it.

They take the place of the other kinds then. ``cluster.machine`` says what a span is told; a call that is not
sampled has none.
"""

from __future__ import annotations

from typing import Any

from cluster.machine import Span, Tracer
from proxy.grpc import wire
from proxy.grpc.calls import Call
from proxy.grpc.kinds import StreamCall, UnaryCall
from proxy.http.http2 import Connection, HeaderBlock

CANCELED = "context canceled"


class _Traced(Call):
    __slots__ = ()
    tracer: Tracer
    span: Span | None
    tap: type[UnaryTap] | type[StreamTap]

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        span = self.span = self.tracer.begin(self.path, self.field, self.peer)  # type: ignore[misc]  # a slot of each kind
        if span is not None:
            self.handler = self.tap(self.handler, span)

    def send(self, *parts: bytes | memoryview) -> None:
        self._sent(parts)
        super().send(*parts)

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        self._end_span(status, message)
        super().finish(status, message)

    def cancelled(self, code: int) -> None:
        self._end_span(wire.CANCELLED, CANCELED)
        super().cancelled(code)

    def expired(self) -> None:
        if not (self.closed or self.ending):
            self._end_span(wire.DEADLINE_EXCEEDED, "context deadline exceeded")
        super().expired()

    def _sent(self, parts: tuple[bytes | memoryview, ...]) -> None:
        if self.span is not None:
            self.span.sent(sum(map(len, parts)))

    def _end_span(self, status: int, message: str = "") -> None:
        if self.span is not None:
            span, self.span = self.span, None  # type: ignore[misc]  # a slot of each kind
            span.end(status, message)


class UnaryTap:
    """Before a call's handler: notes its request."""

    __slots__ = ("_handler", "_span")

    def __init__(self, handler: Any, span: Span) -> None:
        self._handler = handler
        self._span = span

    def __call__(self, call: Call, data: bytes) -> None:
        self._span.received(len(data))
        self._handler(call, data)


class StreamTap:
    """Before a stream's handler: notes its requests."""

    __slots__ = ("_handler", "_span", "cancelled", "half_closed", "opened")

    def __init__(self, handler: Any, span: Span) -> None:
        self._handler = handler
        self._span = span
        self.opened = handler.opened
        self.half_closed = handler.half_closed
        self.cancelled = handler.cancelled

    def message(self, call: Call, data: bytes) -> None:
        self._span.received(len(data))
        self._handler.message(call, data)


class _TracedUnary(_Traced, UnaryCall):
    __slots__ = ()
    tap = UnaryTap

    def reply(self, *parts: bytes) -> None:
        self._sent(parts)
        self._end_span(wire.OK)
        super().reply(*parts)


class _TracedStream(_Traced, StreamCall):
    __slots__ = ()
    tap = StreamTap

    def send_framed(self, data: bytes) -> None:
        at = 0
        while self.span is not None and at < len(data):
            _, size = wire.PREFIX.unpack_from(data, at)
            self.span.sent(size)
            at += wire.PREFIX.size + size
        super().send_framed(data)


def traced(kind: type[Call], tracer: Tracer) -> type[Call]:
    """A kind of calls whose spans this tracer makes."""
    base = _TracedStream if issubclass(kind, StreamCall) else _TracedUnary
    return type(f"Traced{kind.__name__}", (base, kind), {"__slots__": ("span",), "tracer": tracer})
