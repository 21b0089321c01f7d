"""Starting ``muster local`` as a user does, on ports that are free."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import forks
from tests.ports import free_base_port as free_base_port
from tools.muster.host import rundir
from tools.muster.local import commands, layout

LIMIT_S = 60.0
# server flags with which nobody is elected once all is up, however busy the machine, unless somebody dies
STEADY = ("--heartbeat-interval=100", "--election-timeout=5000")
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Ours, without what would be read as flags."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_")) and k != "NOTIFY_SOCKET"
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


def command(*args: str) -> list[str]:
    """The command line of ``muster``."""
    return [sys.executable, "-m", "tools.muster.cli", *args]


def shards_of_tests() -> int:
    """How many shards a test's cluster has unless it says so itself: MUSTER_TEST_SHARDS (1)."""
    return int(os.environ.get("MUSTER_TEST_SHARDS", "1"))


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S, *, look_s: float = 0.05) -> Any:
    """Wait for something to be true, and give it back."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(look_s)
    return value


@dataclass
class LocalCluster:
    """A running ``muster local``."""

    data_dir: Path
    process: subprocess.Popen[str]
    base_port: int
    output: list[str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another ``muster local`` command on it."""
        return forks.run(
            command("local", *words, f"--data-dir={self.data_dir}"), capture_output=True, text=True,
            timeout=2 * LIMIT_S, cwd=self.data_dir.parent, env=environment(),
        )  # fmt: skip

    def ok(self, *words: str) -> str:
        """The same, which must succeed; its output."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What ``muster local status --json`` prints, without a process of its own: whoever asks again and
        again would leave the hosts that little CPU."""
        return commands.status(layout.load(str(self.data_dir)))

    def host(self, index: int) -> dict[str, Any]:
        """One host of the status."""
        found = self.status()["hosts"][index]
        assert isinstance(found, dict)
        return found

    def leader(self) -> int:
        """The host that leads shard 0, waited for."""
        return int(
            until(lambda: [s for s in self.status()["shards"][:1] if s["leader_host"] is not None])[0][
                "leader_host"
            ]
        )

    def endpoints(self) -> list[str]:
        """host:port of every host."""
        hosts = layout.load(str(self.data_dir)).hosts
        return [host.endpoint.removeprefix("http://") for host in hosts]

    def pids(self) -> list[int]:
        """Every process of every host that is up."""
        found: list[int] = []
        for host in self.status()["hosts"]:
            if host["up"]:
                found += [host["pid"], *(p["pid"] for p in host["nodes"] + host["fronts"] if p["pid"])]
        return found


@contextlib.contextmanager
def local_cluster(
    data_dir: Path, hosts: int = 3, *args: str, extra: Sequence[str] = (), base_port: int = 0,
    cold: bool = False,
) -> Iterator[LocalCluster]:
    """A local cluster that has said ``ready``; stopped in the end, whatever happened. It has
    MUSTER_TEST_SHARDS shards (1), unless the flags say how many. ``base_port`` 0: any that is free.
    ``cold``: each process is started, none forked (``tests.forks``)."""
    shards = shards_of_tests()
    for flag in args:
        if flag.startswith("--shards="):
            value = flag.removeprefix("--shards=")
            shards = int(value) if value.isdigit() else 64
    base_port = base_port or free_base_port(hosts, shards)
    flags = [
        f"--hosts={hosts}", f"--shards={shards}", f"--base-port={base_port}", f"--data-dir={data_dir}", *args,
    ]
    if not any(flag.startswith("--fronts=") for flag in args):
        # processes of their own, so that tests can end one of them, whatever the machine's CPUs would suggest
        flags.append(f"--fronts={os.environ.get('MUSTER_TEST_FRONTS', '1')}")
    errors = data_dir.with_suffix(".stderr")
    with open(errors, "w", encoding="utf-8") as stderr, forks.popen(
        command("local", *flags, "--", "--log-format=console", *extra), cold=cold, stdout=subprocess.PIPE,
        stderr=stderr, text=True, env=environment(), cwd=data_dir.parent,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            output = []
            for line in process.stdout:
                output.append(line.rstrip("\n"))
                if output[-1] == "ready":
                    break
            assert output[-1:] == ["ready"], (output, errors.read_text(encoding="utf-8"))
            yield LocalCluster(data_dir, process, base_port, output)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            for folder in (data_dir, *data_dir.glob("host*")):  # what was killed could not tidy up
                rundir.remove_run_dir(str(folder), rundir.run_dir_of(str(folder)))
