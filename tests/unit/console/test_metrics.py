"""Charts: what is made of the pages of hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from tools.console.store import metrics
from tools.console.store.cluster import Member
from tools.console.store.metrics import Metrics, quantile, rate, read

PAGE = """# TYPE grpc_server_handled_total counter
grpc_server_handled_total{{grpc_code="OK",grpc_method="Put"}} {puts}
grpc_server_handled_total{{grpc_code="Unavailable",grpc_method="Put"}} {failed}
# TYPE etcd_debugging_mvcc_events_total counter
etcd_debugging_mvcc_events_total {puts}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1024
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{{le="0.001"}} {puts}
etcd_disk_wal_fsync_duration_seconds_bucket{{le="+Inf"}} {puts}
"""


def test_a_quantile_is_of_what_came_between() -> None:
    before = {0.001: 100.0, 0.002: 100.0, float("inf"): 100.0}
    after = {0.001: 100.0, 0.002: 200.0, float("inf"): 200.0}
    assert quantile(0.5, before, after) == pytest.approx(0.0015)
    assert quantile(1.0, before, after) == pytest.approx(0.002)
    assert quantile(0.5, after, after) is None
    assert quantile(0.5, after, before) is None, "the host began anew"
    assert quantile(0.99, {}, {0.001: 0.0, float("inf"): 5.0}) == 0.001, "no bound says more"
    assert quantile(0.5, {}, {}) is None


def test_a_counter_that_began_anew_has_no_rate() -> None:
    assert rate(10, 20, 5) == 2
    assert rate(20, 10, 5) is None
    assert rate(None, 10, 5) is None


def test_an_hour_is_kept_by_method_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    puts = 0

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "silent":
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text=PAGE.format(puts=puts, failed=puts // 10))

    transport = httpx.MockTransport(answer)
    client = httpx.AsyncClient
    monkeypatch.setattr(metrics.httpx, "AsyncClient", lambda **_: client(transport=transport))

    async def members() -> Sequence[Member]:
        return [Member(1, "a", (), ("http://a:1",), False), Member(2, "b", (), ("http://silent:1",), False)]

    async def main() -> None:
        nonlocal puts
        kept = Metrics(members, None)
        for n in range(3):
            puts = 100 * n
            await kept.look(10.0 * n)
        assert kept.methods() == {"Put": [(10.0, 11.0), (20.0, 11.0)]}
        assert kept.errors() == {"Unavailable": [(10.0, 1.0), (20.0, 1.0)]}
        assert kept.rates("events") == {"a": [(10.0, 10.0), (20.0, 10.0)]}
        assert kept.levels("memory")["a"] == [(0.0, 1024.0), (10.0, 1024.0), (20.0, 1024.0)]
        assert kept.quantiles("fsync", 0.5)["a"][0][1] == pytest.approx(0.5)
        for n in range(metrics.KEPT + 5):
            await kept.look(30.0 + n)
        assert len(kept.levels("memory")["a"]) == metrics.KEPT

    asyncio.run(main())


def test_a_page_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        read("no {metrics")
