"""A cluster of this machine, as tests use it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from muster.testing import cleaning
from muster.testing.clock import Clock

if TYPE_CHECKING:
    from muster_client.sync import Client

START_S = 60.0
_MORE_S = 10.0  # for the keeper to tell that something took too long
_ROOT = Path(__file__).resolve().parents[2]
_CLOCKED = Path(__file__).resolve().parent / "clocked"


class ClusterError(Exception):
    """The cluster could not do what was asked; the message has the end of the log that says why."""


class Cluster:
    """Hosts of muster on this machine, each with its own processes, for ``with``.

    ``hosts``: 1 to 16. ``shards``: Raft groups. ``flags``: more flags of each host, such as
    ``("--heartbeat-interval=50", "--election-timeout=500")``. ``data_dir``: kept after the end; without it
    the data lies in a temporary folder. Hosts have the numbers 0, 1, 2 and so on. Any thread may use it. The
    hosts end with this process, however it ends.
    """

    def __init__(
        self, hosts: int = 1, shards: int = 1, *, flags: Sequence[str] = (), data_dir: str | Path = "",
    ) -> None:
        if not 1 <= hosts <= 16:
            raise ValueError("hosts must be 1 to 16")
        self.hosts, self.shards = hosts, shards
        self._flags, self._kept = tuple(flags), str(data_dir)
        self._data_dir = ""
        self._keeper: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._lines: BinaryIO | None = None  # what comes over the link
        self._asked = 0
        self._asking = threading.Lock()
        self._ports: list[int] = []
        self._clock: Clock | None = None
        self._empty_at = 0  # version 2's index then

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> list[str]:
        """``host:port`` of each host's client port."""
        return [f"127.0.0.1:{port}" for port in self._ports]

    @property
    def endpoint(self) -> str:
        """The same in one string, as clients take it: ``127.0.0.1:61000,127.0.0.1:61003``."""
        return ",".join(self.endpoints)

    @property
    def clock(self) -> Clock:
        """By which leases live. ClusterError before the start."""
        if self._clock is None:
            raise ClusterError("this cluster does not run: use `with`, or start()")
        return self._clock

    def start(self) -> Self:
        """Start all hosts; they serve when this returns. ClusterError."""
        if self._keeper is not None:
            raise ClusterError("this cluster runs already")
        self._data_dir = os.path.abspath(self._kept or tempfile.mkdtemp(prefix="muster-testing-"))
        os.makedirs(self._data_dir, exist_ok=True)
        plan = {
            "data_dir": self._data_dir, "hosts": self.hosts, "shards": self.shards, "flags": self._flags,
            "remove": not self._kept,
        }
        clock = Path(self._data_dir, "clock")
        clock.unlink(missing_ok=True)
        self._clock = Clock(clock)
        self._link, theirs = socket.socketpair()
        self._lines, self._asked = self._link.makefile("rb"), 0
        with theirs, open(self._log_of_keeper(), "ab") as log:
            self._keeper = subprocess.Popen(
                # -P: a folder `tools` in the working directory is not muster's
                [sys.executable, "-P", "-m", "muster.testing.keeper", str(theirs.fileno()), json.dumps(plan)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs.fileno(),),
                env=_environment(clock),
                start_new_session=True,  # Ctrl-C is for the tests, which end the cluster
            )
        try:
            self._ports = list(self._answer(START_S + _MORE_S)["ports"])
            with contextlib.suppress(cleaning.NotClean):  # over TLS: it is never cleaned
                self._empty_at = cleaning.index_of(self._ports[0]) if self.hosts == 1 else 0
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill all hosts, and remove their data unless ``data_dir`` was given. They are gone afterwards."""
        if self._link is not None:
            if self._lines is not None:
                self._lines.close()
            self._link.close()  # the keeper ends all when it reads the end
        if self._keeper is not None:
            try:
                self._keeper.wait(START_S)
            except subprocess.TimeoutExpired:
                self._keeper.send_signal(signal.SIGKILL)  # its hosts end with it
                self._keeper.wait()
        if self._data_dir and not self._kept:
            shutil.rmtree(self._data_dir, ignore_errors=True)
        self._keeper, self._link, self._lines, self._ports = None, None, None, []
        self._clock = None

    def kill(self, *hosts: int) -> None:
        """``kill -9`` of all processes of some hosts; they are gone when this returns."""
        self._ask("kill", self._numbers(hosts))

    def stop(self, *hosts: int) -> None:
        """Stop some hosts in order, as an operator does; they are gone when this returns."""
        self._ask("stop", self._numbers(hosts))

    def restart(self, *hosts: int, wait_s: float = 30.0) -> None:
        """Start some hosts again, those that run after stopping them in order.

        They serve when this returns; ClusterError after ``wait_s`` seconds. A host serves only beside a
        majority: with ``wait_s=0`` this returns once its processes run.
        """
        self._ask("restart", self._numbers(hosts), wait_s=wait_s)

    def freeze(self, *hosts: int) -> None:
        """Let some hosts stand still (SIGSTOP), as after a long pause of a virtual machine."""
        self._ask("freeze", self._numbers(hosts))

    def thaw(self, *hosts: int) -> None:
        """Let frozen hosts go on; without numbers all of them."""
        self._ask("thaw", self._numbers(hosts or range(self.hosts)))

    def partition(self, *groups: int | Collection[int]) -> None:
        """Cut the network between groups of hosts: ``partition(0)`` isolates host 0, ``partition({0, 1}, {2,
        3, 4})`` makes two halves. Hosts that no group names are one more group.

        Packets are held back, as by a firewall that drops them. Clients still reach every host. A new
        partition replaces the one before.
        """
        sides = [sorted(group) if isinstance(group, Collection) else [group] for group in groups]
        self._numbers([host for side in sides for host in side])
        self._ask("partition", groups=sides)

    def heal(self) -> None:
        """End the partition; what was held back arrives."""
        self._ask("partition", groups=[])

    def leader(self, shard: int = 0, wait_s: float = 30.0) -> int:
        """The host that leads a shard, waited for. Frozen hosts are not asked. ClusterError."""
        return int(self._ask("leader", shard=shard, wait_s=wait_s)["host"])

    def clean(self) -> None:
        """Empty a store of one host: keys, leases, users, roles, alarms, version 2's keys. Revisions go on.
        ClusterError if not all of it could be undone, such as version 2's users and hidden keys; a new
        cluster can be had instead."""
        if self.hosts != 1:
            raise ClusterError("only a cluster of one host can be cleaned: start another one")
        try:
            self._empty_at = cleaning.clean(self._ports[0], self._empty_at)
        except cleaning.NotClean as e:
            raise ClusterError(f"the store cannot be emptied: {e}") from None

    def client(self, **options: Any) -> Client:
        """A ``muster_client.sync.Client`` of all hosts, for ``with``."""
        from muster_client.sync import Client

        return Client(self.endpoints, **options)

    def log(self, host: int, lines: int = 50) -> str:
        """The end of a host's log."""
        self._numbers([host])
        return _tail(Path(self._data_dir, f"host{host}.log"), lines)

    def _numbers(self, hosts: Collection[int]) -> list[int]:
        for host in hosts:
            if not 0 <= host < self.hosts:
                raise ValueError(f"there is no host {host}: they are 0 to {self.hosts - 1}")
        return list(hosts)

    def _ask(
        self, do: str, hosts: Sequence[int] = (), wait_s: float = START_S, **more: Any
    ) -> dict[str, Any]:
        if self._link is None or self._lines is None:
            raise ClusterError("this cluster does not run: use `with`, or start()")
        with self._asking:
            self._asked += 1
            request = {"id": self._asked, "do": do, "hosts": list(hosts), "wait_s": wait_s, **more}
            with contextlib.suppress(OSError):  # the answer tells why
                self._link.sendall(json.dumps(request).encode() + b"\n")
            return self._answer(wait_s + START_S + _MORE_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """What the keeper says to the last request; answers to those before, which were interrupted, are
        dropped."""
        assert self._link is not None
        assert self._lines is not None
        self._link.settimeout(limit_s)
        late = f"no answer after {limit_s:g} s"
        try:
            while line := self._lines.readline():
                answer: dict[str, Any] = json.loads(line)
                if answer["id"] == self._asked:
                    if "error" in answer:
                        raise ClusterError(answer["error"])
                    return answer
            late = "the process that runs the hosts has ended"
        except TimeoutError:
            self._link.close()  # what it says later answers nothing
        except OSError:
            late = "the process that runs the hosts has ended, or gave no answer in time before"
        logs = [self._log_of_keeper(), *(Path(self._data_dir, f"host{i}.log") for i in range(self.hosts))]
        raise ClusterError("\n".join([f"{late}; the logs end:", *(_tail(log, 10) for log in logs)]))

    def _log_of_keeper(self) -> Path:
        return Path(self._data_dir, "keeper.log")


def _tail(path: Path, lines: int) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _environment(clock: Path) -> dict[str, str]:
    """Ours, without what muster would read as flags. muster's own packages come first: a test's may have
    their names."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_")) and k != "NOTIFY_SOCKET"
    }
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(_ROOT)]
    own = [str(_ROOT)] if others or str(_ROOT) not in site.getsitepackages() else []
    kept["PYTHONPATH"] = os.pathsep.join([str(_CLOCKED), *own, *others])
    kept["TESTING_CLOCK_OF_MUSTER"] = str(clock)
    return kept
