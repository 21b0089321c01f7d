"""Real hosts, each started by itself with its own addresses, as on machines of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import forks
from tests.cluster.local_cluster import command, environment
from tests.faults.hosts import LIMIT_S, Hosts
from tools.muster.host import rundir
from tools.muster.local.hosts import last_lines
from tools.muster.local.layout import LocalHost

Launch = Callable[[Callable[[], "subprocess.Popen[bytes]"]], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class Place:
    """Where a host listens; ``address`` as clients and peers use it. ``launch`` calls what starts its
    process."""

    address: str
    client_port: int
    peer_port: int
    launch: Launch = lambda start: start()
    peer_scheme: str = "http"

    def url(self, port: int) -> str:
        """An address of it."""
        return f"http://[{self.address}]:{port}" if ":" in self.address else f"http://{self.address}:{port}"

    @property
    def peer_url(self) -> str:
        """Its peer URL."""
        return self.peer_scheme + self.url(self.peer_port).removeprefix("http")


class SeparateHosts(Hosts):
    """Hosts at places, with server flags. They are not started yet."""

    def __init__(self, data_dir: Path, places: Sequence[Place], flags: Sequence[str]) -> None:
        data_dir.mkdir()
        self.data_dir = data_dir
        self.endpoints = [(p.address, p.client_port) for p in places]
        self._places = places
        self._hosts = tuple(_host(i, places, data_dir, flags) for i in range(len(places)))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def flags(self, host: int, flags: Sequence[str]) -> None:
        """What a host that is down is started with from now on."""
        hosts = list(self._hosts)
        hosts[host] = _host(host, self._places, self.data_dir, flags)
        self._hosts = tuple(hosts)

    def _start(self, host: int) -> bool:
        if self.up(host):
            return True
        process = self._processes.get(host)
        # a host that was told to stop ends with 0, one that was killed below 0
        if process is not None and process.poll():
            assert process.returncode < 0, "\n".join(last_lines(self._hosts[host].log_file))
        if process is None or process.poll() is not None:
            self._processes[host] = self._places[host].launch(lambda: self._launch(host))
        return False

    def _launch(self, host: int) -> subprocess.Popen[bytes]:
        with open(self._hosts[host].log_file, "ab") as log:
            return forks.popen(
                command(*self._hosts[host].arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(), start_new_session=True, dies=True,
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


def _host(index: int, places: Sequence[Place], data_dir: Path, flags: Sequence[str]) -> LocalHost:
    place, folder = places[index], data_dir / f"host{index}"
    client, peer = place.url(place.client_port), place.peer_url
    arguments = (
        f"--name=host{index}", f"--data-dir={folder}",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        "--initial-cluster=" + ",".join(f"host{i}={p.peer_url}" for i, p in enumerate(places)),
        "--log-format=console", "--cpus=none", *flags,
    )
    return LocalHost(
        index, f"host{index}", place.client_port, place.peer_port, str(folder), f"{folder}.log", arguments
    )
