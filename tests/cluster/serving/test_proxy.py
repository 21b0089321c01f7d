"""`muster proxy`, a front on a machine without a member, and a cluster whose peers use keys."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from muster_client.sync import Client

from cluster.pb import rpc_pb2
from tests import forks
from tests.cluster.local_cluster import (
    LIMIT_S,
    LocalCluster,
    command,
    environment,
    free_base_port,
    local_cluster,
    until,
)
from tools.muster import proxy_cli
from tools.muster.config import settings as config
from tools.muster.host.identity import bootstrap
from tools.muster.local.layout import TOKEN


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("proxied")
    forks.run(
        command("peer-keys", str(folder / "keys")), check=True, env=environment(), capture_output=True,
        timeout=LIMIT_S,
    )
    with local_cluster(folder / "c", 3, extra=(f"--peer-key-file={folder / 'keys'}",)) as running:
        yield running


def initial_cluster(cluster: LocalCluster) -> str:
    return ",".join(f"host{i}=http://127.0.0.1:{cluster.base_port + 100 * i + 1}" for i in range(3))


def test_members_told_are_those_worked_out(cluster: LocalCluster) -> None:
    peers = bootstrap.peers_of(config.parse_initial_cluster(initial_cluster(cluster)), TOKEN)
    dead = f"127.0.0.1:{free_base_port(1)}"
    endpoints = [dead, *cluster.endpoints()]
    # a member has a name once it has published itself, which may come after ready
    until(lambda: all(p.name for p in proxy_cli.members_of(endpoints)[1]))
    cluster_id, told = proxy_cli.members_of(endpoints)
    assert cluster_id == bootstrap.cluster_id_of(peers)
    assert sorted(told, key=lambda p: p.member_id) == list(peers)


def test_members_tell_a_proxy_where_they_are_while_there_are_users(cluster: LocalCluster) -> None:
    """MemberList asks for a user then: no proxy could start again."""
    endpoints = cluster.endpoints()
    before = proxy_cli.members_of(endpoints), proxy_cli.layout_of(endpoints)
    with Client(endpoints[0]) as client:
        client.auth.add_user("root", "r")
        client.auth.grant_role("root", "root")
        client.auth.enable()
    try:
        after = proxy_cli.members_of(endpoints), proxy_cli.layout_of(endpoints)
    finally:
        with Client(endpoints[0], user="root", password="r") as client:
            client.auth.disable()
    assert after == before


@pytest.mark.parametrize("found_by", ["endpoints", "initial-cluster"])
def test_a_proxy_serves_and_stops_in_order(cluster: LocalCluster, tmp_path: Path, found_by: str) -> None:
    port = free_base_port(1)
    where = {
        "endpoints": ["--endpoints=" + ",".join(cluster.endpoints())],
        "initial-cluster": [f"--initial-cluster={initial_cluster(cluster)}"],
    }[found_by]
    flags = [
        f"--listen-client-urls=http://127.0.0.1:{port}", f"--data-dir={tmp_path / 'p'}",
        f"--peer-key-file={cluster.data_dir.parent / 'keys'}",
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, open(tmp_path / "log", "wb") as log:
        notified.settimeout(LIMIT_S)
        name = f"muster-test-{port}"
        notified.bind(f"\0{name}")
        with forks.popen(
            command("proxy", *where, *flags), cwd=tmp_path, stdout=log, stderr=log,
            env={**environment(), "NOTIFY_SOCKET": f"@{name}"},
        ) as process:
            try:
                assert notified.recv(100) == b"READY=1"
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    put = channel.unary_unary(
                        "/etcdserverpb.KV/Put", rpc_pb2.PutRequest.SerializeToString,
                        rpc_pb2.PutResponse.FromString,
                    )
                    get = channel.unary_unary(
                        "/etcdserverpb.KV/Range", rpc_pb2.RangeRequest.SerializeToString,
                        rpc_pb2.RangeResponse.FromString,
                    )
                    key = found_by.encode()
                    put(rpc_pb2.PutRequest(key=key, value=b"through"), timeout=LIMIT_S)
                    assert get(rpc_pb2.RangeRequest(key=key), timeout=LIMIT_S).kvs[0].value == b"through"
                process.send_signal(signal.SIGTERM)
                assert process.wait(LIMIT_S) == 0
            finally:
                process.kill()


def test_a_proxy_does_not_take_a_members_data_directory(cluster: LocalCluster, tmp_path: Path) -> None:
    done = forks.run(
        command("proxy", f"--initial-cluster={initial_cluster(cluster)}", "--shards=1",
                f"--data-dir={cluster.data_dir / 'host0'}"),
        capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is the data directory of a member" in done.stderr
