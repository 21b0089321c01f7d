"""Prometheus scrapes three hosts: every series that alerts and dashboards read exists, muster's own and
etcd's published ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.local_cluster import ROOT, LocalCluster, free_base_port, local_cluster, until
from tests.interop.toolchain import need, skip_without

skip_without("prometheus", "promtool")

MONITORING = ROOT / "packaging" / "monitoring"
RULES = MONITORING / "alerts.yml"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]

#: What etcd's published dashboard and its alert rules read, with the labels that they choose and group by
#: (contract http-endpoints.md, section 6.1).
OF_ETCD = (
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_pending",
    "etcd_server_proposals_failed_total",
    "etcd_server_quota_backend_bytes",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.512"}',
    'etcd_disk_backend_commit_duration_seconds_bucket{le="0.256"}',
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    'etcd_network_peer_received_bytes_total{From!=""}',
    'etcd_network_peer_sent_bytes_total{To!=""}',
    'etcd_network_peer_sent_failures_total{To!=""}',
    'etcd_network_peer_round_trip_time_seconds_bucket{To!="",le="0.1024"}',
    'grpc_server_started_total{grpc_type="unary"}',
    'grpc_server_handled_total{grpc_type="unary",grpc_code="Unavailable"}',
    'grpc_server_started_total{grpc_type="bidi_stream",grpc_service="etcdserverpb.Watch"}',
    'grpc_server_handled_total{grpc_type="bidi_stream",grpc_service="etcdserverpb.Lease"}',
    "process_resident_memory_bytes",
    "up",
)


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **query: str) -> Any:
        answer = urllib.request.urlopen(
            f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10
        ).read()
        return json.loads(answer)["data"]

    def query(self, text: str) -> list[Any]:
        """The samples of an instant query."""
        found: list[Any] = self.get("query", query=text)["result"]
        return found

    def ready(self) -> bool:
        try:
            return (
                all(sample["value"][1] == "1" for sample in self.query("up")) and len(self.query("up")) == 3
            )
        except OSError:
            return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("scraped") / "c", 3, "--shards=2") as found:
        yield found


@pytest.fixture(scope="module")
def prometheus(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    need("prometheus", "promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "muster", "static_configs": [{"targets": cluster.endpoints()}]}],
    }), encoding="utf-8")
    port = free_base_port(1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            found = Prometheus(port)
            until(found.ready, 60)
            endpoint = cluster.endpoints()[0]
            for i in range(3):
                subprocess.run(
                    [str(ROOT / ".venv/bin/etcdctl"), f"--endpoints={endpoint}", "put", f"/{i}", "v"],
                    check=True, timeout=30,
                )
            yield found
        finally:
            process.terminate()
            process.wait(30)


def test_the_dashboard_is_the_one_that_is_generated() -> None:
    made = subprocess.run(
        [sys.executable, str(MONITORING / "dashboard.py")], capture_output=True, check=True, timeout=30
    )
    assert json.loads(made.stdout) == DASHBOARD


def test_promtool_accepts_the_rules() -> None:
    need("promtool")
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, timeout=60)


@pytest.mark.parametrize("query", QUERIES)
def test_no_panel_is_empty(prometheus: Prometheus, query: str) -> None:
    text = query.replace("$job", "muster").replace("$__rate_interval", "10s")
    until(lambda: prometheus.query(text), 30)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_what_an_alert_reads_exists(prometheus: Prometheus, alert: dict[str, Any]) -> None:
    for series in re.findall(
        r"\b(?:\w+_\w+|up)\{[^}]*\}", re.sub(r",?grpc_code=~\"[^\"]*\"", "", alert["expr"])
    ):
        until(lambda series=series: prometheus.query(series), 30)


@pytest.mark.parametrize("series", OF_ETCD)
def test_what_etcds_dashboard_and_rules_read_exists(prometheus: Prometheus, series: str) -> None:
    until(lambda: len({sample["metric"]["instance"] for sample in prometheus.query(series)}) == 3, 30)


def test_no_alert_fires_at_a_healthy_cluster(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return found if found and all(rule["health"] == "ok" for rule in found) else []

    assert [(rule["name"], rule["state"]) for rule in until(rules, 30) if rule["state"] == "firing"] == []


def test_a_dead_host_is_told(prometheus: Prometheus, cluster: LocalCluster) -> None:
    """The last one here: the cluster is one host short afterwards."""
    down = next(alert["expr"] for alert in ALERTS if alert["alert"] == "MusterHostDown")
    unreachable = next(alert["expr"] for alert in ALERTS if alert["alert"] == "MusterPeerUnreachable")
    assert prometheus.query(down) == []
    cluster.ok("kill", "2")
    until(lambda: [s["metric"]["instance"] for s in prometheus.query(down)] == [cluster.endpoints()[2]], 30)
    until(lambda: len(prometheus.query(unreachable)) == 2, 30)
