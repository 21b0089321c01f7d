"""Three real hosts, each in a network namespace of its own (``netns``): ``Hosts`` whose network can be cut."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.local_cluster import command, environment
from tests.faults.hosts import LIMIT_S, Hosts
from tests.faults.netns import Net, need, net
from tools.muster import rundir
from tools.muster.children import die_with
from tools.muster.layout import LocalHost

CLIENT_PORT, PEER_PORT = 2379, 2380


class NetHosts(Hosts):
    """Running hosts. ``net`` cuts them off, ``endpoints`` are for those who live in its hub."""

    def __init__(self, network: Net, data_dir: Path, flags: tuple[str, ...]) -> None:
        self.net = network
        self.data_dir = data_dir
        self.endpoints = [(address, CLIENT_PORT) for address in network.addresses]
        self._hosts = tuple(_host(i, network.addresses, data_dir, flags) for i in range(len(network.hosts)))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def _start(self, host: int) -> bool:
        if self.up(host):
            return True
        process = self._processes.get(host)
        if process is None or process.poll() is not None:
            self._processes[host] = self.net.hosts[host].run(lambda: self._launch(host))
        return False

    def _launch(self, host: int) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        with open(self._hosts[host].log_file, "ab") as log:
            return subprocess.Popen(
                command(*self._hosts[host].arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(), start_new_session=True,
                preexec_fn=lambda: die_with(parent),
            )

    def close(self) -> None:
        """kill -9 of whatever runs."""
        for host, process in self._processes.items():
            if self.up(host):
                self.kill(host)
            process.kill()
            process.wait(LIMIT_S)
            folder = str(self.host_dir(host))
            rundir.remove_run_dir(folder, rundir.run_dir_of(folder))


def _host(index: int, addresses: list[str], data_dir: Path, flags: tuple[str, ...]) -> LocalHost:
    client, peer = (f"http://{addresses[index]}:{port}" for port in (CLIENT_PORT, PEER_PORT))
    cluster = ",".join(f"host{i}=http://{address}:{PEER_PORT}" for i, address in enumerate(addresses))
    arguments = (
        f"--name=host{index}", f"--data-dir={data_dir / f'host{index}'}",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster}", "--log-format=console", "--cpus=none", *flags,
    )
    return LocalHost(index, f"host{index}", CLIENT_PORT, PEER_PORT, str(data_dir / f"host{index}"),
                     str(data_dir / f"host{index}.log"), arguments)


@contextlib.contextmanager
def three_net_hosts(data_dir: Path, *flags: str) -> Iterator[NetHosts]:
    """Three fresh hosts that serve; this thread lives in the hub meanwhile. Skipped where namespaces cannot be made."""
    need()
    data_dir.mkdir()
    with net(3) as network:
        hosts = NetHosts(network, data_dir, flags)
        try:
            hosts.start(0, 1, 2)
            yield hosts
        finally:
            hosts.close()


