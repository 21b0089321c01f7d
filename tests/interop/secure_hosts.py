"""One host of muster's and one of etcd's with the same flags of TLS."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import forks
from tests.authority import Authority, Pair
from tests.cluster.local_cluster import command, environment, free_base_port, until

_BIN = Path(sys.executable).parent
ETCDCTL = (str(_BIN / "etcdctl"),)
UNCHECKED = ("--insecure-transport=false", "--insecure-skip-tls-verify")  # the one counts with the other only
LIMIT_S = 60.0


@dataclass(frozen=True)
class SecureHost:
    """A host whose client URL is https."""

    name: str  # "muster" or "etcd"
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """For clients."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def peers(self) -> str:
        """For peers, where these talk by TLS."""
        return f"https://127.0.0.1:{self.port + 1}"

    @property
    def metrics(self) -> str:
        """For metrics and health."""
        return f"https://127.0.0.1:{self.port + 5}"

    def ctl(
        self, program: tuple[str, ...], words: str, *flags: str, limit: str = "2s"
    ) -> subprocess.CompletedProcess[str]:
        """One command of etcdctl or musterctl against it. A TLS handshake that fails is tried again until
        ``limit``."""
        return forks.run(
            [
                *program,
                f"--endpoints={self.url}",
                f"--command-timeout={limit}",
                "--dial-timeout=1s",
                *flags,
                *words.split(),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**environment(), "ETCDCTL_API": "3"},
        )


def trusting(authority: Authority) -> tuple[str, ...]:
    """The flag of a client that trusts this authority."""
    return (f"--cacert={authority.file}",)


def showing(pair: Pair) -> tuple[str, ...]:
    """The flags of a client with a certificate."""
    return (f"--cert={pair.cert}", f"--key={pair.key}")


def asked(url: str, authority: Authority, pair: Pair | None = None, body: bytes | None = None) -> str:
    """What a GET, or with a body a POST, answers; an error with its status, or its kind."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    try:
        with urllib.request.urlopen(url, body, timeout=20, context=context) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.read().decode()}"
    except urllib.error.URLError as error:
        return f"refused: {type(error.reason).__name__}"
    except (OSError, http.client.HTTPException) as error:  # the latter: no word of HTTP
        return f"refused: {type(error).__name__}"


@contextlib.contextmanager
def secure_host(
    name: str, folder: Path, ready: Authority | None, with_pair: Pair | None, *flags: str,
    peers: str = "http",
) -> Iterator[SecureHost]:
    """A host that serves ``https`` clients and metrics at 127.0.0.1. ``ready``: whom to trust when asking
    whether it does; None: anybody. ``peers``: the scheme of its peer URL."""
    port = free_base_port(1, 5)  # four shards at most
    url, peer = f"https://127.0.0.1:{port}", f"{peers}://127.0.0.1:{port + 1}"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    common = [
        f"--data-dir={folder}/{name}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--listen-metrics-urls=https://127.0.0.1:{port + 5}",
        "--unsafe-no-fsync",
        *flags,
    ]
    program = [str(_BIN / "etcd")] if name == "etcd" else command()
    with (
        log.open("wb") as output,
        forks.popen([*program, *common], stdout=output, stderr=output, env=environment()) as process,
    ):
        try:
            host = SecureHost(name, port, log, process)
            trust = (f"--cacert={ready.file}",) if ready is not None else UNCHECKED
            with_key = showing(with_pair) if with_pair is not None else ()
            until(
                lambda: host.ctl(ETCDCTL, "get ready", *trust, *with_key, limit="5s").returncode == 0, LIMIT_S
            )
            yield host
        finally:
            process.terminate()
            process.wait(LIMIT_S)
