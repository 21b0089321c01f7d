"""Calls with a span each, where ``--enable-distributed-tracing`` asks for it.

These kinds of calls take the place of the others then; without the flag nothing of it is on a call's way.
What a span is told is in ``cluster.machine``; a call that is not sampled has none.
"""

from __future__ import annotations

from typing import Any

from cluster.machine import Span, Tracer
from proxy.grpc import wire
from proxy.grpc.calls import Call, StreamCall, UnaryCall
from proxy.grpc.timed_calls import TimedStreamCall, TimedUnaryCall
from proxy.http.http2 import Connection, HeaderBlock

CANCELED = "context canceled"


class _Traced(Call):
    """One with a span, from its header block to its status or its client's reset."""

    __slots__ = ()
    tracer: Tracer
    span: Span | None

    def send(self, *parts: bytes | memoryview) -> None:
        sent(self, parts)
        super().send(*parts)

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        end(self, status, message)
        super().finish(status, message)

    def cancelled(self, code: int) -> None:
        end(self, wire.CANCELLED, CANCELED)
        super().cancelled(code)


class _TracedUnary(_Traced, UnaryCall):
    """One request, one answer."""

    __slots__ = ()

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        begin(self, self.tracer, UnaryTap)

    def reply(self, *parts: bytes) -> None:
        sent(self, parts)
        end(self, wire.OK)
        super().reply(*parts)


class _TracedStream(_Traced, StreamCall):
    """A stream of messages."""

    __slots__ = ()

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        begin(self, self.tracer, StreamTap)

    def send_framed(self, data: bytes) -> None:
        at = 0
        while self.span is not None and at < len(data):
            _, size = wire.PREFIX.unpack_from(data, at)
            self.span.sent(size)
            at += wire.PREFIX.size + size
        super().send_framed(data)

    def expired(self) -> None:
        if not (self.closed or self.ending):
            end(self, wire.DEADLINE_EXCEEDED, "context deadline exceeded")
        super().expired()


class TracedUnaryCall(_TracedUnary):
    """One that is not timed."""

    __slots__ = ("span",)


class TracedStreamCall(_TracedStream):
    """One that is not timed."""

    __slots__ = ("span",)


class TracedTimedUnaryCall(_TracedUnary, TimedUnaryCall):
    """One that is timed, too."""

    __slots__ = ("span",)


class TracedTimedStreamCall(_TracedStream, TimedStreamCall):
    """One that is timed, too."""

    __slots__ = ("span",)


class UnaryTap:
    """Stands before a call's handler, and notes its request."""

    __slots__ = ("_handler", "_span")

    def __init__(self, handler: Any, span: Span) -> None:
        self._handler = handler
        self._span = span

    def __call__(self, call: Call, data: bytes) -> None:
        self._span.received(len(data))
        self._handler(call, data)


class StreamTap:
    """Stands before a stream's handler, and notes its requests."""

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


def begin(call: Any, tracer: Tracer, tap: type[UnaryTap] | type[StreamTap]) -> None:
    """A new call's span, if it is sampled."""
    span = call.span = tracer.begin(call.path, call.field, call.peer)
    if span is not None:
        call.handler = tap(call.handler, span)


def sent(call: Any, parts: tuple[bytes | memoryview, ...]) -> None:
    """A message goes to the client."""
    if call.span is not None:
        call.span.sent(sum(map(len, parts)))


def end(call: Any, status: int, message: str = "") -> None:
    """The call ends; what comes after that counts no more."""
    if call.span is not None:
        span, call.span = call.span, None
        span.end(status, message)


_KINDS: dict[type[Call], type[Call]] = {
    UnaryCall: TracedUnaryCall,
    StreamCall: TracedStreamCall,
    TimedUnaryCall: TracedTimedUnaryCall,
    TimedStreamCall: TracedTimedStreamCall,
}


def traced(kind: type[Call], tracer: Tracer) -> type[Call]:
    """A kind of calls whose spans this one makes."""
    made = _KINDS[kind]
    return type(made.__name__, (made,), {"__slots__": (), "tracer": tracer})
