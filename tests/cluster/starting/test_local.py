"""Real processes on this machine: `muster local` and `muster` as their users start and stop them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import (
    LIMIT_S,
    LocalCluster,
    alive,
    command,
    environment,
    free_base_port,
    local_cluster,
    shards_of_tests,
    until,
)
from tests.tries import best_of_three, within

STOP_LIMIT_S = 12.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("local") / "c", 3, "--cpus=0", cold=True) as running:
        yield running


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    """Every test that shares the cluster finds all of it ready."""
    if "cluster" in request.fixturenames:
        shared: LocalCluster = request.getfixturevalue("cluster")
        until(lambda: all(h["up"] and h["ready"] for h in shared.status()["hosts"]))


def test_endpoints_come_before_ready(cluster: LocalCluster) -> None:
    ports = [cluster.base_port + 100 * i for i in range(3)]
    assert cluster.output == [
        *(f"host {i}  http://127.0.0.1:{port}" for i, port in enumerate(ports)),
        "ready",
    ]
    for port in ports:  # ready means that every front serves
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_status_tells_processes_pins_and_leaders(cluster: LocalCluster) -> None:
    status = json.loads(cluster.ok("status", "--json"))
    assert status["shards"][0]["leader_host"] in (0, 1, 2)
    assert status["shards"][0]["term"] >= 1
    assert sum(h["nodes"][0]["is_leader"] for h in status["hosts"]) == 1
    assert len({h["member_id"] for h in status["hosts"]}) == 3
    assert len({h["cluster_id"] for h in status["hosts"]}) == 1
    for host in status["hosts"]:
        node, front = host["nodes"][0], host["fronts"][0]
        assert node["commit_index"] >= node["applied_index"] >= 1
        assert node["revision"] >= 1
        assert (node["cpu"], front["cpu"]) == (0, 0)
        assert psutil.Process(node["pid"]).cpu_affinity() == [0]
        assert psutil.Process(front["pid"]).cpu_affinity() == [0]
        assert {psutil.Process(p["pid"]).ppid() for p in (node, front)} == {host["pid"]}
    text = cluster.ok("status")
    assert text.count("leader") == len(status["shards"])
    assert f"shard 0  host {status['shards'][0]['leader_host']}" in text


def test_a_killed_host_is_gone_at_once_and_comes_back(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    before = cluster.host(leader)
    pids = [before["pid"], before["nodes"][0]["pid"], before["fronts"][0]["pid"]]
    cluster.ok("kill", str(leader))
    assert not any(map(alive, pids))
    assert not cluster.host(leader)["up"]
    assert f"host {leader}  {before['endpoint']}  down" in cluster.ok("status")
    until(lambda: cluster.status()["shards"][0]["leader_host"] not in (None, leader))
    again = cluster.run("kill", str(leader))
    assert (again.returncode, again.stderr) == (1, f"muster: host {leader} is not running\n")
    cluster.ok("start", str(leader), "--wait=60s")
    after = cluster.host(leader)
    assert after["ready"]
    assert after["member_id"] == before["member_id"]
    assert after["pid"] != before["pid"]
    assert cluster.run("start", str(leader)).returncode == 1


def test_one_killed_node_is_started_again_by_its_supervisor(cluster: LocalCluster) -> None:
    before = cluster.host(0)
    cluster.ok("kill", "0", "--shard", "0")
    after = until(
        lambda: (
            (h := cluster.host(0))["ready"] and h["nodes"][0]["starts"] > before["nodes"][0]["starts"] and h
        )
    )
    assert after["pid"] == before["pid"]
    assert after["nodes"][0]["pid"] != before["nodes"][0]["pid"]
    assert after["fronts"][0]["pid"] == before["fronts"][0]["pid"]


@best_of_three
def test_a_stopped_host_hands_over_and_ends_within_seconds(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    pids = [cluster.host(leader)["pid"], cluster.host(leader)["nodes"][0]["pid"]]
    began = time.monotonic()
    cluster.ok("stop", str(leader))
    took_s = time.monotonic() - began
    assert not any(map(alive, pids))
    assert cluster.leader() != leader
    cluster.ok("start", str(leader), "--wait=60s")
    within(took_s, STOP_LIMIT_S)


def test_all_hosts_killed_at_once_come_back(cluster: LocalCluster) -> None:
    members = [h["member_id"] for h in cluster.status()["hosts"]]
    cluster.ok("kill", "0", "1", "2")
    assert not any(h["up"] for h in cluster.status()["hosts"])
    assert cluster.status()["shards"][0] == {"shard": 0, "leader": "", "leader_host": None, "term": 0}
    cluster.ok("start", "0", "1", "2", "--wait=60s")
    assert [h["member_id"] for h in cluster.status()["hosts"]] == members
    assert cluster.leader() in (0, 1, 2)


def test_a_second_local_cluster_in_the_same_directory_is_refused(cluster: LocalCluster) -> None:
    done = cluster.run()
    assert done.returncode == 1
    assert f"in use by another muster (process {cluster.process.pid})" in done.stderr


def test_ctrl_c_stops_everything_and_exits_0(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, cold=True) as cluster:
        pids = cluster.pids()
        assert len(pids) == 2 + shards_of_tests()
        cluster.process.send_signal(signal.SIGINT)
        assert cluster.process.wait(LIMIT_S) == 0
        assert not any(map(alive, pids))


def test_a_data_directory_too_deep_for_sockets_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with local_cluster(deep / "c", 1, cold=True) as cluster:
        run_dir = Path(cluster.host(0)["run_dir"])
        assert not run_dir.is_relative_to(tmp_path)
        assert (run_dir / "node-0.sock").is_socket()
        assert cluster.leader() == 0
    assert not run_dir.exists()


def test_everything_ends_with_the_foreground_process(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, cold=True) as cluster:
        pids = cluster.pids()
        cluster.process.kill()
        until(lambda: not any(map(alive, pids)))


def test_a_host_that_cannot_start_ends_the_cluster_and_tells_why(tmp_path: Path) -> None:
    identity = tmp_path / "c" / "host0" / "member" / "identity.json"
    identity.parent.mkdir(parents=True)
    identity.write_text("{", encoding="utf-8")
    done = subprocess.run(
        command("local", "--hosts=1", f"--base-port={free_base_port(1)}", f"--data-dir={tmp_path / 'c'}"),
        capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "identity.json is damaged" in done.stderr
    assert "ready" not in done.stdout


def test_a_server_is_a_good_citizen_under_systemd(tmp_path: Path) -> None:
    base = free_base_port(1)
    client, peer = f"http://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
    settings = {
        "ETCD_NAME": "infra0", "ETCD_DATA_DIR": str(tmp_path / "d"), "ETCD_LISTEN_CLIENT_URLS": client,
        "ETCD_ADVERTISE_CLIENT_URLS": client, "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
    }  # fmt: skip
    path = f"/tmp/muster-test-{os.getpid()}.notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, open(tmp_path / "log", "wb") as log:
        notified.settimeout(LIMIT_S)
        notified.bind(path)
        try:
            with subprocess.Popen(
                command(), env={**environment(), **settings, "NOTIFY_SOCKET": path}, cwd=tmp_path, stdout=log,
                stderr=log,
            ) as process:
                try:
                    assert notified.recv(100) == b"READY=1"
                    socket.create_connection(("127.0.0.1", base), 5).close()
                    process.send_signal(signal.SIGTERM)
                    assert notified.recv(100) == b"STOPPING=1"
                    assert process.wait(LIMIT_S) == 0
                finally:
                    process.kill()
        finally:
            os.unlink(path)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert "ready to serve client requests" in text
    assert "Traceback" not in text
