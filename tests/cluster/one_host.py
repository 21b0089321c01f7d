"""One host, in a process of its own that a test may kill."""

from __future__ import annotations

import contextlib
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests import forks
from tests.cluster.local_cluster import command, environment, free_base_port


class Host:
    """One host, in a process of its own."""

    def __init__(
        self, data_dir: Path, port: int = 0, shards: int = 1, *flags: str, cold: bool = False
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_suffix(".stderr")
        self.port = port = port or free_base_port(1, shards)
        with open(self.log, "wb") as log:
            self.process = forks.popen(
                command(
                    f"--data-dir={data_dir}",
                    f"--shards={shards}",
                    *flags,
                    f"--listen-client-urls=http://127.0.0.1:{port}",
                    f"--advertise-client-urls=http://127.0.0.1:{port}",
                    f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
                ),
                stdout=log,
                stderr=log,
                env=environment(),
                cold=cold,
            )

    def leads(self) -> bool:
        """Whether its node has voted for itself and serves."""
        assert self.process.poll() is None, self.log.read_text()
        return b"became leader" in self.log.read_bytes()

    def serves(self) -> bool:
        """Whether it leads and its port answers."""
        with contextlib.suppress(OSError):
            return (
                self.leads()
                and urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200
            )
        return False

    def kill(self) -> None:
        """SIGKILL to all of its processes, the supervisor first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(recursive=True),
            ]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes, 30)
        self.process.wait(30)


@contextlib.contextmanager
def started(
    data_dir: Path, port: int = 0, shards: int = 1, *flags: str, cold: bool = False
) -> Iterator[Host]:
    """A host that is killed in the end. ``port``: for clients, that of its last life; 0: a free one.
    ``cold``: it is not forked."""
    host = Host(data_dir, port, shards, *flags, cold=cold)
    try:
        yield host
    finally:
        host.kill()
