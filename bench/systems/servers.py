"""CPU, memory and written bytes of server processes: root processes and the trees below them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from bench.client import Endpoint

_OURS = "tools.muster.processes."
_FRONTS = (f"{_OURS}front", "tools.muster.joined")  # alone, or with node 0 in one process


@dataclass(slots=True, frozen=True)
class Usage:
    """One process at one moment."""

    name: str
    cpu_s: float
    rss_bytes: int
    written_bytes: int
    started: float  # tells processes with one pid apart


def tree(root: int) -> list[psutil.Process]:
    """A process and all below it; [] if it has ended."""
    try:
        top = psutil.Process(root)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to those that are left: psutil tells a reused pid from the process that it saw."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def sample(roots: Iterable[int]) -> dict[int, Usage]:
    """The processes at and below ``roots`` that are alive now, by pid."""
    found: dict[int, Usage] = {}
    for root in roots:
        for process in tree(root):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    found[process.pid] = Usage(
                        _label(process), times.user + times.system, process.memory_info().rss,
                        process.io_counters().write_bytes, process.create_time(),
                    )
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return found


def memory(roots: Iterable[int]) -> list[dict[str, object]]:
    """Each process's name, CPU and memory now. PSS divides shared pages among their processes.

    Reads every mapping, some milliseconds a process: for the end of a run.
    """
    found = []
    for pid, usage in sorted(sample(roots).items()):
        try:
            pss_bytes = psutil.Process(pid).memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pss_bytes = usage.rss_bytes
        found.append({"pid": pid, "name": usage.name, "cpu_s": usage.cpu_s, "rss_bytes": usage.rss_bytes,
                      "pss_bytes": pss_bytes, "written_bytes": usage.written_bytes})
    return found


@dataclass(slots=True, frozen=True)
class Spent:
    """What one process used between two samples."""

    pid: int
    name: str
    cpu_s: float
    rss_bytes: int
    written_bytes: int


def spent(before: dict[int, Usage], after: dict[int, Usage]) -> list[Spent]:
    """What each process alive at the end used since the first sample."""
    used = []
    for pid, now in sorted(after.items()):
        then = before.get(pid)
        if then is None or then.started != now.started:
            then = Usage(now.name, 0.0, 0, 0, now.started)
        used.append(Spent(pid, now.name, now.cpu_s - then.cpu_s, now.rss_bytes,
                          now.written_bytes - then.written_bytes))
    return used


def discover(endpoints: Sequence[Endpoint]) -> list[int]:
    """Root processes listening at local endpoints (of a front its supervisor); [] if none is visible."""
    ports = {endpoint.port for endpoint in endpoints if _is_local(endpoint.host)}
    if not ports:
        return []
    roots: set[int] = set()
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        return []
    for connection in listening:
        if connection.laddr and connection.laddr.port in ports and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                words = process.cmdline()
                parent = process.parent()
                front = "-m" in words[:-1] and words[words.index("-m") + 1] in _FRONTS
                if front and parent is not None and parent.pid != 1:
                    process = parent
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            roots.add(process.pid)
    return sorted(roots)


def _label(process: psutil.Process) -> str:
    """``etcd``; for one of our own, the module that ``python -m`` runs."""
    words = process.cmdline()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].removeprefix(_OURS).removesuffix(".cli")
    return process.name()


def _is_local(host: str) -> bool:
    try:
        wanted = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    own = {address.address.split("%")[0] for nic in psutil.net_if_addrs().values() for address in nic}
    return bool(wanted & own)
