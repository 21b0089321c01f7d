"""Hosts that talk by TLS, with etcd's flags: a cluster forms, mends itself, and lets no stranger in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import forks
from tests.authority import Authority
from tests.cluster.local_cluster import LIMIT_S, environment
from tests.faults.separate_hosts import Place, SeparateHosts
from tests.ports import free_ports

pytestmark = pytest.mark.timeout(300)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[SeparateHosts]:
    ports = free_ports(6)
    places = [Place("127.0.0.1", ports[i], ports[i + 3], peer_scheme="https") for i in range(3)]
    hosts = SeparateHosts(folder, places, flags)
    try:
        hosts.start(0, 1, 2)
        yield hosts
    finally:
        hosts.close()


def ctl(hosts: SeparateHosts, host: int, *words: str) -> str:
    address, port = hosts.endpoints[host]
    done = forks.run(
        [*forks.MUSTERCTL, f"--endpoints={address}:{port}",
         "--command-timeout=30s", *words],
        capture_output=True, text=True, env=environment(), timeout=LIMIT_S * 2, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cluster_with_certificates_forms_mends_itself_and_takes_no_stranger(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.issue("host", "127.0.0.1")
    flags = (
        f"--peer-cert-file={pair.cert}", f"--peer-key-file={pair.key}", "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={authority.file}",
    )  # fmt: skip
    with running(tmp_path / "c", *flags) as hosts:
        assert ctl(hosts, 0, "put", "a", "1") == "OK\n"
        hosts.kill(2)
        assert ctl(hosts, 1, "put", "a", "2" * 100_000) == "OK\n"
        authority.issue("host", "127.0.0.1")  # the same files: they count from the next connection on
        hosts.start(2)
        assert ctl(hosts, 2, "get", "a", "--print-value-only").strip() == "2" * 100_000
        members = json.loads(ctl(hosts, 2, "member", "list", "-w", "json"))["members"]
        assert all(url.startswith("https://") for member in members for url in member["peerURLs"])
        stranger = other.issue("stranger", "127.0.0.1")
        hosts.kill(1)
        wrong = tuple(
            {f"--peer-cert-file={pair.cert}": f"--peer-cert-file={stranger.cert}",
             f"--peer-key-file={pair.key}": f"--peer-key-file={stranger.key}"}.get(flag, flag)
            for flag in flags
        )  # fmt: skip
        hosts.flags(1, wrong)
        log = hosts.log(1)
        hosts.start(1, wait_s=0)
        log.await_text("remote error: tls: ")
        assert ctl(hosts, 0, "put", "a", "3") == "OK\n"  # two of three go on
        assert not hosts.ready(1)


def test_a_cluster_with_certificates_of_its_own_making_forms(tmp_path: Path) -> None:
    with running(tmp_path / "c", "--peer-auto-tls") as hosts:
        assert ctl(hosts, 0, "put", "a", "1") == "OK\n"
        assert ctl(hosts, 2, "get", "a", "--print-value-only") == "1\n"
        assert (hosts.host_dir(0) / "fixtures" / "peer" / "cert.pem").is_file()
