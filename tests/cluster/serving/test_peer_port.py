"""Three hosts of three shards with neighbouring peer ports: one port each, by every kind of link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.authority import Authority
from tests.cluster.local_cluster import free_base_port, until
from tests.cluster.members.test_peer_tls import ctl
from tests.faults.separate_hosts import Place, SeparateHosts
from tests.ports import free_ports
from tools.muster import peer_keys

SHARDS = 3
pytestmark = pytest.mark.timeout(400)


@contextmanager
def running(folder: Path, scheme: str, flags: Sequence[str]) -> Iterator[SeparateHosts]:
    base, clients = free_base_port(1, SHARDS), free_ports(3)
    places = [Place("127.0.0.1", clients[i], base + i, peer_scheme=scheme) for i in range(3)]
    hosts = SeparateHosts(folder, places, (f"--shards={SHARDS}", "--cpus=none", *flags))
    try:
        hosts.start(0, 1, 2)
        yield hosts
    finally:
        hosts.close()


def secured(folder: Path, how: str) -> Sequence[str]:
    if how == "keys":
        peer_keys.generate(str(folder / "keys.json"))
        return (f"--peer-key-file={folder / 'keys.json'}",)
    if how == "tls":
        authority = Authority(folder)
        pair = authority.issue("host", "127.0.0.1")
        return (f"--peer-cert-file={pair.cert}", f"--peer-key-file={pair.key}", "--peer-client-cert-auth",
                f"--peer-trusted-ca-file={authority.file}")
    return ()


def listening(hosts: SeparateHosts, host: int) -> set[int]:
    """The TCP ports of a host's processes, but that for clients."""
    top = psutil.Process(hosts._processes[host].pid)
    found = {
        link.laddr.port
        for process in (top, *top.children(recursive=True))
        for link in process.net_connections("tcp")
        if link.status == psutil.CONN_LISTEN}
    return found - {hosts.endpoints[host][1]}


def puts(hosts: SeparateHosts, host: int, key: str) -> bool:
    """False while the outcome of a put is open, which etcd says, too: its leader has died, or a majority is
    not up in time."""
    try:
        return ctl(hosts, host, "put", key, "x" * 1000) == "OK\n"
    except AssertionError as error:
        if "etcdserver: request timed out" not in str(error):
            raise
        return False


@pytest.mark.parametrize("how", ["clear", "keys", "tls"])
def test_neighbours_form_a_cluster_and_each_comes_back(tmp_path: Path, how: str) -> None:
    with running(tmp_path / "c", "https" if how == "tls" else "http", secured(tmp_path, how)) as hosts:
        for host in range(3):
            assert len(listening(hosts, host)) == 1
            hosts.kill(host)
            for key in range(10):  # of every shard
                until(lambda host=host, key=key: puts(  # type: ignore[misc]
                    hosts, (host + 1) % 3, f"/{key}/{host}"), 60)
            hosts.start(host)
            until(lambda host=host: len(  # type: ignore[misc]
                ctl(hosts, host, "get", "/", "--prefix", "--keys-only").split()) == 10 * (host + 1))


@pytest.mark.parametrize("shard", [0, 2])
def test_a_killed_node_is_reached_again_by_the_port_that_its_host_kept(tmp_path: Path, shard: int) -> None:
    with running(tmp_path / "c", "http", ()) as hosts:
        port, before = listening(hosts, 1), hosts.node_pid(1, shard)
        psutil.Process(before).kill()
        until(lambda: hosts.node_pid(1, shard) not in (0, before))
        hosts.kill(0)  # a majority needs the node that was killed
        for key in range(10):
            until(lambda key=key: puts(hosts, 2, f"/{key}"), 60)  # type: ignore[misc]
        assert listening(hosts, 1) == port
