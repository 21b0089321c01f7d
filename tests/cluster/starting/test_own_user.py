"""Hosts of one machine without a key: their peers come by sockets that are their user's alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from cluster import errors
from cluster.pb import rpc_pb2
from tests import forks
from tests.cluster.local_cluster import STEADY, LocalCluster, environment, local_cluster, until
from tests.cluster.members.hosts import Hosts
from tests.unit.zmtp.test_own_user import AS_ROOT, NOBODY, OTHER
from tools.muster.host.identity.joining import QUESTION, ask
from tools.muster.machine.zmtp import own_user
from tools.muster.machine.zmtp.asking import Untrusted, asked_in_clear
from tools.muster.machine.zmtp.codec import GREETING, frame_head, ready

SHARDS = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("own") / "c"
    with local_cluster(folder, 3, f"--shards={SHARDS}", "--cpus=none", extra=STEADY, cold=True) as running:
        yield running


def peer_ports(cluster: LocalCluster) -> set[int]:
    return {cluster.base_port + 100 * host + 1 for host in range(3)}


def by_port(cluster: LocalCluster) -> list[tuple[int, int]]:
    """Links between hosts that go by a port, as (own port, the other's)."""
    found, ports = [], peer_ports(cluster)
    for pid in cluster.pids():
        for link in psutil.Process(pid).net_connections("tcp"):
            if link.raddr and {link.laddr.port, link.raddr.port} & ports:
                found.append((link.laddr.port, link.raddr.port))
    return found


def by_socket(cluster: LocalCluster) -> bool:
    """Whether every process of a host has a link to each one of its shard elsewhere, and one back."""
    wanted = {own_user.path_of("127.0.0.1", port) for port in peer_ports(cluster)}
    pids, links = cluster.pids(), dict.fromkeys(wanted, 0)
    for pid in pids:
        for link in psutil.Process(pid).net_connections("unix"):
            name = str(link.laddr).rpartition(".")[0]  # it was bound with the process's number behind it
            if name in links and link.status == psutil.CONN_NONE:
                links[name] += 1
    return all(count >= 1 + 2 * SHARDS for count in links.values())  # the one that listens, and those taken


def put(cluster: LocalCluster, key: str) -> None:
    """Again while the outcome is open: a host that was killed may have led the key's shard."""
    until(lambda: has_put(cluster, key))


def has_put(cluster: LocalCluster, key: str) -> bool:
    words = f"--endpoints={','.join(cluster.endpoints())}", "--command-timeout=60s", "put", key, "v"
    done = forks.run(
        [*forks.MUSTERCTL, *words], capture_output=True, text=True,
        timeout=120, env=environment())
    assert done.returncode == 0 or "etcdserver: request timed out" in done.stderr, done.stderr
    return done.returncode == 0


def test_hosts_talk_by_sockets_of_their_user_and_by_no_port(cluster: LocalCluster) -> None:
    put(cluster, "a")
    until(lambda: by_socket(cluster))
    assert by_port(cluster) == []
    for port in peer_ports(cluster):
        path = Path(own_user.path_of("127.0.0.1", port))
        assert stat.S_ISSOCK(path.stat().st_mode)
        for at, mode in ((path, 0o600), (path.parent, 0o700), (path.parent.parent, 0o700)):
            assert (stat.S_IMODE(at.lstat().st_mode), at.lstat().st_uid) == (mode, os.geteuid())


def test_what_listens_at_ports_is_on_loopback_and_takes_the_own_user(cluster: LocalCluster) -> None:
    """Hosts of older versions, and what is behind a forwarder, come by it."""
    for port in peer_ports(cluster):
        assert asked_in_clear("127.0.0.1", port, QUESTION, 20.0)[:1] == QUESTION
    for pid in cluster.pids():
        for link in psutil.Process(pid).net_connections("tcp"):
            assert link.status != psutil.CONN_LISTEN or link.laddr.ip == "127.0.0.1"


@AS_ROOT
def test_another_user_says_no_hello(cluster: LocalCluster) -> None:
    question = GREETING + ready(b"DEALER", b"x") + frame_head(1, False) + QUESTION
    for port in peer_ports(cluster):
        words = "127.0.0.1", str(port), question.hex()
        done = subprocess.run(
            [sys.executable, "-c", OTHER, *words], capture_output=True, check=True, timeout=60)
        assert b"the other end is not this user's, but that of uid %d" % NOBODY in done.stdout
        assert b"cluster_id" not in done.stdout
        dials = (
            f"import os, socket; os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY}); "
            f"socket.socket(socket.AF_UNIX).connect({own_user.path_of('127.0.0.1', port)!r})"
        )
        dialled = subprocess.run(
            [sys.executable, "-c", dials], capture_output=True, text=True, check=False, timeout=60)
        assert "PermissionError" in dialled.stderr
    put(cluster, "b")


@AS_ROOT
def test_a_host_of_another_user_is_told_what_it_needs(cluster: LocalCluster) -> None:
    asks = (  # imported first: another user may not read a Python below /root
        "import encodings.idna, os; from tools.muster.host.identity.joining import ask\n"
        f"os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        f"ask([('127.0.0.1', {cluster.base_port + 1})], '', own_user=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks], capture_output=True, text=True, check=False, timeout=60,
        env=environment())
    assert f"uid {os.geteuid()}" in done.stderr or f"uid {NOBODY}" in done.stderr
    assert "hosts of several users on one machine need the same --peer-key-file" in done.stderr


def test_after_kill_9_hosts_find_each_other_again(cluster: LocalCluster) -> None:
    killed = (cluster.leader() + 1) % 3
    cluster.ok("kill", str(killed))
    left = own_user.path_of("127.0.0.1", cluster.base_port + 100 * killed + 1)
    assert os.path.exists(left), "a process that is killed leaves its socket"
    put(cluster, "c")
    cluster.ok("start", str(killed), "--wait", "60s")
    until(lambda: by_socket(cluster))
    assert by_port(cluster) == []
    put(cluster, "d")


def test_a_stopped_cluster_leaves_no_sockets(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, cold=True) as cluster:
        path = own_user.path_of("127.0.0.1", cluster.base_port + 1)
        assert os.path.exists(path)
        cluster.process.terminate()
        cluster.process.wait(60)
        assert not os.path.exists(path)


def test_who_joins_asks_by_the_socket(cluster: LocalCluster) -> None:
    running = ask([("localhost", cluster.base_port + 1)], "", own_user=True)
    assert running is not None
    assert len(running.members) == 3


def other_addresses() -> list[str]:
    """Of this machine, besides loopback."""
    found = [one.address for many in psutil.net_if_addrs().values() for one in many
             if one.family == socket.AF_INET]
    return [address for address in found if not address.startswith("127.")]


def test_a_lone_host_listens_at_all_addresses_and_takes_no_peer_beyond_its_user(tmp_path: Path) -> None:
    """As etcd's quick starts have it. It gets members once peers can prove themselves, and never runs as one
    of several before."""
    hosts = Hosts(tmp_path, 1, 2, cold=True)
    port = hosts.peer(0).rpartition(":")[2]
    everywhere = f"--listen-peer-urls=http://0.0.0.0:{port}", f"--initial-cluster=h0={hosts.peer(0)}"
    wish = rpc_pb2.MemberAddRequest(peerURLs=[hosts.peer(1)], isLearner=True)

    def adds() -> str:
        try:
            hosts.call(0, "Cluster/MemberAdd", wish, rpc_pb2.MemberAddResponse)
        except grpc.RpcError as e:
            return str(e.details())
        return ""

    def stopped() -> None:
        hosts.running[0].terminate()
        assert hosts.running[0].wait(60) == 0

    with contextlib.closing(hosts):
        hosts.start(0, *everywhere)
        until(lambda: hosts.member(0).name)
        assert f"http://0.0.0.0:{port} takes no peers" in hosts.log(0)
        for address in other_addresses():
            with urllib.request.urlopen(f"http://{address}:{port}/members", timeout=20) as answer:
                assert b'"name":"h0"' in answer.read()
            with pytest.raises(Untrusted):
                asked_in_clear(address, int(port), QUESTION, 20.0)
            until(lambda: own_user.BEYOND in hosts.log(0))
        assert asked_in_clear("127.0.0.1", int(port), QUESTION, 20.0)[:1] == QUESTION
        assert adds() == errors.TAKES_NO_PEER.text
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(
                f"http://{hosts.client(0)}/v2/members", f'{{"peerURLs":["{hosts.peer(1)}"]}}'.encode(),
                {"Content-Type": "application/json"}), timeout=20)
        assert (refused.value.code, json.load(refused.value)["message"]) == (409, errors.TAKES_NO_PEER.text)
        stopped()
        hosts.start(0, *everywhere, "--force-new-cluster")
        until(lambda: hosts.member(0).name)
        stopped()
        hosts.start(0, *everywhere, "--peer-insecure")
        until(lambda: hosts.member(0).name)
        until(lambda: adds() == "")
        stopped()
        for state in ("new", "existing"):
            told = len(hosts.log(0))
            assert hosts.start(0, *everywhere, f"--initial-cluster-state={state}").wait(60) == 1
            assert f"{errors.TAKES_NO_PEER.text}: its cluster has other members" in hosts.log(0)[told:]
        told = len(hosts.log(0))
        assert hosts.start(0, *everywhere, "--force-new-cluster").wait(60) == 1
        assert f"{errors.TAKES_NO_PEER.text}: its data knows other members" in hosts.log(0)[told:]
