"""Rows on how a host is started, and what it says then: in a network of its own, at the ports of articles."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import forks
from tests.cluster.local_cluster import LIMIT_S, command, environment, until
from tests.faults.netns import Namespace
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Got
from tests.interop.v2.v2_hosts import FORM, Server, serves

STARTS = Checks()  # of an empty folder and of a network of its own
row = STARTS.row
_DEFAULT = (
    '{"members":[{"id":"8e9e05c52164694d","name":"default","peerURLs":["http://localhost:2380"],'
    '"clientURLs":["http://localhost:2379"]}]}\n'
)
_LISTED = (
    "8e9e05c52164694d: name=default peerURLs=http://localhost:2380 clientURLs=http://localhost:2379 "
    "isLeader=true\n"
)


class Host:
    """A host under way."""

    def __init__(self, net: Namespace, log: Path, address: str = "127.0.0.1:2379") -> None:
        self._net, self._log = net, log
        self._server = Server(address)

    def ask(self, method: str, path: str, body: str | None = None) -> Got:
        """One request, in its network."""
        answer = self._net.run(lambda: self._server.ask(method, path, body, FORM))
        return Got(answer.status, answer.headers, answer.body)

    def serves(self) -> bool:
        """Whether it answers reads."""
        return self._net.run(lambda: serves(self._server))

    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(encoding="utf-8")


@contextlib.contextmanager
def started(net: Namespace, folder: Path, *flags: str, port: int = 2379, **env: str) -> Iterator[Host]:
    """``muster`` with these flags and variables in this folder; it serves at loopback."""
    log = folder / "log"
    with open(log, "wb") as out:
        process = net.run(lambda: forks.popen(
            command(*flags), stdout=out, stderr=out, cwd=folder, env={**environment(), **env}))  # fmt: skip
    host = Host(net, log, f"127.0.0.1:{port}")
    try:
        until(lambda: host.serves() or process.poll() is not None)
        assert process.poll() is None, host.log()
        yield host
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def typed(net: Namespace, *words: str) -> str:
    """What a command of version 2 prints that must succeed."""
    done = net.run(lambda: forks.run(
        [*forks.MUSTERCTL, "--api", "2", "--timeout", "40s", "--total-timeout", "60s", *words],
        capture_output=True, text=True, env=environment(), timeout=LIMIT_S))  # fmt: skip
    assert done.returncode == 0, done
    return str(done.stdout)


def refused(net: Namespace, folder: Path, *flags: str, **env: str) -> str:
    """What a start says that ends at once, with exit code 1."""
    done = net.run(lambda: forks.run(
        command(*flags), capture_output=True, text=True, cwd=folder, env={**environment(), **env},
        timeout=25))  # fmt: skip
    assert done.returncode == 1, done
    return done.stderr


@row("S0-022", "S0-026", "S0-027", "S0-028", "S0-029", "S1-067", "S1-083", "S3-049")
def default_start(net: Namespace, folder: Path) -> None:
    with started(net, folder) as host:
        made = host.ask("PUT", "/v2/keys/message?value=hello,%20etcd", "")
        assert (made.node["createdIndex"], made.headers["x-raft-term"]) == (4, "2")  # as on a fresh etcd
        assert made.headers["content-length"] == "100"
        assert (folder / "default.etcd" / "member").is_dir()
        until(lambda: host.ask("GET", "/v2/members").body == _DEFAULT)
        assert typed(net, "member", "list") == _LISTED
        assert typed(net, "set", "/a", "b") == "b\n"
        assert host.ask("GET", "/v2/keys/").headers["x-etcd-cluster-id"] == "cdf818194e3a8c32"
        assert host.ask("GET", "/v2/stats/self").json["state"] == "StateLeader"
        until(lambda: "ready to serve client requests" in host.log())  # another process says so
        log = host.log()
        assert [text for text in (
            f'"member-dir":"{folder}/default.etcd/member"', '"name":"default"',
            '"heartbeat-interval":"100ms"', '"election-timeout":"1000ms"',
            '"snapshot-count":10000', '"initial-advertise-peer-urls":["http://localhost:2380"]',
            '"advertise-client-urls":["http://localhost:2379"]',
            '"initial-cluster":"default=http://localhost:2380"',
            '"peer_urls":["http://localhost:2380"]', '"client_urls":["http://localhost:2379"]',
            '"no data-dir provided, using default data-dir"',
            "starting member 8e9e05c52164694d in cluster cdf818194e3a8c32",
            "added member 8e9e05c52164694d [http://localhost:2380] to cluster cdf818194e3a8c32",
            *(f'"8e9e05c52164694d became {role}"' for role in (
                "follower at term 1", "candidate at term 2", "leader at term 2")),
            '"set the initial cluster version to 3.5"',
            '"published {Name:default ClientURLs:[http://localhost:2379]} to cluster cdf818194e3a8c32"',
        ) if text not in log] == []  # fmt: skip
        assert "Type=notify" not in log  # S0-030
        listening = net.run(
            lambda: subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=True)
        ).stdout
        assert "127.0.0.1:2379" in listening
        assert "127.0.0.1:2380" in listening
    wrong = ("--initial-cluster=x=http://127.0.0.1:1", "--initial-cluster-token=other", "--name=renamed")
    with started(net, folder, *wrong, "--data-dir=default.etcd") as host:
        assert host.ask("GET", "/v2/keys/a?quorum=true").node["value"] == "b"
        (member,) = host.ask("GET", "/v2/members").json["members"]
        assert member["id"] == "8e9e05c52164694d"
        until(lambda: '"name":"renamed"' in host.ask("GET", "/v2/members").body)
        assert host.ask("GET", "/v2/stats/self").json["name"] == "renamed"
        assert host.ask("GET", "/v2/keys/").headers["x-etcd-cluster-id"] == "cdf818194e3a8c32"


@row("S0-031", "S1-077", "S1-082", "S1-084", "S3-054")
def by_the_environment(net: Namespace, folder: Path) -> None:
    """Variables alone, but for a flag that wins over its variable. One dash is enough."""
    peer = "http://127.0.0.1:2380"
    variables = {
        "ETCD_NAME": "a",
        "ETCD_DATA_DIR": str(folder / "data"),
        "ETCD_LISTEN_CLIENT_URLS": "http://127.0.0.1:2379,http://127.0.0.1:4001",
        "ETCD_ADVERTISE_CLIENT_URLS": "http://127.0.0.1:2379",
        "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
        "ETCD_INITIAL_CLUSTER": f"b={peer}",
        "ETCD_INITIAL_CLUSTER_STATE": "new",
        "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster-1",
    }
    with started(net, folder, "-name", "b", port=4001, **variables) as host:
        for address in ("127.0.0.1:2379", "127.0.0.1:4001"):
            other = Host(net, folder / "log", address)
            assert "etcdserver" in other.ask("GET", "/version").json
        until(lambda: host.ask("GET", "/v2/members").json["members"][0]["name"] == "b")
        assert host.ask("GET", "/v2/keys/").headers["x-etcd-cluster-id"] != "cdf818194e3a8c32"
        assert (folder / "data" / "member").is_dir()


@row("S0-035")
def version(net: Namespace, folder: Path) -> None:
    done = subprocess.run(
        command("--version"), capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    *lines, ours = done.stdout.splitlines()
    assert ours.startswith("muster Version: ")
    assert [line.partition(":")[0] for line in lines] == [
        "etcd Version",
        "Git SHA",
        "Go Version",
        "Go OS/Arch",
    ]


@row("S3-055")
def an_entry_without_a_name(net: Namespace, folder: Path) -> None:
    others = "http://10.0.1.11:2380,infra2=http://10.0.1.12:2380"
    said = refused(
        net, folder, "-name", "infra0", "-initial-cluster", f"infra0=http://10.0.1.10:2380,{others}"
    )
    assert "http://10.0.1.11:2380" in said


@row("S3-056")
def urls_that_differ(net: Namespace, folder: Path) -> None:
    peers = ",".join(f"infra{n}=http://127.0.0.1:{23800 + n}" for n in range(3))
    mine = ("-name", "infra0", "-initial-cluster", peers, "-listen-peer-urls", "http://127.0.0.1:23800")
    said = refused(net, folder, *mine, "-initial-advertise-peer-urls", "http://127.0.0.1:23809")
    assert "--initial-cluster" in said
    assert "23809" in said
