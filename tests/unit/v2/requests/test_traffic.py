"""What requests for keys came to, as /metrics tells it."""

from __future__ import annotations

from proxy.metrics.siblings import Families, encode, labelled
from proxy.v2.request import parse_key_request
from proxy.v2.traffic import Traffic, totals


def samples(traffic: Traffic) -> dict[str, float]:
    """By name and labels."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in traffic.samples()
        for sample in family.samples
    }


def test_requests_are_counted_by_method_and_refusal() -> None:
    now = [0.0]
    traffic = Traffic(lambda: now[0])

    def ask(method: str, query: str, refused: int) -> None:
        asked = parse_key_request(method, "/v2/keys/a", query, b"", "", 0)
        came = traffic.now()
        traffic.received(asked)
        now[0] += 0.003
        if method == "GET":
            traffic.read(asked, not refused)
        traffic.ended(asked, came, refused)

    ask("GET", "", 0)
    ask("GET", "quorum=true&recursive=true", 404)
    ask("PUT", "value=x", 0)
    found = samples(traffic)
    assert found["etcd_http_received_total GET"] == found["etcd_http_received_total QGET"] == 1
    assert found["etcd_http_failed_total QGET 404"] == 1
    assert "etcd_http_successful_duration_seconds_count QGET" not in found
    assert found["etcd_http_successful_duration_seconds_bucket PUT 0.002"] == 0
    assert found["etcd_http_successful_duration_seconds_bucket PUT 0.004"] == 1
    assert found["etcd_debugging_store_reads_total get"] == 1
    assert found["etcd_debugging_store_reads_total getRecursive"] == 1
    assert (traffic.gets, traffic.gets_failed) == (1, 1)


def test_a_wait_counts_as_such_alone() -> None:
    traffic = Traffic()
    traffic.waiting = lambda: 7
    traffic.received(parse_key_request("GET", "/v2/keys/a", "wait=true", b"", "", 0))
    assert samples(traffic) == {
        "etcd_debugging_store_reads_total get": 0,
        "etcd_debugging_store_reads_total getRecursive": 0,
        "etcd_debugging_store_watch_requests_total": 1,
        "etcd_debugging_store_watchers": 7,
        "muster_v2_gets_failed_total": 0,
    }


def test_what_a_hosts_fronts_have_read_is_shown_together() -> None:
    """Each connection showed another front's counts."""
    found: dict[int, Families] = {}
    for front, (gets, failed, waits) in enumerate(((3, 1, 2), (5, 0, 4))):
        traffic = Traffic()
        traffic.gets, traffic.gets_failed, traffic.recursive_gets = gets, failed, 2
        traffic.waiting = lambda waits=waits: waits  # type: ignore[misc]
        found[front] = encode(traffic.samples())
        assert totals(traffic.samples()) == ({"getsSuccess": gets, "getsFail": failed}, waits)
    assert totals(labelled(found)) == ({"getsSuccess": 8, "getsFail": 1}, 6)
