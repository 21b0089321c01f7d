"""Hosts that listen for their peers at several addresses, and are known by the second one; hosts whose peers
come by Unix sockets; and one whose first URL leads nowhere."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import command, environment, until
from tests.cluster.members.hosts import LIMIT_S, Hosts
from tests.ports import free_ports


class SecondAddress(Hosts):
    """Known at 127.0.0.2."""

    def peer(self, host: int) -> str:
        return super().peer(host).replace("127.0.0.1", "127.0.0.2")

    flags: tuple[str, ...] = ()

    def start(self, host: int, *flags: str) -> subprocess.Popen[bytes]:
        urls = f"--listen-peer-urls={super().peer(host)},{self.peer(host)}"
        return super().start(host, urls, *self.flags, *flags)


class UnixSockets(Hosts):
    """Files in their working directory, as etcd has them."""

    def peer(self, host: int) -> str:
        return super().peer(host).replace("http://127.0.0.1", "unix://Host.unix")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["in clear", "with keys", "by Unix sockets"])
def test_peers_come_by_every_address(how: str, tmp_path: Path) -> None:
    hosts = (UnixSockets if how == "by Unix sockets" else SecondAddress)(tmp_path, 2)
    if isinstance(hosts, SecondAddress) and how == "with keys":
        file = tmp_path / "cluster.keys"
        forks.run(command("peer-keys", str(file)), check=True, env=environment(), timeout=LIMIT_S)
        hosts.flags = (f"--peer-key-file={file}",)
    try:
        hosts.found()
        hosts.add(1)
        hosts.join(1)
        hosts.votes(1)  # from here on nothing is committed without both
        put = [b"/d%d/k" % n for n in range(6)]  # to both shards
        for key in put:
            hosts.anywhere("KV/Put", pb.PutRequest(key=key), pb.PutResponse)

        def everywhere() -> bool:
            request = pb.RangeRequest(key=b"/", range_end=b"0", serializable=True)
            with contextlib.suppress(grpc.RpcError):
                found = [hosts.call(i, "KV/Range", request, pb.RangeResponse) for i in (0, 1)]
                return [[kv.key for kv in one.kvs] for one in found] == [put, put]
            return False

        until(everywhere, LIMIT_S)
    finally:
        hosts.close()


@pytest.mark.timeout(300)
def test_a_member_is_reached_at_whichever_of_its_urls_answers(tmp_path: Path) -> None:
    """Only the first was ever dialled: two hosts of which one is not there had no leader."""
    hosts = Hosts(tmp_path, 2)
    (dead,) = free_ports(1)
    urls = f"http://127.0.0.1:{dead}", hosts.peer(1)
    cluster = f"--initial-cluster=h0={hosts.peer(0)},h1={urls[0]},h1={urls[1]}"
    try:
        hosts.start(0, cluster, "--shards=2", "--fronts=1")
        hosts.start(1, cluster, "--shards=2", f"--initial-advertise-peer-urls={','.join(urls)}")
        for key in [b"/d%d/k" % n for n in range(6)]:  # to both shards
            hosts.anywhere("KV/Put", pb.PutRequest(key=key), pb.PutResponse)
    finally:
        hosts.close()
