"""``make docs``: the Grafana dashboard beside this file, from a short table."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

HOSTS = '{job="$job"}'
FAILED = "Unknown|FailedPrecondition|ResourceExhausted|Internal|Unavailable|DataLoss|DeadlineExceeded"


class Panel(NamedTuple):
    """``queries``: legend, PromQL."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def quantile(metric: str, by: str) -> str:
    """The 99th percentile of a histogram, by these labels."""
    return f"histogram_quantile(0.99, sum by ({by}, le) (rate({metric}_bucket{HOSTS}[$__rate_interval])))"


def rate(metric: str, by: str, labels: str = "") -> str:
    """A counter per second, by these labels."""
    return f'sum by ({by}) (rate({metric}{{job="$job"{labels}}}[$__rate_interval]))'


PANELS = (
    Panel("Hosts that know a leader", "none", (("hosts", f"sum(etcd_server_has_leader{HOSTS})"),)),
    Panel("Shards led", "none", (("{{instance}}", f"sum by (instance) (muster_shard_is_leader{HOSTS})"),)),
    Panel("Requests", "reqps", (
        ("{{grpc_method}}", rate("grpc_server_started_total", "grpc_method", ',grpc_type="unary"')),
        ("failed",
         f'sum(rate(grpc_server_handled_total{{job="$job",grpc_code=~"{FAILED}"}}[$__rate_interval]))'))),
    Panel("Open streams", "none", tuple(
        (name, " - ".join(
            f'sum(grpc_server_{what}_total'
            f'{{job="$job",grpc_service="etcdserverpb.{name}",grpc_type="bidi_stream"}})'
            for what in ("started", "handled"))) for name in ("Watch", "Lease"))),
    Panel("Syncs of the log, p99", "s", (
        ("{{instance}}", quantile("etcd_disk_wal_fsync_duration_seconds", "instance")),)),
    Panel("Writes to the state, p99", "s", (
        ("{{instance}}", quantile("etcd_disk_backend_commit_duration_seconds", "instance")),)),
    Panel("Round trips between hosts, p99", "s", (
        ("{{instance}} to {{To}}", quantile("etcd_network_peer_round_trip_time_seconds", "instance, To")),)),
    Panel("Event loops, p99 of a turn", "s", (
        ("{{instance}}", quantile("muster_loop_turn_seconds", "instance")),)),
    Panel("Traffic with clients", "Bps", (
        ("{{instance}} in", rate("etcd_network_client_grpc_received_bytes_total", "instance")),
        ("{{instance}} out", rate("etcd_network_client_grpc_sent_bytes_total", "instance")))),
    Panel("Traffic between hosts", "Bps", (
        ("{{instance}} in", rate("etcd_network_peer_received_bytes_total", "instance")),
        ("{{instance}} out", rate("etcd_network_peer_sent_bytes_total", "instance")))),
    Panel("CPU of nodes", "percentunit", (
        ("{{instance}} shard {{shard}}", f"rate(muster_node_cpu_us_total{HOSTS}[$__rate_interval]) / 1e6"),)),
    Panel("Memory", "bytes", (
        ("{{instance}} front {{front}}", f"muster_front_resident_memory_bytes{HOSTS}"),
        ("{{instance}} shard {{shard}}", f"muster_shard_resident_memory_bytes{HOSTS}"))),
    Panel("Size on disk", "bytes", (
        ("{{instance}}", f"etcd_mvcc_db_total_size_in_bytes{HOSTS}"),
        ("{{instance}} in use", f"etcd_mvcc_db_total_size_in_use_in_bytes{HOSTS}"),
        ("{{instance}} quota", f"etcd_server_quota_backend_bytes{HOSTS}"))),
    Panel("Keys by shard", "none", (("{{instance}} shard {{shard}}", f"muster_shard_keys{HOSTS}"),)),
    Panel("Watches", "none", (
        ("{{instance}}", f"sum by (instance) (etcd_debugging_mvcc_watcher_total{HOSTS})"),
        ("{{instance}} behind", f"sum by (instance) (etcd_debugging_mvcc_slow_watcher_total{HOSTS})"))),
    Panel("Leader changes in a day", "none", (
        ("{{instance}}", f"max by (instance) (changes(etcd_server_leader_changes_seen_total{HOSTS}[1d]))"),)))
_WIDTH, _HEIGHT = 12, 8  # of Grafana's 24 columns


def dashboard() -> dict[str, Any]:
    """As Grafana (9 or later) imports it."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "title": "muster", "uid": "muster", "schemaVersion": 37, "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "job", "type": "query", "datasource": source,
             "query": "label_values(muster_shard_up, job)", "refresh": 2},
        ]},
        "panels": [
            {
                "id": i + 1, "title": panel.title, "type": "timeseries", "datasource": source,
                "gridPos": {"x": i % 2 * _WIDTH, "y": i // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "options": {
                    "tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"},
                },
                "targets": [
                    {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend, "datasource": source}
                    for n, (legend, query) in enumerate(panel.queries)
                ],
            }
            for i, panel in enumerate(PANELS)
        ],
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    print()
