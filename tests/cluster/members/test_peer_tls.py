"""Hosts that talk by TLS, with etcd's flags: a cluster forms, mends itself, and lets no stranger in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from cluster import errors
from cluster.pb import rpc_pb2
from tests import forks
from tests.authority import Authority
from tests.cluster.local_cluster import LIMIT_S, environment, until
from tests.cluster.members.hosts import Hosts
from tests.faults.separate_hosts import Place, SeparateHosts
from tests.ports import free_ports

pytestmark = pytest.mark.timeout(300)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[SeparateHosts]:
    ports = free_ports(6)
    places = [Place("127.0.0.1", ports[i], ports[i + 3], peer_scheme="https") for i in range(3)]
    hosts = SeparateHosts(folder, places, flags)
    try:
        hosts.start(0, 1, 2)
        yield hosts
    finally:
        hosts.close()


def ctl(hosts: SeparateHosts, host: int, *words: str) -> str:
    address, port = hosts.endpoints[host]
    done = forks.run(
        [*forks.MUSTERCTL, f"--endpoints={address}:{port}",
         "--command-timeout=30s", *words],
        capture_output=True, text=True, env=environment(), timeout=LIMIT_S * 2, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cluster_with_certificates_forms_mends_itself_and_takes_no_stranger(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.issue("host", "127.0.0.1")
    flags = (
        f"--peer-cert-file={pair.cert}", f"--peer-key-file={pair.key}", "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={authority.file}",
    )  # fmt: skip
    with running(tmp_path / "c", *flags) as hosts:
        assert ctl(hosts, 0, "put", "a", "1") == "OK\n"
        hosts.kill(2)
        assert ctl(hosts, 1, "put", "a", "2" * 100_000) == "OK\n"
        authority.issue("host", "127.0.0.1")  # the same files: they count from the next connection on
        hosts.start(2)
        assert ctl(hosts, 2, "get", "a", "--print-value-only").strip() == "2" * 100_000
        members = json.loads(ctl(hosts, 2, "member", "list", "-w", "json"))["members"]
        assert all(url.startswith("https://") for member in members for url in member["peerURLs"])
        stranger = other.issue("stranger", "127.0.0.1")
        hosts.kill(1)
        wrong = tuple(
            {f"--peer-cert-file={pair.cert}": f"--peer-cert-file={stranger.cert}",
             f"--peer-key-file={pair.key}": f"--peer-key-file={stranger.key}"}.get(flag, flag)
            for flag in flags
        )  # fmt: skip
        hosts.flags(1, wrong)
        log = hosts.log(1)
        hosts.start(1, wait_s=0)
        log.await_text("remote error: tls: ")
        assert ctl(hosts, 0, "put", "a", "3") == "OK\n"  # two of three go on
        assert not hosts.ready(1)


def test_a_cluster_with_certificates_of_its_own_making_forms(tmp_path: Path) -> None:
    with running(tmp_path / "c", "--peer-auto-tls") as hosts:
        assert ctl(hosts, 0, "put", "a", "1") == "OK\n"
        assert ctl(hosts, 2, "get", "a", "--print-value-only") == "1\n"
        assert (hosts.host_dir(0) / "fixtures" / "peer" / "cert.pem").is_file()


def test_hosts_go_over_from_http_to_https_all_at_once(tmp_path: Path) -> None:
    """One by one, as etcd's, they would lose each other: the change of a URL is refused before."""
    pair = (authority := Authority(tmp_path)).issue("host", "127.0.0.1")
    hosts = Hosts(tmp_path, 1, 2, cold=True)
    listed = f"--initial-cluster=h0={hosts.peer(0)},h1={hosts.peer(1)}"
    named = {host: hosts.peer(host).replace("http:", "https:") for host in range(2)}

    def moved(host: int) -> str:
        member_id = next(m.ID for m in hosts.members() if m.name == f"h{host}")
        wish = rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=[named[host]])
        try:
            hosts.call(host, "Cluster/MemberUpdate", wish, rpc_pb2.MemberUpdateResponse)
        except grpc.RpcError as e:
            return str(e.details())
        return ""

    with closing(hosts):
        for host in range(2):
            hosts.start(host, listed, "--shards=1")
        until(lambda: all(m.name for m in hosts.members()))
        assert moved(1) == errors.PEERS_OVER_HTTP.text
        for process in hosts.running.values():
            process.terminate()
        for process in hosts.running.values():
            assert process.wait(60) == 0
        for host in range(2):
            hosts.start(
                host, f"--listen-peer-urls={named[host]}", f"--initial-advertise-peer-urls={named[host]}",
                f"--peer-cert-file={pair.cert}", f"--peer-key-file={pair.key}", "--peer-client-cert-auth",
                f"--peer-trusted-ca-file={authority.file}")
        for host in range(2):
            until(lambda host=host: moved(host) == "")
        assert sorted(url for m in hosts.members() for url in m.peerURLs) == sorted(named.values())
        hosts.anywhere("KV/Put", rpc_pb2.PutRequest(key=b"k", value=b"v"), rpc_pb2.PutResponse)
