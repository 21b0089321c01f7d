"""HTTP at a proxy: requests are counted by the names of etcd's v2 proxy, and those of v2 are refused while no
member is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from cluster.histogram import Histogram, doubling
from proxy.http.requests import BrokenBody, HttpHandler, HttpRequest
from proxy.shared.unreached import NO_ENDPOINTS, NOBODY, OWN

_OWN = (OWN, "/metrics")  # of the proxy itself
_TOOK_S = doubling(0.0005, 13)  # etcd's
# what counts by its name; any other word of a client's counts as one
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
_OTHER = "OTHER"
_UNREAD = b'{"message":"httpproxy: failed to read request body: %b"}'


class Proxied:
    """``reaches``: whether any member answers."""

    def __init__(self, reaches: Callable[[], bool], clock: Callable[[], float] = perf_counter) -> None:
        self._reaches = reaches
        self._clock = clock
        self._requests: Counter[str] = Counter()
        self._handled: Counter[tuple[str, int]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._took: dict[str, Histogram] = {}

    def pass_on(self, request: HttpRequest, handler: HttpHandler) -> None:
        path, method = request.path, request.method
        lost = path.startswith("/v2/") and not self._reaches()
        if path in _OWN:
            if lost and method == "GET":
                request.respond(200, NO_ENDPOINTS, content_type="text/plain; charset=utf-8")
            else:
                handler(request)
            return
        self._requests[_counts_as(method)] += 1
        if isinstance(request.body, BrokenBody):  # a member would take one that is no form
            request.respond(500, _UNREAD % request.body.mistake.encode(), (), "application/json")
        elif lost:
            self._dropped[_counts_as(method), "zero_endpoints"] += 1
            request.respond(503, NOBODY, (), "application/json")
        else:
            request.on_start = partial(self.handled, method, self._clock())
            handler(request)

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
