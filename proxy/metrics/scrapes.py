"""GET /metrics, for all scrapers of a front: one collection at a time, and a rest behind it. Requests that
come meanwhile share the next one. Each costs some 30 ms, half of it in a thread; any client may ask.
"""

from __future__ import annotations

import gzip
import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.http.requests import HttpRequest

REST_S = 0.1
LIMIT_S = 8.0  # a scraper waits for ten, as a rule
_TOGETHER = 20  # requests that are answered in a turn of the loop, some 1 ms


# Whichever later version is asked for. Each would be a form of its own, and there is no end of them
_OPEN_METRICS = "application/openmetrics-text; version=1.0.0; escaping="


T = TypeVar("T")
Soon = Callable[[Callable[[], None]], object]
_Encoder = Callable[[CollectorRegistry], bytes]


class _Form(NamedTuple):
    """Of an answer: requests of one form share its body."""

    content_type: str
    zipped: bool


class _Round:
    """Requests that one collection answers."""

    def __init__(self) -> None:
        self.requests: deque[tuple[HttpRequest, _Form]] = deque()
        self.encoders: dict[_Form, _Encoder] = {}
        self.bodies: dict[_Form, bytes] = {}
        self.over = False


class Scrapes:
    """Answers requests with what ``collect`` gives, later."""

    def __init__(self, collect: Callable[[Callable[[Iterable[Metric]], None]], None]) -> None:
        self._collect = collect
        self._waiting = _Round()
        self._busy = False
        # calls the first in a thread, then the second on the loop
        self.in_thread: Callable[[Callable[[], None], Callable[[], None]], None] = at_once
        self.soon: Soon = lambda then: then()  # calls it in the next turn of the loop
        self.rest: Callable[[Callable[[], None]], object] = lambda then: then()  # calls it after REST_S
        self.limit: Callable[[Callable[[], None]], object] = lambda then: None  # calls it after LIMIT_S

    def serve(self, request: HttpRequest) -> None:
        encoder, content_type = _encoder(request.headers.get("accept", ""))
        form = _Form(content_type, "gzip" in request.headers.get("accept-encoding", ""))
        self._waiting.requests.append((request, form))
        self._waiting.encoders[form] = encoder
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        this, self._waiting = self._waiting, _Round()
        self._busy = any(not request.closed for request, _ in this.requests)
        if self._busy:
            self.limit(lambda: self._answer(this))
            self._step(this, lambda: self._collect(
                lambda families: self._step(this, lambda: self._encode(this, list(families)))))

    def _step(self, this: _Round, work: Callable[[], None]) -> None:
        try:
            work()
        except HANDLER_MISTAKES as error:
            faults.met("collecting metrics", error)
            self._answer(this)

    def _encode(self, this: _Round, families: list[Metric]) -> None:
        registry = CollectorRegistry()
        registry.register(_Collected(families))

        def encode() -> None:
            for form, encoder in this.encoders.items():
                if this.over:
                    return
                text = encoder(registry)
                this.bodies[form] = gzip.compress(text, 1) if form.zipped else text  # a tenth: 0.2 ms

        self.in_thread(encode, lambda: self._answer(this))

    def _answer(self, this: _Round) -> None:
        """With what there is: a node that hangs holds up nobody's next scrape."""
        if this.over:
            return
        this.over = True

        def answered() -> None:
            this.encoders, this.bodies = {}, {}  # the timer of its limit holds it yet
            self.rest(self._begin)

        in_turns(this.requests, lambda one: _respond(*one, this.bodies.get(one[1])), self.soon, answered)


def in_turns(waiting: deque[T], respond: Callable[[T], None], soon: Soon, then: Callable[[], None]) -> None:
    """Answer requests, some in each turn of the loop: any client may ask a thousand times."""
    for _ in range(min(len(waiting), _TOGETHER)):
        try:
            respond(waiting.popleft())
        except HANDLER_MISTAKES as error:
            faults.met("answering with metrics", error)
    if waiting:
        soon(lambda: in_turns(waiting, respond, soon, then))
    else:
        then()


def _respond(request: HttpRequest, form: _Form, body: bytes | None) -> None:
    if request.closed:
        return
    if body is None:
        request.respond(500, b"metrics cannot be collected now\n", (), "text/plain")
    else:
        fields = [("content-encoding", "gzip")] if form.zipped else []
        request.respond(200, body, fields, form.content_type)


class _Collected:
    """prometheus_client's collector."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families


def at_once(work: Callable[[], None], then: Callable[[], None]) -> None:
    work()
    then()


@lru_cache(64)
def _encoder(accept: str) -> tuple[_Encoder, str]:
    """The exposition format that a scraper asks for, with its content type; plain text if prometheus_client
    cannot read the header."""
    try:
        encoder, content_type = choose_encoder(accept)
        kind, _, escaping = content_type.partition("; escaping=")
        if escaping and kind.startswith("application/openmetrics-text"):
            encoder, content_type = choose_encoder(_OPEN_METRICS + escaping)
    except (ValueError, TypeError, LookupError):
        encoder, content_type = choose_encoder("")
    if content_type.startswith("text/plain"):
        return lambda registry: go_numbers(encoder(registry)), content_type
    return encoder, content_type  # OpenMetrics wants 1.0


_BOUND = re.compile(rb'(\ble="\d+)\.0(?=")')
_COUNTER = re.compile(
    rb"^(# TYPE etcd_(?:server_(?:health_success|health_failures|learner_promote_(?:successes|failures))"
    rb"|network_snapshot_(?:send|receive)_(?:success|failures)) )gauge")
_LAST = re.compile(rb"(?<=\d)\.0$")


def go_numbers(text: bytes) -> bytes:
    """Whole numbers, and bounds of buckets, as Go's library writes them: 1, not 1.0. Counters without _total
    are declared as such."""
    return b"".join(
        _COUNTER.sub(rb"\1counter", line)
        if line.startswith(b"#")
        else _LAST.sub(b"", _BOUND.sub(rb"\1", line))
        for line in text.splitlines(True))
