"""A cluster of an older version is upgraded host by host under load, and no request fails.

The older version is a commit of this repository, run with today's libraries. It is one of ``make soak``,
since a shallow clone does not have that commit.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, command, environment, free_base_port, until
from tests.faults.hosts import aside
from tests.faults.steady_clients import SteadyClients, summary
from tools.muster import peer_keys

OLDER = "688cb9ef62ae74ff84d0f358342becc0a608e404"  # links of version 7; its members are not in the order yet


class Host:
    """A host that a test stops, and starts with another version's code."""

    def __init__(self, directory: Path, place: int, base_port: int, flags: list[str]) -> None:
        self.client_port = base_port + 100 * place
        self._log = directory / f"host{place}.stderr"
        peers = [f"m{i}=http://127.0.0.1:{base_port + 100 * i + 1}" for i in range(3)]
        peer_url = peers[place].partition("=")[2]
        client_url = f"http://127.0.0.1:{self.client_port}"
        self._flags = [f"--name=m{place}", f"--data-dir={directory / f'host{place}'}", *flags,
                       f"--listen-client-urls={client_url}", f"--advertise-client-urls={client_url}",
                       f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}",
                       f"--initial-cluster={','.join(peers)}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, code: Path) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(command(*self._flags), stdout=log, stderr=log, cwd=code,
                                             env=environment() | {"PYTHONPATH": str(code)})

    def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.client_port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(60) == 0, self._log.read_text()
            self._process = None


class Hosts:
    """What clients need to know of three hosts."""

    def __init__(self, hosts: list[Host]) -> None:
        self.endpoints = [("127.0.0.1", host.client_port) for host in hosts]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this clone has no commit {OLDER[:7]}, the older version")
    directory = tmp_path_factory.mktemp("older")
    subprocess.run(["tar", "-x"], cwd=directory, input=found.stdout, check=True)
    return directory


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("shards", "keys"), [(1, False), (2, False), (2, True)], ids=["one", "two", "two-keys"]
)
def test_hosts_are_upgraded_one_after_the_other(tmp_path: Path, older: Path, shards: int, keys: bool) -> None:
    flags = [f"--shards={shards}"]
    if keys:
        peer_keys.generate(str(tmp_path / "keys.json"))
        flags.append(f"--peer-key-file={tmp_path / 'keys.json'}")
    base_port = free_base_port(3, shards)
    hosts = [Host(tmp_path, place, base_port, flags) for place in range(3)]

    async def scenario() -> None:
        async with SteadyClients(Hosts(hosts), shards) as clients:
            await clients.more(20)
            for host in hosts:
                await aside(host.stop)
                await clients.more(5)
                host.start(ROOT)
                await aside(until, host.ready)
                clients.go_home()
                await clients.more(20)
        print(f"{shards} shards{', peer keys' * keys}: {summary(clients.clients)}")
        clients.check()

    with ExitStack() as ending:
        for host in hosts:
            ending.callback(host.stop)
            host.start(older)
        for host in hosts:
            until(host.ready)
        asyncio.run(scenario())
