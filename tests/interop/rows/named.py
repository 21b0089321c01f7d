"""Rows on three hosts that DNS names to each other, at the addresses of articles, in a network of their own.

Their flags differ from the defaults where a row is on a flag: each check would fail if the flag did nothing.
Checks run in their order; the one that kills a host comes last but one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.local_cluster import LIMIT_S, command, environment, until
from tests.faults.netns import Namespace
from tests.interop.rows.starts import refused
from tests.interop.rows.table import Checks
from tests.interop.rows.world import BIN, Got, until_over
from tests.interop.v2.v2_hosts import FORM, Server, serves
from tests.name_server import answering
from tools.muster.host import rundir

NAMED = Checks()  # of the hosts
row = NAMED.row
_SERVER, _CLIENT = "_etcd-server._tcp.example.com.", "_etcd-client._tcp.example.com."
_ADDRESSES = [f"10.0.1.{10 + n}" for n in range(3)]
_NAMES = [f"infra{n}.example.com" for n in range(3)]
_ZONE = {
    _SERVER: [f"0 0 2380 {name}." for name in _NAMES],
    _CLIENT: [f"0 0 2379 {name}." for name in _NAMES],
    **{f"{name}.": [address] for name, address in zip(_NAMES, _ADDRESSES, strict=True)},
}
_HEARTBEAT_MS = (50, 500, 100)
_ELECTION_MS = 5000
_SECOND = "127.0.0.1:2390"  # where infra2 also listens for peers
_IDLE_S = 10.0
# with a resolver of its own: the network has one, and the machine's is elsewhere
_WITH_NAMES = 'for f in resolv nsswitch; do mount --bind "$0/$f.conf" /etc/$f.conf || exit; done; exec "$@"'


class Named:
    """The hosts."""

    def __init__(self, net: Namespace, folder: Path, asked: list[str]) -> None:
        self.net, self.folder, self.asked = net, folder, asked
        self.servers = [Server(f"{address}:2379") for address in _ADDRESSES]
        self.processes = [self._started(n) for n in range(3)]
        self.idle, self.idle_since = http.client.HTTPConnection(f"{_ADDRESSES[0]}:2379", timeout=25), 0.0

    def line(self, *words: str) -> list[str]:
        """A command line that asks the network's name server."""
        apart = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_NAMES, str(self.folder))
        return [*apart, *words]

    def _started(self, n: int) -> subprocess.Popen[bytes]:
        """The last one by its address, as articles allow it; the others by names in all URLs."""
        host = _ADDRESSES[n] if n == 2 else _NAMES[n]
        peer, client = f"http://{host}:2380", f"http://{host}:2379"
        flags = (
            "-name", f"infra{n}", "-discovery-srv", "example.com", "-initial-advertise-peer-urls", peer,
            "-initial-cluster-token", "etcd-cluster-1", "-initial-cluster-state", "new",
            "-advertise-client-urls", client, "-listen-client-urls", client,
            "-listen-peer-urls", f"{peer},http://{_SECOND}" if n == 2 else peer, "--peer-insecure",
            "-heartbeat-interval", str(_HEARTBEAT_MS[n]), "-election-timeout", str(_ELECTION_MS),
            "-snapshot-count", "100", "--snapshot-catchup-entries", "50",
        )  # fmt: skip
        line = self.line(*command(*flags))
        with open(self.folder / f"log{n}", "wb") as out:
            return self.net.run(lambda: subprocess.Popen(
                line, stdout=out, stderr=out, cwd=self.folder, env=environment()))  # fmt: skip

    def ask(self, n: int, method: str, path: str, body: str | None = None) -> Got:
        """One request to a host."""
        answer = self.net.run(lambda: self.servers[n].ask(method, path, body, FORM))
        return Got(answer.status, answer.headers, answer.body)

    def serves(self, n: int) -> bool:
        """Whether a host answers reads."""
        return self.net.run(lambda: serves(self.servers[n]))

    def ctl(self, *words: str) -> str:
        """What musterctl prints, which must succeed."""
        line = self.line(str(BIN / "musterctl"), *words)
        done = self.net.run(lambda: subprocess.run(
            line, capture_output=True, text=True, check=False, timeout=25, env=environment()))  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout

    def asked_by_the_idle(self) -> None:
        """A request of the client that sends few, on the connection that it has."""

        def asked() -> None:
            self.idle.request("GET", "/version")
            with self.idle.getresponse() as answer:
                assert "etcdserver" in json.loads(answer.read())

        self.net.run(asked)
        self.idle_since = time.monotonic()

    def log(self, n: int) -> str:
        """All that a host has said."""
        return (self.folder / f"log{n}").read_text(encoding="utf-8")

    def members(self) -> dict[str, dict[str, Any]]:
        """By name; those that have said theirs."""
        found = self.ask(0, "GET", "/v2/members").json["members"]
        return {member["name"]: member for member in found if member["name"]}

    def lead(self, n: int) -> None:
        """Until this host leads."""
        leader = until(lambda: self.ask(0, "GET", "/v2/members/leader")).json["name"]
        if leader != f"infra{n}":
            at = f"{_ADDRESSES[int(leader[-1])]}:2379"
            self.ctl("--endpoints", at, "move-leader", self.members()[f"infra{n}"]["id"])
        until(lambda: self.ask(n, "GET", "/v2/stats/self").json.get("state") == "StateLeader")

    def sent_bytes(self, n: int, to: int) -> float:
        """What a host has sent to another one."""
        member = self.members()[f"infra{to}"]["id"]
        found = re.search(
            rf'^etcd_network_peer_sent_bytes_total\{{To="{member}"\}} (\S+)$',
            self.ask(n, "GET", "/metrics").body, re.MULTILINE)  # fmt: skip
        return float(found[1]) if found else 0.0

    def close(self) -> None:
        """End them all."""
        self.idle.close()
        for process in self.processes:
            process.terminate()
        for n, process in enumerate(self.processes):
            process.wait(LIMIT_S)
            data = str(self.folder / f"infra{n}.etcd")
            rundir.remove_run_dir(data, rundir.run_dir_of(data))


@contextlib.contextmanager
def named(net: Namespace, folder: Path) -> Iterator[Named]:
    """They serve."""

    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 53))
        return made

    for address in _ADDRESSES:
        net("ip", "address", "add", f"{address}/32", "dev", "lo")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n", encoding="utf-8")
    with net.run(bound) as server, answering(server, _ZONE) as asked:
        found = Named(net, folder, asked)
        try:
            for n in range(3):
                until(lambda: found.serves(n) or found.processes[n].poll() is not None)  # noqa: B023
                assert found.processes[n].poll() is None, found.log(n)
            found.asked_by_the_idle()
            yield found
        finally:
            found.close()


@row("S3-066", "S3-067", "S3-068")
def by_records(hosts: Named) -> None:
    """The members are those of the records, and each host is one of them by its own URL."""
    found = until(lambda: len(members := hosts.members()) == 3 and members)
    assert {name: member["peerURLs"] for name, member in found.items()} == {
        f"infra{n}": [f"http://{name}:2380"] for n, name in enumerate(_NAMES)
    }
    at = (*_NAMES[:2], _ADDRESSES[2])
    assert [found[f"infra{n}"]["clientURLs"] for n in range(3)] == [[f"http://{host}:2379"] for host in at]
    assert hosts.ask(0, "PUT", "/v2/keys/a", "value=1").status in (200, 201)
    assert [hosts.ask(n, "GET", "/v2/keys/a?quorum=true").node["value"] for n in range(3)] == ["1"] * 3


@row("S3-069")
def records_of_tls_first(hosts: Named) -> None:
    found = [name for name in hosts.asked if name.startswith("_etcd-server")]
    assert found[0] == "_etcd-server-ssl._tcp.example.com."
    assert found.count(found[0]) == found.count(_SERVER) == 3


@row("S0-062")
def endpoints_by_records(hosts: Named) -> None:
    hosts.ask(0, "PUT", "/v2/keys/found", "value=by DNS")
    line = ("--api", "2", "-D", "example.com", "--insecure-discovery", "get", "--quorum", "/found")
    assert hosts.ctl(*line) == "by DNS\n"
    assert _CLIENT in hosts.asked


@row("S1-076")
def two_peer_urls(hosts: Named) -> None:
    for address in (f"{_ADDRESSES[2]}:2380", _SECOND):
        answer = hosts.net.run(lambda: Server(address).ask("GET", "/members"))  # noqa: B023
        assert {f"http://{name}:2380" for name in _NAMES} == {
            url for member in json.loads(answer.body) for url in member["peerURLs"]
        }


@row("S1-073")
def snapshots(hosts: Named) -> None:
    """The log is cut behind a state on disk: after 10,000 entries without the flag."""

    def write() -> None:
        to = http.client.HTTPConnection(f"{_ADDRESSES[0]}:2379", timeout=25)
        with contextlib.closing(to) as connection:
            for n in range(160):
                connection.request("PUT", f"/v2/keys/many/{n}?value=x")
                with connection.getresponse() as answer:
                    answer.read()

    hosts.net.run(write)
    for n in range(3):
        until(lambda: "truncated the log" in hosts.log(n))  # noqa: B023


@row("S1-074")
def heartbeats(hosts: Named) -> None:
    """An idle leader sends little else to infra2."""
    said = refused(hosts.net, hosts.folder, "--heartbeat-interval", "300", "--election-timeout", "1000")
    assert "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]" in said

    def sent_by(leader: int) -> float:
        hosts.lead(leader)
        before = hosts.sent_bytes(leader, 2)
        until_over(2.0)
        return hosts.sent_bytes(leader, 2) - before

    assert sent_by(0) > 3 * sent_by(1) > 0


@row("S1-075")
def election(hosts: Named) -> None:
    """Nobody is elected in the three seconds after the leader's death, in which one is by default."""

    def written() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return hosts.ask(0, "PUT", "/v2/keys/e", "value=1").status in (200, 201)
        return False

    hosts.lead(1)
    until(written)
    alive = time.monotonic()
    process = psutil.Process(hosts.processes[1].pid)
    for one in (process, *process.children(recursive=True)):
        one.kill()
    until(written)
    assert time.monotonic() - alive > 3.0


@row("S3-071")
def an_idle_client(hosts: Named) -> None:
    """Its connection stays. That dead peers are noticed is held by tests/faults/kills/test_silence.py."""
    until_over(max(0.0, _IDLE_S - (time.monotonic() - hosts.idle_since)))
    kept = hosts.idle.sock
    hosts.asked_by_the_idle()
    assert hosts.idle.sock is kept is not None
