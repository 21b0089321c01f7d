"""Clients by Unix sockets: what holds for etcd holds for muster.

etcd 3.5 makes of ``unix://localhost:1234`` a file of the name ``localhost:1234`` in its working directory;
later ones take paths, too, as muster does.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forks
from tests.authority import Authority
from tests.cluster.local_cluster import command, environment, free_base_port, until

LIMIT_S = 60.0
_BIN = Path(sys.executable).parent
CTLS = {"etcdctl": [str(_BIN / "etcdctl")], "musterctl": forks.MUSTERCTL}


@dataclass
class Host:
    """A host whose clients come by Unix sockets."""

    folder: Path
    plain: str
    secure: str
    cacert: Path
    process: subprocess.Popen[bytes]

    def ctl(self, program: str, endpoint: str, *words: str) -> str:
        """What a command says; it must succeed."""
        return self._ctl(program, endpoint, *words, check=True).stdout

    def serves(self) -> bool:
        """Whether it answers."""
        return self._ctl("etcdctl", self.plain, "get", "a", check=False).returncode == 0

    def _ctl(
        self, program: str, endpoint: str, *words: str, check: bool
    ) -> subprocess.CompletedProcess[str]:
        trust = [f"--cacert={self.cacert}"] if endpoint.startswith("unixs") else []
        return forks.run(
            [*CTLS[program], f"--endpoints={endpoint}", "--command-timeout=20s", *trust, *words], check=check,
            cwd=self.folder, env={**environment(), "ETCDCTL_API": "3"}, capture_output=True, text=True,
            timeout=LIMIT_S,
        )  # fmt: skip


def _leave_behind(path: Path) -> None:
    """A socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.fixture(params=["muster", "etcd"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """One of muster's or etcd's, started where sockets of its names lie about."""
    port = free_base_port(1, 4)
    names = [f"localhost:{port}", f"localhost:{port + 1}"]
    for name in names:
        _leave_behind(tmp_path / name)
    authority = Authority(tmp_path)
    pair = authority.issue("server", "localhost")
    peer = f"http://127.0.0.1:{port + 2}"
    plain, secure = f"unix://{names[0]}", f"unixs://{names[1]}"
    flags = [
        f"--data-dir={tmp_path}/data",
        f"--listen-client-urls={plain},{secure}", f"--advertise-client-urls={plain}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--cert-file={pair.cert}", f"--key-file={pair.key}",
    ]  # fmt: skip
    program = [str(_BIN / "etcd")] if request.param == "etcd" else command()
    with (tmp_path / "log").open("wb") as log, forks.popen(
        [*program, *flags], cwd=tmp_path, env=environment(), stdout=log, stderr=log, umask=0o027
    ) as process:
        try:
            found = Host(tmp_path, plain, secure, authority.file, process)
            until(found.serves, LIMIT_S)
            yield found
        finally:
            process.kill()


def test_clients_come_by_unix_sockets_in_clear_and_by_tls(host: Host) -> None:
    for number, (program, endpoint) in enumerate(
        (program, endpoint) for program in CTLS for endpoint in (host.plain, host.secure)
    ):
        assert host.ctl(program, endpoint, "put", "key", str(number)) == "OK\n"
        assert host.ctl(program, endpoint, "get", "key", "--print-value-only") == f"{number}\n"
    assert host.plain in host.ctl("etcdctl", host.plain, "endpoint", "status", "--cluster")
    sockets = [host.folder / url.partition("://")[2] for url in (host.plain, host.secure)]
    # the umask that the host was started with counts
    assert [path.stat().st_mode & 0o777 for path in sockets] == [0o750, 0o750]
    host.process.send_signal(signal.SIGTERM)
    host.process.wait(LIMIT_S)
    assert not any(path.exists() for path in sockets)
