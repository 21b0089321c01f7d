"""The three hosts that other people's clients are tried on: muster's, or etcd's to test the tests themselves
(MUSTER_INTEROP_SERVER=etcd)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LocalCluster, free_base_port, local_cluster, shards_of_tests, until

# What has a client's checks take keys that lie on all shards, not one directory for all of them
APART = ["-apart"] if shards_of_tests() > 1 else []
ETCD = os.environ.get("MUSTER_INTEROP_SERVER") == "etcd"
_BIN = Path(sys.executable).parent


class Processes(Protocol):
    """What runs the hosts."""

    def kill(self, *hosts: int) -> None:
        """kill -9 of all of some hosts."""

    def stop(self, *hosts: int) -> None:
        """Stop some hosts in order; they are gone when this returns."""

    def start(self, *hosts: int) -> None:
        """Start them again."""


class Hosts:
    """A cluster by its addresses, with the few calls that arrangements need."""

    def __init__(self, endpoints: list[str], processes: Processes) -> None:
        self.endpoints = endpoints
        self.all = ",".join(endpoints)
        self._processes = processes
        self._down: set[int] = set()

    def kill(self, *hosts: int) -> None:
        """kill -9 of all processes of some hosts."""
        self._down.update(hosts)
        self._processes.kill(*hosts)

    def end_during_writes(self, host: int) -> None:
        """kill -9 of a host, unless its members differ after that: those are stopped in order."""
        self._down.add(host)
        differ = isinstance(self._processes, EtcdProcesses) and self._processes.differ_after_kills
        (self._processes.stop if differ else self._processes.kill)(host)

    def restart(self, host: int, meanwhile: Callable[[], None]) -> None:
        """Stop a host in order, and start it again after something else: it serves when this returns."""
        self._down.add(host)
        self._processes.stop(host)
        meanwhile()
        self.mend()

    def mend(self) -> None:
        """Start what was killed, and wait until every host answers a linearizable read."""
        if self._down:
            self._processes.start(*sorted(self._down))
            self._down.clear()
        until(lambda: all(answers(endpoint) for endpoint in self.endpoints))

    def leader(self) -> int:
        """The host that leads, waited for."""

        def found() -> list[int]:
            leads = []
            for i, endpoint in enumerate(self.endpoints):
                with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(endpoint) as channel:
                    status = unary(channel, "Maintenance/Status", pb.StatusResponse)(
                        pb.StatusRequest(), timeout=2
                    )
                    if status.leader == status.header.member_id:
                        leads.append(i)
            return leads

        return int(until(found)[0])

    def get(self, key: str, host: int = 0) -> str | None:
        """A linearizable read."""
        with grpc.insecure_channel(self.endpoints[host]) as channel:
            read = unary(channel, "KV/Range", pb.RangeResponse)
            found = read(pb.RangeRequest(key=key.encode()), timeout=30)
        return str(found.kvs[0].value.decode()) if found.kvs else None

    def gone(self, key: str, limit_s: float) -> float:
        """Wait until a key is gone; how long that took."""
        began = time.monotonic()
        until(lambda: self.get(key) is None, limit_s)
        return time.monotonic() - began


def unary(channel: grpc.Channel, method: str, response: Any) -> Callable[..., Any]:
    """A method of etcd's API, without generated stubs."""
    call: Callable[..., Any] = channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return call


def answers(endpoint: str) -> bool:
    """Whether a host answers a linearizable read now."""
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(endpoint) as channel:
        unary(channel, "KV/Range", pb.RangeResponse)(pb.RangeRequest(key=b"x"), timeout=2)
        return True
    return False


class MusterProcesses:
    """Of ``muster local``."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def kill(self, *hosts: int) -> None:
        self._cluster.ok("kill", *map(str, hosts))

    def stop(self, *hosts: int) -> None:
        self._cluster.ok("stop", *map(str, hosts))

    def start(self, *hosts: int) -> None:
        self._cluster.ok("start", *map(str, hosts), "--wait=60s")


class EtcdProcesses:
    """Three members of an etcd, started at once: the packaged one, or another binary."""

    def __init__(
        self, directory: Path, base_port: int, *flags: str, binary: Path = _BIN / "etcd"
    ) -> None:
        directory.mkdir()
        # the packaged 3.5.1 forgets at a kill how far it had applied (github.com/etcd-io/etcd/issues/13766)
        self.differ_after_kills = binary == _BIN / "etcd"
        self.endpoints = [f"127.0.0.1:{base_port + 100 * i}" for i in range(3)]
        peers = [f"http://127.0.0.1:{base_port + 100 * i + 1}" for i in range(3)]
        initial = ",".join(f"host-{i}={peer}" for i, peer in enumerate(peers))
        self._lines = [
            [str(binary), f"--name=host-{i}", f"--data-dir={directory}/{i}", "--log-level=error",
             f"--listen-client-urls=http://{client}", f"--advertise-client-urls=http://{client}",
             f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
             f"--initial-cluster={initial}", *flags]
            for i, (client, peer) in enumerate(zip(self.endpoints, peers, strict=True))
        ]  # fmt: skip
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.start(0, 1, 2)

    def start(self, *hosts: int) -> None:
        quiet = subprocess.DEVNULL
        for host in hosts:
            self._running[host] = subprocess.Popen(self._lines[host], stdout=quiet, stderr=quiet)

    def kill(self, *hosts: int) -> None:
        for host in hosts:
            self._running[host].kill()
        for host in hosts:
            self._running.pop(host).wait()

    def stop(self, *hosts: int) -> None:
        for host in hosts:
            self._running[host].terminate()
        for host in hosts:
            self._running.pop(host).wait()

    def end(self) -> None:
        """Kill what runs."""
        self.kill(*list(self._running))


@contextlib.contextmanager
def serving(etcd: EtcdProcesses) -> Iterator[Hosts]:
    """All of them started."""
    try:
        hosts = Hosts(etcd.endpoints, etcd)
        hosts.mend()
        yield hosts
    finally:
        etcd.end()


@contextlib.contextmanager
def three_hosts(directory: Path) -> Iterator[Hosts]:
    """A cluster that serves."""
    if ETCD:
        with serving(EtcdProcesses(directory / "etcd", free_base_port(3))) as hosts:
            yield hosts
    else:
        with local_cluster(directory / "muster", 3) as cluster:
            yield Hosts(cluster.endpoints(), MusterProcesses(cluster))
