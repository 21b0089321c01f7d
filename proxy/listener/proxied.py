"""HTTP at a proxy: requests are counted by the names of etcd's v2 proxy, and those for members are refused
while no member is reached. ``muster proxy``, as etcd's grpc-proxy, answers all but v2's by itself then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from time import perf_counter

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from cluster.histogram import Histogram, doubling
from proxy.http.requests import JSON, TEXT, BrokenBody, HttpHandler, HttpRequest
from proxy.shared.unreached import NO_ENDPOINTS, NOBODY, OWN

_OWN = (OWN, "/metrics")  # of the proxy itself
_MUSTERS = "/muster/"  # the same; no etcd has them
_TOOK_S = doubling(0.0005, 13)  # etcd's
# what counts by its name; any other word of a client's counts as one
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
_OTHER = "OTHER"
# with 502; the number of members
_SILENT = b'{"message":"httpproxy: unable to get response from %d endpoint(s)"}'
_UNREAD = b'{"message":"httpproxy: failed to read request body: %b"}'


class Proxied:
    """``reaches``: whether any member answers. ``in_vain``: how many were tried since, without an answer.
    ``failure_wait_s``: for so long nobody is told that these were tried; below 0: all but v2 is the proxy's
    own."""

    def __init__(self, reaches: Callable[[], bool], clock: Callable[[], float] = perf_counter,
                 in_vain: Callable[[], int] = int, failure_wait_s: float = -1.0) -> None:
        self._reaches = reaches
        self._clock = clock
        self._in_vain = in_vain
        self._failure_wait_s = failure_wait_s
        self._aside_till = -inf  # they are not tried before, as far as clients are told
        self._requests: Counter[str] = Counter()
        self._handled: Counter[tuple[str, int]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._took: dict[str, Histogram] = {}

    def pass_on(self, request: HttpRequest, handler: HttpHandler) -> None:
        path, method = request.path, request.method
        lost = not self._reaches()
        if not lost:
            self._aside_till = -inf
        elif self._failure_wait_s < 0:
            lost = path.startswith("/v2/")
        if path in _OWN or path.startswith(_MUSTERS):
            if lost and path == OWN and method == "GET":
                request.respond(200, NO_ENDPOINTS, content_type=TEXT)
            else:
                handler(request)
            return
        self._requests[_counts_as(method)] += 1
        if isinstance(request.body, BrokenBody):  # a member would take one that is no form
            request.respond(500, _UNREAD % request.body.mistake.encode(), (), JSON)
        elif lost:
            self._lost(request, _counts_as(method))
        else:
            request.on_start = partial(self.handled, method, self._clock())
            handler(request)

    def _lost(self, request: HttpRequest, method: str) -> None:
        """Refuse it. As at etcd one request finds the members dead, and later ones that none is left."""
        now = self._clock()
        silent = self._in_vain() if self._failure_wait_s >= 0 and now >= self._aside_till else 0
        if silent:
            self._aside_till = now + self._failure_wait_s
            self._dropped[method, "failed_sending_request"] += silent
            self._dropped[method, "failed_getting_response"] += 1
            request.respond(502, _SILENT % silent, (), JSON)
        else:
            self._dropped[method, "zero_endpoints"] += 1
            request.respond(503, NOBODY, (), JSON)

    def handled(self, method: str, began: float, status: int) -> None:
        method = _counts_as(method)
        self._handled[method, status] += 1
        took = self._took.get(method)
        if took is None:
            took = self._took[method] = Histogram(_TOOK_S)
        took.observe(self._clock() - began)

    def samples(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "etcd_proxy_requests", "Requests over HTTP that came.", labels=["method"])
        for method, count in self._requests.items():
            requests.add_metric([method], count)
        handled = CounterMetricFamily(
            "etcd_proxy_handled", "Requests over HTTP that were answered.", labels=["method", "code"])
        for (method, status), count in self._handled.items():
            handled.add_metric([method, str(status)], count)
        dropped = CounterMetricFamily(
            "etcd_proxy_dropped", "Requests over HTTP that no member could answer.",
            labels=["method", "proxying_error"])
        for (method, error), count in self._dropped.items():
            dropped.add_metric([method, error], count)
        took = HistogramMetricFamily(
            "etcd_proxy_handling_duration_seconds", "How long answers over HTTP took to begin.",
            labels=["method"])
        for method, times in self._took.items():
            took.add_metric([method], times.buckets(), times.sum)
        yield from (family for family in (requests, handled, dropped, took) if family.samples)


def _counts_as(method: str) -> str:
    return method if method in _METHODS else _OTHER
