"""What a client's calls can be told to: spans of OpenTelemetry, figures of the program's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended. ``method``: ``KV/Put``; ``endpoints``: of its attempts, in turn; ``error``: what
    the caller gets, None where it gets an answer."""

    method: str
    seconds: float
    endpoints: tuple[str, ...]
    error: BaseException | None


class Begun(Protocol):
    """A call under way. ``headers`` are sent with each attempt; ``end`` is called once."""

    @property
    def headers(self) -> Headers: ...

    def end(self, call: Call) -> None: ...


class Observer(Protocol):
    """Told of each call of a client, in its caller's thread: be short. What it raises, the caller gets. The
    renewals of leases, and watches, are no calls."""

    def begin(self, method: str) -> Begun: ...


class Calls:
    """An observer that calls a function with each call that has ended: for counters and histograms."""

    headers: Headers = ()

    def __init__(self, told: Callable[[Call], None]) -> None:
        self.end = told

    def begin(self, method: str) -> Begun:
        return self


class Spans:
    """An observer that makes a span of each call, within the caller's, and sends its context along: muster's
    hosts hang theirs on it. Needs opentelemetry-api (``muster-client[telemetry]``): ImportError."""

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import propagate, trace

        self._tracer = trace.get_tracer("muster_client", tracer_provider=provider)
        self._propagate, self._trace = propagate, trace

    def begin(self, method: str) -> Begun:
        service, _, name = method.partition("/")
        span = self._tracer.start_span(
            f"etcdserverpb.{method}", kind=self._trace.SpanKind.CLIENT,
            attributes={"rpc.system": "grpc", "rpc.service": f"etcdserverpb.{service}", "rpc.method": name})
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, self._trace.set_span_in_context(span))
        return _Span(self._trace, span, tuple(carrier.items()))


class _Span:
    def __init__(self, trace: Any, span: Any, headers: Headers) -> None:
        self._trace, self._span, self.headers = trace, span, headers

    def end(self, call: Call) -> None:
        span = self._span
        span.set_attribute("muster.attempts", len(call.endpoints))
        if call.endpoints:
            span.set_attribute("server.address", call.endpoints[-1])
        if call.error is not None:
            span.record_exception(call.error)
            span.set_status(self._trace.StatusCode.ERROR, str(call.error))
        span.end()
