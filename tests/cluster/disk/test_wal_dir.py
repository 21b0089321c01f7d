"""A host whose logs lie in a directory of their own is killed and started again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.one_host import Host, started
from tests.interop.hosts import unary

LIMIT_S = 60.0
KEYS = [b"/d%d/key" % n for n in range(8)]  # of both shards


def _call(host: Host, method: str, request: Any, response: Any) -> Any:
    """Asked until it is answered: a shard may have no leader yet."""

    def tried() -> Any:
        with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            return unary(channel, method, response)(request, timeout=LIMIT_S)
        return None

    return until(tried, LIMIT_S)


@pytest.mark.timeout(240)
def test_what_is_acknowledged_is_in_the_logs_wherever_they_are(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with started(tmp_path / "data", 0, 2, f"--wal-dir={logs}") as host:
        until(host.serves, LIMIT_S)
        for key in KEYS:
            _call(host, "KV/Put", pb.PutRequest(key=key, value=key), pb.PutResponse)
    assert sorted(path.name for path in logs.iterdir()) == ["shard-0", "shard-1"]
    with started(tmp_path / "data", host.port, 2) as again:  # the state was never flushed
        until(again.serves, LIMIT_S)
        found = _call(again, "KV/Range", pb.RangeRequest(key=b"/", range_end=b"0"), pb.RangeResponse)
        assert [(kv.key, kv.value) for kv in found.kvs] == [(key, key) for key in KEYS]
