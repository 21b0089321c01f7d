"""What a system counts itself, read from its members' /metrics: syncs, log entries, frames."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence

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
}


def http_get(host: str, port: int, path: str, timeout_s: float = 5.0) -> str:
    """The raw answer to a GET, head and all; empty if there is none."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as conn:
            conn.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := conn.recv(65536):
                answer += piece
            return answer.decode("utf-8", "replace")
    except OSError:
        return ""


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
    """Those of :data:`NAMES` that the members serve, summed over them; empty over TLS, or where there is no
    /metrics."""
    total: dict[str, float] = {}
    for text in endpoints:
        endpoint = parse_endpoint(text)
        metrics = {} if endpoint.secure else parse(http_get(endpoint.host, endpoint.port, "/metrics"))
        for name, metric in NAMES.items():
            if metric in metrics:
                total[name] = total.get(name, 0.0) + metrics[metric]
    return total


def grown(
    before: dict[str, float], after: dict[str, float], names: Iterable[str] = NAMES
) -> dict[str, float]:
    """What was added between two samples. A counter that began anew (a process restarted) counts from 0."""
    return {name: after[name] - (before.get(name, 0.0) if after[name] >= before.get(name, 0.0) else 0.0)
            for name in names if name in after}
