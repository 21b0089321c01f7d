"""A local cluster and what can be done to its processes, from the test's own process so that it takes no
time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cluster.local_cluster import LIMIT_S, LocalCluster, local_cluster
from tests.cluster.local_cluster import until as until_looking
from tools.muster.config.parse import ConfigError
from tools.muster.host import control, rundir
from tools.muster.local import hosts as local
from tools.muster.local import layout

SHARDS = int(os.environ.get("MUSTER_TEST_SHARDS", "1"))
until = functools.partial(until_looking, look_s=0.01)  # often, since what is watched here is short
ELECTION_TIMEOUT_S = 1.0  # the server's default, which these tests use


class Hosts:
    """The hosts of a running local cluster. ``leader`` always means that of shard 0."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.data_dir = cluster.data_dir
        self._hosts = layout.load(str(cluster.data_dir)).hosts
        self.endpoints = [("127.0.0.1", h.client_port) for h in self._hosts]

    def status(self, host: int) -> dict[str, Any] | None:
        """What a host says of itself; None while it is down."""
        return local.status_of(self._hosts[host])

    def ready(self, host: int) -> bool:
        """Whether all of a host serves."""
        return bool(self._ask(host, "ready").get("ready"))

    def up(self, host: int) -> bool:
        """Whether its supervisor answers."""
        return bool(self._ask(host, "ready"))

    def _ask(self, host: int, what: str) -> dict[str, Any]:
        path = os.path.join(rundir.run_dir_of(str(self.host_dir(host))), "control.sock")
        try:
            return control.ask(path, {"do": what})
        except control.Unreachable:
            return {}

    def leader(self, but: int | None = None) -> int:
        """The host that leads shard 0, as it says itself; waited for."""

        def led() -> int | None:
            for index in range(len(self._hosts)):
                found = self.status(index) if index != but else None
                if found and any(n["shard"] == 0 and n["is_leader"] for n in found["nodes"]):
                    return index
            return None

        return int(until(lambda: (i := led()) is not None and [i])[0])

    def node_pid(self, host: int, shard: int = 0) -> int:
        """The process of one node."""
        return self._pid(host, "nodes", shard)

    def _pid(self, host: int, kind: str, place: int) -> int:
        return int(until(lambda: (s := self.status(host)) and s[kind][place]["pid"]))

    def kill(self, *hosts: int) -> None:
        """kill -9 of all their processes; they are gone when this returns."""
        for host in hosts:
            local.kill(self._hosts[host])

    def stop(self, host: int) -> None:
        """SIGTERM; gone when this returns."""
        local.stop(self._hosts[host])

    def start(self, *hosts: int, wait_s: float = LIMIT_S) -> None:
        """Start them again, and wait until they serve (``wait_s`` 0: until their supervisors answer)."""
        for host in hosts:
            until(functools.partial(self._start, host))
        if wait_s:
            for host in hosts:
                until(functools.partial(self.ready, host), wait_s)

    def start_missing(self) -> None:
        """Every host is up and ready when this returns, whatever an earlier test left behind."""
        self.start(*(host for host in range(len(self._hosts)) if not self.up(host)))
        until(lambda: all(map(self.ready, range(len(self._hosts)))))

    def _start(self, host: int) -> bool:
        try:
            local.start(str(self.data_dir), self._hosts[host])
        except ConfigError as e:
            if "already running" not in str(e):  # gone, but the foreground process has yet to notice
                raise
            return False
        return True

    def launch(self, host: int) -> None:
        """Start one that will not come up, perhaps."""
        answer = control.ask(
            os.path.join(rundir.run_dir_of(str(self.data_dir)), "local.sock"), {"do": "start", "host": host}
        )
        assert "error" not in answer, answer

    def exit_code(self, host: int, since: int) -> int:
        """How a launched host ended, as the foreground process tells; ``since`` is from :meth:`told`."""
        word = f"host {host} ended with exit code "
        line = until(lambda: next((t for t in self.told_since(since) if t.startswith(word)), ""))
        return int(line.removeprefix(word).split(";")[0])

    @property
    def told(self) -> int:
        """A place in the output of the foreground process."""
        return self.data_dir.with_suffix(".stderr").stat().st_size

    def told_since(self, place: int) -> list[str]:
        """What the foreground process told since."""
        return self.data_dir.with_suffix(".stderr").read_bytes()[place:].decode().splitlines()

    def log(self, host: int) -> Log:
        """The host's log, from here on."""
        return Log(Path(self._hosts[host].log_file))

    def host_dir(self, host: int) -> Path:
        """All that a host keeps."""
        return Path(self._hosts[host].data_dir)

    def shard_dir(self, host: int, shard: int = 0) -> Path:
        """Where a node keeps its data."""
        return self.host_dir(host) / "member" / f"shard-{shard}"


class Log:
    """What a host has logged since this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """All of it."""
        with open(self._path, "rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def count(self, text: str, process: str = "node-0") -> int:
        """How many lines of one of the host's processes hold a text."""
        return sum(text in line and f"process={process}" in line for line in self.text().splitlines())

    def await_text(self, text: str) -> None:
        """Wait until it holds a text."""
        until(lambda: text in self.text(), LIMIT_S)


async def aside(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Something that blocks, while clients go on."""
    return await asyncio.to_thread(call, *args, **kwargs)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, and does not know it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def three_hosts(data_dir: Path, *flags: str) -> Iterator[Hosts]:
    """Three fresh hosts, with server flags."""
    with local_cluster(data_dir, 3, f"--shards={SHARDS}", extra=flags) as cluster:
        yield Hosts(cluster)
