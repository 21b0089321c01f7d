"""Hosts that listen for their peers at several addresses, and are known by the second one; and hosts whose
peers come by Unix sockets."""

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
