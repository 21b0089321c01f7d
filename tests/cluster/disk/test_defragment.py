"""``musterctl defrag --data-dir``: the data of a host that does not run."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import LIMIT_S, environment, until
from tests.cluster.one_host import Host, started
from tests.interop.hosts import unary

pytestmark = pytest.mark.timeout(240)
KEYS = 60


def defrag(data_dir: Path) -> subprocess.CompletedProcess[str]:
    line = [*forks.MUSTERCTL, "defrag", "--data-dir", str(data_dir)]
    return forks.run(
        line, capture_output=True, text=True, timeout=2 * LIMIT_S, env=environment()
    )


def values(host: Host) -> dict[bytes, bytes]:
    with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
        asked = pb.RangeRequest(key=b"/", range_end=b"0")
        found = unary(channel, "KV/Range", pb.RangeResponse)(asked, timeout=LIMIT_S, wait_for_ready=True)
    return {kv.key: kv.value for kv in found.kvs}


def test_a_host_that_does_not_run_is_defragmented_where_its_data_lie(tmp_path: Path) -> None:
    data_dir = tmp_path / "h"
    with started(data_dir, 0, 2) as host:
        until(host.serves)
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            put, compact = (unary(channel, f"KV/{m}", r) for m, r in
                            (("Put", pb.PutResponse), ("Compact", pb.CompactionResponse)))  # fmt: skip
            for n in range(3 * KEYS):
                key = b"/d%d/k%d" % (n % 4, n % KEYS)
                request = pb.PutRequest(key=key, value=b"%d" % n * 500)
                last = put(request, timeout=LIMIT_S, wait_for_ready=True)
            compact(pb.CompactionRequest(revision=last.header.revision, physical=True), timeout=LIMIT_S)
        before = values(host)
        refused = defrag(data_dir)
        assert refused.returncode == 1
        assert "is in use by another muster" in refused.stderr
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(LIMIT_S) == 0
    for _ in range(2):
        done = defrag(data_dir)
        assert (done.returncode, done.stdout) == (0, f"Finished defragmenting etcd data[{data_dir}]\n")
    with started(data_dir, host.port, 2) as again:
        until(again.serves)
        assert values(again) == before
        assert len(before) == KEYS


def test_where_there_are_no_data_nothing_is_made(tmp_path: Path) -> None:
    done = defrag(tmp_path / "none")
    assert done.returncode == 1
    assert "holds no data of a host" in done.stderr
    assert not (tmp_path / "none").exists()
