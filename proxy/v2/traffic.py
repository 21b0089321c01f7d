"""Counts of requests for ``/v2/keys``, under the names of etcd's metrics. As in etcd, waits count only where
they fail at once, unreadable requests do not. Hot path: 1 us a request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cluster.histogram import Histogram, doubling
from proxy.v2.request import KeyRequest

_TOOK_S = doubling(0.0005, 13)  # etcd's
_READS, _FAILED = "etcd_debugging_store_reads", "muster_v2_gets_failed"
_WAITING = "etcd_debugging_store_watchers"


class Traffic:
    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.now = clock
        self.gets = self.gets_failed = self.recursive_gets = self.waits = 0
        self.waiting: Callable[[], int] = lambda: 0  # how many wait
        # adds the host's other fronts (proxy.metrics.siblings)
        self.gather: Callable[[Callable[[Iterable[Metric]], None]], None] = lambda done: done(self.samples())
        self._received: Counter[str] = Counter()
        self._failed: Counter[tuple[str, int]] = Counter()
        self._took: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_TOOK_S))

    def received(self, asked: KeyRequest) -> None:
        if asked.wait:
            self.waits += 1
        else:
            self._received[_kind(asked)] += 1

    def read(self, asked: KeyRequest, found: bool) -> None:
        if found:
            self.gets += 1
        else:
            self.gets_failed += 1
        if asked.recursive:
            self.recursive_gets += 1

    def done(self, kind: str, came: float) -> None:
        """A plain request was received and answered. ``kind``: GET, QGET, PUT."""
        self._received[kind] += 1
        if kind != "PUT":
            self.gets += 1
        self._took[kind].observe(self.now() - came)

    def ended(self, asked: KeyRequest, came: float, refused: int = 0) -> None:
        kind = _kind(asked)
        if refused:
            self._failed[kind, refused] += 1
        else:
            self._took[kind].observe(self.now() - came)

    def samples(self) -> Iterator[Metric]:
        text = "Requests of version 2 for keys, but for waits."
        received = CounterMetricFamily("etcd_http_received", text, labels=["method"])
        for method, count in self._received.items():
            received.add_metric([method], count)
        text = "Refused requests of version 2 for keys."
        failed = CounterMetricFamily("etcd_http_failed", text, labels=["method", "code"])
        for (method, status), count in self._failed.items():
            failed.add_metric([method, str(status)], count)
        text = "How long requests of version 2 for keys took."
        took = HistogramMetricFamily("etcd_http_successful_duration_seconds", text, labels=["method"])
        for method, times in self._took.items():
            took.add_metric([method], times.buckets(), times.sum)
        yield from (family for family in (received, failed, took) if family.samples)
        text = "Reads of the v2 tree by this host's clients."
        reads = CounterMetricFamily(_READS, text, labels=["action"])
        reads.add_metric(["get"], self.gets + self.gets_failed - self.recursive_gets)
        reads.add_metric(["getRecursive"], self.recursive_gets)
        yield reads
        yield CounterMetricFamily(_FAILED, "Failed v2 reads.", self.gets_failed)
        text = "v2 requests that wait."
        yield CounterMetricFamily("etcd_debugging_store_watch_requests", text, self.waits)
        text = "v2 requests that wait now."
        yield GaugeMetricFamily(_WAITING, text, self.waiting())


def totals(families: Iterable[Metric]) -> tuple[dict[str, int], int]:
    """What the fronts' samples come to in ``/v2/stats/store``: reads, and requests that wait."""
    found = dict.fromkeys((_READS, _FAILED, _WAITING), 0)
    for family in families:
        if family.name in found:
            found[family.name] += int(sum(sample.value for sample in family.samples))
    failed = found[_FAILED]
    return {"getsSuccess": found[_READS] - failed, "getsFail": failed}, found[_WAITING]


def _kind(asked: KeyRequest) -> str:
    return "QGET" if asked.quorum and asked.method == "GET" else asked.method
