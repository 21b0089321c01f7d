"""Several shards, real processes: the layout is agreed once, and nobody works with another one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LIMIT_S, LocalCluster, command, environment, free_base_port, local_cluster, until
from tools.muster import rundir


def unary(channel: grpc.Channel, method: str, request: object, response: type, timeout: float = LIMIT_S) -> object:
    """One call of etcd's API."""
    return channel.unary_unary(
        f"/etcdserverpb.{method}", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=response.FromString,
    )(request, timeout=timeout)  # fmt: skip


def put(channel: grpc.Channel, key: str, value: str) -> None:
    unary(channel, "KV/Put", pb.PutRequest(key=key.encode(), value=value.encode()), pb.PutResponse)


def everything(channel: grpc.Channel) -> dict[str, str]:
    found = unary(channel, "KV/Range", pb.RangeRequest(key=b"\0", range_end=b"\0"), pb.RangeResponse)
    return {kv.key.decode(): kv.value.decode() for kv in found.kvs}


class Servers:
    """Hosts that are started one by one, each with its own flags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = free_base_port(3, 4)
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def client(self, host: int) -> str:
        return f"127.0.0.1:{self.base + 100 * host}"

    def start(self, host: int, *flags: str) -> subprocess.Popen[bytes]:
        cluster = ",".join(f"h{i}=http://127.0.0.1:{self.base + 100 * i + 1}" for i in range(3))
        peer, client = f"http://127.0.0.1:{self.base + 100 * host + 1}", f"http://{self.client(host)}"
        with open(self.folder / f"h{host}.log", "ab") as log:
            self.running[host] = subprocess.Popen(
                command(f"--name=h{host}", f"--data-dir={self.folder / f'h{host}'}", f"--initial-cluster={cluster}",
                        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", *flags),
                stdout=log, stderr=log, env=environment(), cwd=self.folder)  # fmt: skip
        return self.running[host]

    def log(self, host: int) -> str:
        return (self.folder / f"h{host}.log").read_text(encoding="utf-8")


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    made = Servers(folder)
    try:
        yield made
    finally:
        for process in made.running.values():
            process.terminate()
        for process in made.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for host in made.running:
            rundir.remove_run_dir(str(folder / f"h{host}"), rundir.run_dir_of(str(folder / f"h{host}")))


@pytest.mark.parametrize(("most", "other"), [(3, 2), (1, 2), (2, 1)])
def test_a_host_with_another_number_of_shards_is_told_so_and_follows_when_told(tmp_path: Path, most: int, other: int) -> None:
    with servers(tmp_path) as hosts:
        hosts.start(0, f"--shards={most}")
        hosts.start(1, f"--shards={most}")
        until(lambda: all("ready to serve" in hosts.log(i) for i in (0, 1)))  # hence the number is agreed
        odd = hosts.start(2, f"--shards={other}")
        assert odd.wait(LIMIT_S) == 1
        told = f"this cluster has {most} shards at placement depth 2, this host was started with {other} at depth 2"
        assert told in hosts.log(2)
        with grpc.insecure_channel(hosts.client(0)) as channel:
            for i in range(20):
                put(channel, f"/{i}/k", str(i))
        again = hosts.start(2, f"--shards={other}")
        assert again.wait(LIMIT_S) == 1
        assert f"--shards={other}, but this cluster was made with {most}" in hosts.log(2)
        hosts.start(2)  # without a number of its own it takes what was agreed
        until(lambda: "ready to serve" in hosts.log(2))
        with grpc.insecure_channel(hosts.client(2)) as channel:
            assert everything(channel) == {f"/{i}/k": str(i) for i in range(20)}


def test_auto_is_the_number_of_cpus_and_is_kept(tmp_path: Path) -> None:
    cpus = min(len(os.sched_getaffinity(0)), 64)
    with local_cluster(tmp_path / "c", 1, "--shards=auto") as cluster:
        assert len(cluster.host(0)["nodes"]) == cpus
    with local_cluster(tmp_path / "c", 1, "--shards=auto", f"--base-port={cluster.base_port}") as cluster:
        assert len(cluster.host(0)["nodes"]) == cpus


def leaders(cluster: LocalCluster) -> list[int | None]:
    """The host that leads, by shard."""
    return [s["leader_host"] for s in cluster.status()["shards"]]


def test_leaders_come_together_and_follow_the_sequencer(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3, "--shards=4") as cluster:
        until(lambda: len(set(leaders(cluster))) == 1)
        first = leaders(cluster)[0]
        cluster.ok("kill", str(first))
        until(lambda: len(found := set(leaders(cluster))) == 1 and not found & {None, first})
        cluster.ok("start", str(first), "--wait=60s")


def test_leaders_are_spread_over_the_hosts_that_are_up(tmp_path: Path) -> None:
    def numbers() -> list[int]:
        found = leaders(cluster)
        return sorted(found.count(host) for host in range(3)) if None not in found else []

    with local_cluster(tmp_path / "c", 3, "--shards=6", extra=("--leader-placement=spread",)) as cluster:
        until(lambda: numbers() == [2, 2, 2])
        cluster.ok("kill", "1")
        until(lambda: numbers() == [0, 3, 3])
        cluster.ok("start", "1", "--wait=60s")
        until(lambda: numbers() == [2, 2, 2])
        with grpc.insecure_channel(cluster.endpoints()[1]) as channel:
            for i in range(30):
                put(channel, f"/{i}/k", str(i))
            assert everything(channel) == {f"/{i}/k": str(i) for i in range(30)}
