"""A replica whose data differs from the others' is found, and the cluster refuses writes until somebody has
looked."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from node.storage import StateStore
from tests.cluster.local_cluster import LocalCluster, command, environment, local_cluster, until
from tests.interop.hosts import unary
from tools.muster.local import layout

_FLAGS = (
    "--corrupt-check-time=500ms",
    "--feature-gates=CompactHashCheck=true",
    "--compact-hash-check-time=500ms",
)
_WRITTEN, _ROTTEN = b"kept as it was written", b"kept as it was rotten."


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("corrupt") / "c"
    with local_cluster(folder, 3, "--shards=2", extra=_FLAGS) as cluster:
        yield cluster


def _ask(
    endpoint: str,
    method: str,
    request: pb.PutRequest | pb.AlarmRequest | pb.CompactionRequest,
    response: object,
) -> object:
    with grpc.insecure_channel(endpoint) as channel:
        return unary(channel, method, response)(request, timeout=20)


def _put(endpoint: str) -> str:
    """Why it was refused, or ""."""
    try:
        _ask(endpoint, "KV/Put", pb.PutRequest(key=b"/x/y"), pb.PutResponse)
    except grpc.RpcError as e:
        return str(e.details())
    return ""


def _alarms(cluster: LocalCluster) -> list[pb.AlarmMember]:
    answer = _ask(cluster.endpoints()[0], "Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse)
    assert isinstance(answer, pb.AlarmResponse)
    return list(answer.alarms)


def _compared(cluster: LocalCluster, times: int) -> None:
    """Wait until the leader's host has compared the replicas so often."""
    name = "muster_front_comparisons_total"
    endpoint = cluster.endpoints()[cluster.leader()]

    def count() -> int:
        text = urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=20).read().decode()
        return int(re.search(rf"^{name} (\d+)", text, re.MULTILINE)[1])  # type: ignore[index]

    until(lambda: count() >= times)


def _change(data_dir: Path, before: bytes, after: bytes) -> None:
    """Change every row of a stopped host that holds ``before``."""
    found = 0
    for shard in sorted(data_dir.glob("member/shard-*")):
        store = StateStore.open(shard / "state")
        for row, value in list(store.rows(b"k", b"l")):
            if before in value:
                store.database[row] = value.replace(before, after)
                found += 1
        store.flush()
        store.close()
    assert found == 20


def test_replicas_that_hold_the_same_raise_no_alarm(cluster: LocalCluster) -> None:
    for number in range(20):
        _ask(
            cluster.endpoints()[number % 3],
            "KV/Put",
            pb.PutRequest(key=b"/%d/k" % number, value=_WRITTEN),
            pb.PutResponse,
        )
    _ask(cluster.endpoints()[0], "KV/Compact", pb.CompactionRequest(revision=10), pb.CompactionResponse)
    _compared(cluster, 3)
    assert _alarms(cluster) == []


def test_a_replica_that_differs_is_found_and_does_not_serve_where_that_is_asked_for(
    cluster: LocalCluster,
) -> None:
    host = (cluster.leader() + 1) % 3
    found, endpoint = cluster.host(host), cluster.endpoints()[cluster.leader()]
    line = command(*layout.load(str(cluster.data_dir)).hosts[host].arguments)
    cluster.ok("stop", str(host))
    _change(cluster.data_dir / f"host{host}", _WRITTEN, _ROTTEN)
    cluster.ok("start", str(host), "--wait=60s")
    raised = until(lambda: _alarms(cluster))
    assert [(f"{alarm.memberID:x}", alarm.alarm) for alarm in raised] == [(found["member_id"], pb.CORRUPT)]
    assert _put(endpoint) == "etcdserver: corrupt cluster"

    cluster.ok("stop", str(host))
    gate = "--experimental-initial-corrupt-check"
    again = subprocess.run(
        [*(w for w in line if not w.startswith("--feature-gates")), gate],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
        cwd=cluster.data_dir.parent,
    )
    assert again.returncode != 0
    log = (cluster.data_dir / f"host{host}.log").read_text(errors="replace") + again.stderr
    assert "this host's data differs from that of its cluster" in log

    _change(cluster.data_dir / f"host{host}", _ROTTEN, _WRITTEN)
    cluster.ok("start", str(host), "--wait=60s")
    for alarm in raised:
        request = pb.AlarmRequest(action="DEACTIVATE", memberID=alarm.memberID, alarm=alarm.alarm)
        _ask(endpoint, "Maintenance/Alarm", request, pb.AlarmResponse)
    until(lambda: _put(endpoint) == "")
