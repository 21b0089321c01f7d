"""Spans of calls, sent to a collector by OpenTelemetry's SDK, named and described as etcd's (``otelgrpc``),
and sampled as the caller's span, or else by rate.

A thread of the SDK sends them; what the collector does not take in time is dropped. A call that is not
sampled costs a look at one field.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cluster.repeats import Repeats
from cluster.settings import Tracing

log = structlog.get_logger("front")

_SCOPE = "muster"
_PARENT, _STATE = "traceparent", "tracestate"

_EXPORT_LIMIT_S = 5.0
_CLOSE_LIMIT_S = 2.0
_RATE_OF = 1_000_000


class CallSpan:
    """See ``cluster.machine.Span``."""

    __slots__ = ("_received", "_sent", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._received = 0
        self._sent = 0

    def received(self, size_bytes: int) -> None:
        self._received += 1
        self._message("RECEIVED", self._received, size_bytes)

    def sent(self, size_bytes: int) -> None:
        self._sent += 1
        self._message("SENT", self._sent, size_bytes)

    def _message(self, kind: str, number: int, size_bytes: int) -> None:
        self._span.add_event(
            "message", {"message.type": kind, "message.id": number, "message.uncompressed_size": size_bytes})

    def end(self, status: int, message: str) -> None:
        self._span.set_attribute("rpc.grpc.status_code", status)
        self._span.set_status(Status(StatusCode.ERROR, message) if status else Status(StatusCode.OK))
        self._span.end()


class OtlpTracer:
    """See ``cluster.machine.Tracer``."""

    def __init__(self, settings: Tracing, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        told = {"service.name": settings.service_name}
        if settings.instance_id:
            told["service.instance.id"] = settings.instance_id
        rate = settings.sampling_rate
        self._begins = rate > 0  # traces of its own
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(rate / _RATE_OF) if rate else ALWAYS_OFF),
            resource=Resource(told),
            shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=settings.address, insecure=True, timeout=_EXPORT_LIMIT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_SCOPE)
        self._parents = TraceContextTextMapPropagator()
        _tell_troubles()

    def begin(self, path: bytes, field: Callable[[bytes], bytes], peer: str) -> CallSpan | None:
        parent = field(b"traceparent")
        context = Context()
        if parent:
            named = {_PARENT: parent.decode("latin-1"), _STATE: field(b"tracestate").decode("latin-1")}
            context = self._parents.extract(named, context)
        elif not self._begins:
            return None
        service, _, method = path.decode("latin-1")[1:].partition("/")
        address, _, port = peer.rpartition(":")
        span = self._tracer.start_span(
            f"{service}/{method}", context, SpanKind.SERVER,
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "net.peer.ip": address.strip("[]"),
                "net.peer.port": port,
            })
        return CallSpan(span) if span.is_recording() else None

    async def close(self) -> None:
        """A stuck collector does not delay the end."""
        done = asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            self._loop.call_soon_threadsafe(done.set)

        threading.Thread(target=end, name="traces", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), _CLOSE_LIMIT_S)
        except TimeoutError:
            log.warning("the trace collector does not accept the last spans")


class _Troubles(logging.Handler):
    """The SDK's complaints, at a bounded rate, in this program's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        if self._repeats.news(record.msg, time.monotonic()):
            log.warning("cannot send traces", error=record.getMessage())


def _tell_troubles() -> None:
    of_sdk = logging.getLogger("opentelemetry")
    of_sdk.propagate = False
    of_sdk.handlers = [_Troubles()]
