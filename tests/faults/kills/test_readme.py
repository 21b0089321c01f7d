"""README's "Three hosts", pasted into three machines: network namespaces, each with a folder for its files.

The commands are README's own, with these differences:

- absolute paths get the machine's folder in front of them;
- muster is not installed from the network: the environment that runs this test stands where pip would put it;
- there is no ssh between namespaces: ``scp`` becomes ``cp`` into the other machine's folder;
- there is no systemd: what the unit says is started as the unit says it, and no user is added for it;
- what stays in the foreground takes the place of its shell, so that it ends with this test.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, environment, until
from tests.faults.netns import Namespace, Net, need, net
from tools.muster.host.supervising.children import die_with

_NETWORK = "10.0.0"
_LIMIT_S = 60.0
# what cannot be done here, and what is done instead; the machines' shells know CHECKOUT and MACHINES
_INSTALL = {
    'git clone "$REPOSITORY" /opt/muster': 'mkdir -p /opt/muster; ln -s "$CHECKOUT/packaging" /opt/muster/',
    "/usr/bin/python3 -m venv /opt/muster/venv": 'ln -s "$CHECKOUT/.venv" /opt/muster/venv',
    "/opt/muster/venv/bin/pip install --quiet /opt/muster": "mkdir -p /usr/local/bin",
}
_SYSTEMD = {
    "useradd --system --user-group --home-dir /var/lib/muster --shell /usr/sbin/nologin muster": "",
    "chown -R muster:muster /etc/muster /var/lib/muster": "",
    "systemctl daemon-reload": "",
    "systemctl enable --now --no-block muster": "start_as_the_unit_says",
}

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / ".venv/bin/muster").exists(), reason="needs make setup: it stands for pip"
    ),
    pytest.mark.timeout(240),
]


def blocks() -> dict[str, str]:
    """The commands of "Three hosts" by what their first line says: who pastes them."""
    section = re.search(r"(?ms)^## Three hosts$(.*?)^## ", (ROOT / "README.md").read_text())
    assert section is not None
    found = re.findall(r"(?ms)^```sh\n# ([^\n]*)\n(.*?)^```$", section[1])
    joined: dict[str, str] = {}
    for who, commands in found:
        joined[who] = joined.get(who, "") + commands
    assert list(joined) == [
        "on every host", "on host-a", "on every host, by hand", "on every host, by systemd", "on any host",
    ]  # fmt: skip
    return joined


def replaced(text: str, changes: dict[str, str]) -> str:
    """``text`` with whole lines changed, each of which is there once."""
    lines = text.splitlines()
    for line, instead in changes.items():
        assert lines.count(line) == 1, f"README has no line: {line}"
        lines[lines.index(line)] = instead
    return "\n".join(lines)


def as_the_unit_says() -> str:
    """What systemd makes of packaging/muster.service, in words of a shell."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "packaging" / "muster.service")
    service = unit["Service"]
    return f"set -a; . {service['EnvironmentFile']}; {service['Environment']}; exec {service['ExecStart']}"


class Machine:
    """One fresh machine: a network namespace and a folder for its files. ``shell`` pastes into it."""

    def __init__(self, name: str, address: str, namespace: Namespace, root: Path, variables: str) -> None:
        self.name, self.address, self._namespace, self.root = name, address, namespace, root
        for folder in ("usr/local", "etc/systemd/system", "var/lib"):
            (root / folder).mkdir(parents=True)
        self._variables = f"NAME={name} ADDRESS={address}\n{variables}"
        self._started: subprocess.Popen[bytes] | None = None

    def _popen(self, commands: str, log: Path) -> subprocess.Popen[bytes]:
        commands = re.sub(r"(?<![\w./])/(?=(?:etc|opt|usr/local|var)/)", f"{self.root}/", commands)
        kept = {k: v for k, v in environment().items() if k not in ("PYTHONPATH", "PATH")}
        env = {**kept, "PATH": f"{self.root}/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
               "CHECKOUT": str(ROOT), "MACHINES": str(self.root.parent)}
        parent = os.getpid()
        with open(log, "ab") as out:
            return self._namespace.run(lambda: subprocess.Popen(
                ["bash", "-ec", self._variables + commands], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                cwd=self.root, env=env, start_new_session=True, preexec_fn=lambda: die_with(parent),
            ))  # fmt: skip

    def paste(self, commands: str) -> tuple[int, str]:
        """Run commands to their end: exit code and output."""
        log = self.root / "pasted"
        log.unlink(missing_ok=True)
        code = self._popen(commands, log).wait(_LIMIT_S)
        return code, log.read_text()

    def ok(self, commands: str) -> str:
        """The same, which must succeed; the output."""
        code, output = self.paste(commands)
        assert code == 0, f"{self.name}: {output}"
        return output

    def start(self, commands: str) -> None:
        """Paste commands the last of which, muster, stays in the foreground."""
        self._started = self._popen(re.sub(r"(?m)^muster ", "exec muster ", commands), self.root / "log")

    def running(self) -> bool:
        """Whether what was started still runs."""
        return self._started is not None and self._started.poll() is None

    def wait_for(self, commands: str) -> None:
        """Wait until commands succeed, as long as what was started runs."""
        until(lambda: not self.running() or self.paste(commands)[0] == 0)
        assert self.running(), (self.root / "log").read_text()

    def interrupt(self) -> None:
        """Ctrl-C, and -9 for what does not hear it."""
        if self._started is None:
            return
        if self.running():
            os.killpg(self._started.pid, signal.SIGINT)
        try:
            self._started.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._started.pid, signal.SIGKILL)
            self._started.wait()


@contextlib.contextmanager
def machines(network: Net, folder: Path, variables: list[str]) -> Iterator[list[Machine]]:
    """The machines that the first line of README's variables names, and one in the hub for a proxy."""
    named = re.findall(r"NAME=(\S+) ADDRESS=([\d.]+)", variables[0])
    assert [address for _, address in named] == network.addresses
    rest = "".join(variables[1:])
    places = [*zip(named, network.hosts, strict=True), (("proxy", "127.0.0.1"), network.hub)]
    with contextlib.ExitStack() as stack:
        made = [Machine(name, address, space, folder / name, rest) for (name, address), space in places]
        for machine in made:
            stack.callback(machine.interrupt)
        yield made


def asks_for_keys(address: str, port: int) -> bool:
    """Whether a peer port greets with ZMTP's mechanism CURVE, the one with keys."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    with socket.create_connection((address, port), timeout=_LIMIT_S) as peer:
        peer.sendall(greeting)
        heard = b""
        while len(heard) < len(greeting) and (more := peer.recv(64)):
            heard += more
    return heard[12:32].rstrip(b"\0") == b"CURVE"


def copying(commands: str, to: dict[str, str]) -> str:
    """The commands with every ``scp`` as a ``cp`` into another machine's folder; ``to``: names by address."""
    copied, count = re.subn(r"(?m)^scp -p (\S+) root@([\d.]+):(\S+)$",
                            lambda found: f"cp -p {found[1]} $MACHINES/{to[found[2]]}{found[3]}", commands)
    assert count == len(to) - 1
    return copied


@pytest.mark.parametrize("way", ["by hand", "by systemd"])
def test_three_hosts_as_readme_starts_them(tmp_path: Path, way: str) -> None:
    need()
    commands = blocks()
    lines = commands["on every host"].splitlines(keepends=True)
    variables, install = lines[:3], "".join(lines[3:])
    start, look = commands[f"on every host, {way}"], commands["on any host"]
    if way == "by systemd":
        start = replaced(start, _SYSTEMD).replace("start_as_the_unit_says", as_the_unit_says())
    proxy_line = re.search(r"`(muster proxy --endpoints [^`]+)`", (ROOT / "README.md").read_text())
    assert proxy_line is not None
    with net(3, _NETWORK) as network, machines(network, tmp_path, variables) as (*hosts, proxy):
        for machine in (*hosts, proxy):
            machine.ok(replaced(install, _INSTALL))
        hosts[0].ok(copying(commands["on host-a"], {host.address: host.name for host in hosts}))
        for host in hosts:
            host.start(start)
        for host in hosts:
            host.wait_for(look)
        for host in hosts:
            shown = host.ok(look)
            assert shown.count(" is healthy: ") == 3
            assert shown.endswith("OK\nfirst\nkey\n")
            assert host.ok(f"musterctl put /from/{host.name} {host.address}") == "OK\n"
            for other in hosts:
                get = f"musterctl --endpoints {other.address}:2379 get --print-value-only /from/{host.name}"
                assert other.ok(get) == f"{host.address}\n"
            assert asks_for_keys(host.address, 2380)
        hosts[0].ok("cp -p /etc/muster/cluster.keys $MACHINES/proxy/etc/muster/")
        proxy.start(proxy_line[1])
        proxy.wait_for("musterctl get first")
        assert proxy.ok("musterctl get first") == "first\nkey\n"
