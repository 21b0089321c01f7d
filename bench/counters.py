"""Counters of a system from its members' /metrics: syncs, log entries, frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

from bench.client import parse_endpoint

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?\s+(\S+)$", re.MULTILINE)

#: The name here, and what it is in /metrics; sums over members (and shards, where a metric has them).
NAMES = {
    "syncs": "etcd_disk_wal_fsync_duration_seconds_count",
    "sync_s": "etcd_disk_wal_fsync_duration_seconds_sum",
    "log_bytes": "muster_node_log_written_bytes_total",
    "log_entries": "muster_node_log_last_index_total",
    "node_frames": "muster_node_frames_sent_total",
    "front_frames": "muster_front_frames_sent_total",
    "peer_bytes": "muster_node_peer_sent_bytes_total",
    "client_received": "etcd_network_client_grpc_received_bytes_total",
    "client_sent": "etcd_network_client_grpc_sent_bytes_total",
}


def http_get(host: str, port: int, path: str, timeout_s: float = 5.0) -> str:
    """The body of the answer to a GET; empty if there is none, or if it is an error's."""
    connection = HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read().decode("utf-8", "replace") if answer.status == 200 else ""
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def parse(text: str) -> dict[str, float]:
    """Each metric's value, summed over its labels."""
    found: dict[str, float] = {}
    for name, _, value in _LINE.findall(text):
        try:
            found[name] = found.get(name, 0.0) + float(value)
        except ValueError:
            continue
    return found


def sample(endpoints: Sequence[str]) -> dict[str, float]:
    """Counters of :data:`NAMES`, summed over the members; empty over TLS, or without /metrics."""
    total: dict[str, float] = {}
    for text in endpoints:
        endpoint = parse_endpoint(text)
        metrics = {} if endpoint.secure else parse(http_get(endpoint.host, endpoint.port, "/metrics"))
        for name, metric in NAMES.items():
            if metric in metrics:
                total[name] = total.get(name, 0.0) + metrics[metric]
    return total


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The growth of each counter of :data:`NAMES`; one that a restart reset counts from 0."""
    return {name: after[name] - (before.get(name, 0.0) if after[name] >= before.get(name, 0.0) else 0.0)
            for name in NAMES if name in after}
