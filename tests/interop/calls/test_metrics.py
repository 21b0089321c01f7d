"""Every series of etcd's ``/metrics`` has a counterpart here, but for those that are listed with a reason."""

from __future__ import annotations

import contextlib
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import running_etcd

#: What etcd exports and muster does not, and why.
ELSEWHERE = {
    r"go_.*|promhttp_.*": "of Go and its HTTP library; Python's are python_*",
    r"etcd_grpc_proxy_.*": "of etcd's gRPC proxy",
    r"etcd_debugging_disk_backend_commit_.*": "parts of a commit to bbolt; RocksDB has none of them",
    r"etcd_debugging_snap_save_.*|etcd_snap_.*": "of etcd's snapshot files; a state is flushed instead",
    r"etcd_debugging_mvcc_(index|db)_compaction_.*": "of a compaction that pauses; muster's goes in slices",
    r"etcd_debugging_lease_ttl_total|etcd_debugging_server_lease_expired_total": "not counted",
    r"etcd_debugging_mvcc_(total_put_size_in_bytes|pending_events_total|range_total)": "not counted",
    r"etcd_disk_backend_snapshot_duration_seconds": "of a copy of bbolt's file",
    r"etcd_server_snapshot_apply_in_progress_total": "not counted",
    r"etcd_mvcc_db_open_read_transactions": "RocksDB has no read transactions that hold space",
}


def names(port: int, path: str = "/metrics") -> set[str]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read().decode()
    return {m[1] for m in re.finditer(r"^# TYPE (\S+) ", text, re.MULTILINE)}


def use(port: int) -> None:
    """Series with labels are exported once there is something to count."""
    keys = f"http://127.0.0.1:{port}/v2/keys/metrics"
    for method, status in (("PUT", 201), ("GET", 200), ("DELETE", 200), ("GET", 404)):
        with contextlib.suppress(urllib.error.HTTPError):
            request = urllib.request.Request(keys, b"value=x" if method == "PUT" else None, method=method)
            assert urllib.request.urlopen(request, timeout=30).status == status
    for words in (("put", "k", "v"), ("get", "k"), ("lease", "grant", "60")):
        subprocess.run(
            [str(ROOT / ".venv/bin/etcdctl"), f"--endpoints=127.0.0.1:{port}", *words], check=True, timeout=30
        )


@pytest.mark.parametrize("shards", [1, 2])
def test_no_series_of_etcd_is_missing(tmp_path: Path, shards: int) -> None:
    with running_etcd(tmp_path, "--metrics=extensive", "--enable-v2") as etcd:
        port = int(etcd.address.rpartition(":")[2])
        use(port)
        wanted = {name for name in names(port) if not any(re.fullmatch(p, name) for p in ELSEWHERE)}
    assert {"grpc_server_handling_seconds", "etcd_server_client_requests_total"} <= wanted
    with started(tmp_path / "h", 0, shards, "--metrics=extensive") as host:
        until(host.serves)
        use(host.port)
        found = names(host.port)
    assert wanted - found == set()
    assert not [pattern for pattern in ELSEWHERE if any(re.fullmatch(pattern, name) for name in found)]
