"""Hosts in network namespaces of their own, whose packets can be dropped without a word.

``Net`` makes one namespace for each host and one, the hub, with the bridge that joins them; clients live in
the hub. Namespaces have no names: each belongs to a thread of this process and to what it starts, and goes
when they are gone. A packet is dropped where it arrives (``iptables -A INPUT -j DROP``), so its sender learns
nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_R = TypeVar("_R")
_COMMANDS = ("ip", "iptables")
_NETWORK = "10.77.0"
_HUB = 254


def _checked(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class Namespace:
    """A network namespace, and the thread that lives in it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.run(lambda: _checked(_libc.unshare(_CLONE_NEWNET), "unshare"))
        self.path = f"/proc/{os.getpid()}/task/{self._thread.native_id}/ns/net"
        self("ip", "link", "set", "lo", "up")

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            try:
                future.set_result(function())
            except BaseException as e:  # it is raised where the result is asked for
                future.set_exception(e)

    def run(self, function: Callable[[], _R]) -> _R:
        """Call something in the namespace: its sockets and processes belong there."""
        future: Future[_R] = Future()
        self._jobs.put((future, function))
        return future.result(30)

    def __call__(self, *command: str) -> None:
        """Run a command in the namespace, which must succeed."""
        done = self.run(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"

    def close(self) -> None:
        """End the thread. The namespace goes with its last process."""
        self._jobs.put(None)
        self._thread.join(10)


class Net:
    """Namespaces for ``hosts`` hosts, joined, with addresses of ``network`` (three octets). Hosts are
    numbered from 0."""

    def __init__(self, hosts: int, network: str = _NETWORK) -> None:
        self.hub = Namespace()
        self.hosts = [Namespace() for _ in range(hosts)]
        self.addresses = [f"{network}.{i + 1}" for i in range(hosts)]
        self._dropped: set[tuple[int, int]] = set()
        hub = self.hub
        hub("ip", "link", "add", "bridge", "type", "bridge")
        hub("ip", "address", "add", f"{network}.{_HUB}/24", "dev", "bridge")
        hub("ip", "link", "set", "bridge", "up")
        for i, host in enumerate(self.hosts):
            hub("ip", "link", "add", f"host{i}", "type", "veth", "peer", "name", "eth0", "netns", host.path)
            hub("ip", "link", "set", f"host{i}", "master", "bridge", "up")
            host("ip", "address", "add", f"{self.addresses[i]}/24", "dev", "eth0")
            host("ip", "link", "set", "eth0", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and those it starts, live in the hub meanwhile."""
        with open("/proc/thread-self/ns/net", "rb") as before, open(self.hub.path, "rb") as hub:
            _checked(_libc.setns(hub.fileno(), _CLONE_NEWNET), "setns")
            try:
                yield
            finally:
                _checked(_libc.setns(before.fileno(), _CLONE_NEWNET), "setns")

    def drop(self, source: int, target: int) -> None:
        """From here on nothing of one host arrives at another, and neither is told."""
        if (source, target) not in self._dropped:
            self._dropped.add((source, target))
            self.hosts[target]("iptables", "-w", "-A", "INPUT", "-s", self.addresses[source], "-j", "DROP")

    def cut(self, *hosts: int) -> None:
        """Cut these hosts off from all others and from each other, both ways."""
        for host in hosts:
            for other in range(len(self.hosts)):
                if other != host:
                    self.drop(host, other)
                    self.drop(other, host)

    def cut_one_way(self, host: int, *, heard: bool) -> None:
        """One direction only: ``heard``: the host is heard and hears nobody; else it hears and nobody hears
        it."""
        for other in range(len(self.hosts)):
            if other != host:
                self.drop(*((other, host) if heard else (host, other)))

    def heal(self) -> None:
        """Everything passes again."""
        for target in {t for _, t in self._dropped}:
            self.hosts[target]("iptables", "-w", "-F", "INPUT")
        self._dropped.clear()

    def close(self) -> None:
        """End them all."""
        for namespace in (*self.hosts, self.hub):
            namespace.close()


def obstacle() -> str:
    """Why no namespaces can be made here; "" if they can."""
    missing = [c for c in _COMMANDS if shutil.which(c) is None]
    if missing:
        return f"needs {', '.join(missing)}, not found in PATH"
    try:
        probe = Namespace()
    except OSError as e:
        return f"cannot make a network namespace ({e.strerror}); run as root"
    try:
        probe("iptables", "-w", "-A", "INPUT", "-s", "10.0.0.1", "-j", "DROP")
        probe("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        probe("ip", "link", "add", "bridge", "type", "bridge")
    except AssertionError as e:
        return f"cannot use network namespaces here: {e}"
    finally:
        probe.close()
    return ""


def unavailable(why: str) -> NoReturn:
    """A failure in CI, else a reason to skip."""
    if os.environ.get("MUSTER_CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def need() -> None:
    """In a fixture: skip the test by name where there are no namespaces. In CI it fails."""
    if why := obstacle():
        unavailable(why)


@contextlib.contextmanager
def net(hosts: int, network: str = _NETWORK) -> Iterator[Net]:
    """A network whose hub is this thread's for the time being."""
    made = Net(hosts, network)
    try:
        with made.entered():
            yield made
    finally:
        made.close()

