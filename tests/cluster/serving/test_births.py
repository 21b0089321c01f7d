"""Shards that are born and retired in clusters that run, under writes and a watch, with everything killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import LIMIT_S, LocalCluster, environment, local_cluster, until
from tests.cluster.members.hosts import Hosts
from tests.cluster.serving.test_shards import scraped, unary
from tests.soaking import SOAK, amount

HOSTS = 3
# nobody is elected because the machine is busy
CALM = ("--heartbeat-interval=100", "--election-timeout=2500")
ROOT = Path(__file__).parents[3]
ROUNDS = amount(1, soak=7)
# of a host with up to 11 nodes, where three tests share two CPUs
STARTS_S = 240 if SOAK else LIMIT_S


def musterctl(cluster: LocalCluster, *words: str) -> subprocess.CompletedProcess[str]:
    return _musterctl(",".join(cluster.endpoints()), *words)


def _musterctl(endpoints: str, *words: str) -> subprocess.CompletedProcess[str]:
    return forks.run(
        [*forks.MUSTERCTL, f"--endpoints={endpoints}", *words], capture_output=True, text=True,
        timeout=2 * LIMIT_S, cwd=ROOT, env={**environment(), "ETCDCTL_DIAL_TIMEOUT": "30s"})  # bounds logins


def told(cluster: LocalCluster, *words: str) -> Any:
    """What a shard command prints; it must succeed."""
    done = musterctl(cluster, "shard", *words, "-w", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(cluster: LocalCluster) -> list[dict[str, Any]]:
    """What ``shard list`` knows; a host may be silent."""
    found: list[dict[str, Any]] = json.loads(musterctl(cluster, "shard", "list", "-w", "json").stdout or "[]")
    return found


def linked(cluster: LocalCluster, host: int) -> list[float]:
    """How many links a host has with each of its peers."""
    return [sample.value for sample in scraped(cluster, host) if sample.name == "etcd_network_active_peers"]


def grow(cluster: LocalCluster) -> None:
    until(lambda: musterctl(cluster, "shard", "enable-growth").returncode == 0, look_s=0.3)


def nodes_of(cluster: LocalCluster, shard: int) -> list[str]:
    """The hosts whose node of a shard is up and follows a leader in the order."""
    found = listed(cluster)
    return sorted(
        facts["host"] for facts in found
        if facts["shard"] == shard and facts["up"] and facts["order_lag"] < 50)


def serves(cluster: LocalCluster, shard: int) -> Callable[[], bool]:
    return lambda: len(nodes_of(cluster, shard)) == HOSTS


class Load:
    """A client that writes one key after the other at any host, and a watch of all of them."""

    def __init__(self, endpoints: list[str]) -> None:
        self._channels = [grpc.insecure_channel(endpoint) for endpoint in endpoints]
        self.written: dict[bytes, int] = {}  # keys that were acknowledged, and their revisions
        self.failures: list[str] = []
        self.seen: list[tuple[int, bytes]] = []  # by the watch, in its order
        self.resting = threading.Lock()  # while it is held, no put is under way
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write), threading.Thread(target=self._watch)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for channel in self._channels:
            channel.close()
        for thread in self._threads:
            thread.join(LIMIT_S)

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = b"/load/%d/%d" % (number % 7, number)
            time.sleep(0.002)  # leaves the hosts the CPU; nothing waits for it
            try:
                with self.resting:
                    answer = unary(
                        self._channels[number % len(self._channels)], "KV/Put",
                        pb.PutRequest(key=key, value=b"v"),
                        pb.PutResponse, 10.0)
                    self.written[key] = answer.header.revision
            except (grpc.RpcError, ValueError) as error:
                if not self._stop.is_set():
                    self.failures.append(str(error))

    def _watch(self) -> None:
        revision, at = 1, 0
        while not self._stop.is_set():
            at += 1
            watch = self._channels[at % len(self._channels)].stream_stream(
                "/etcdserverpb.Watch/Watch", request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=pb.WatchResponse.FromString)
            try:
                for answer in watch(self._asked(revision)):
                    for event in answer.events:
                        self.seen.append((event.kv.mod_revision, event.kv.key))
                        revision = event.kv.mod_revision + 1
            except (grpc.RpcError, ValueError):
                time.sleep(0.05)  # between two tries to reach a host

    def _asked(self, revision: int) -> Iterator[pb.WatchRequest]:
        create = pb.WatchCreateRequest(key=b"/load/", range_end=b"/load0", start_revision=revision)
        yield pb.WatchRequest(create_request=create)
        self._stop.wait()

    def check(self) -> None:
        """Nothing that was acknowledged is lost, and the watch has each change once, in order."""
        written = dict(self.written)  # more comes meanwhile
        last = max(written.values())
        until(lambda: self.seen and self.seen[-1][0] >= last)
        revisions = [revision for revision, _ in self.seen]
        assert revisions == sorted(set(revisions)), "an event twice, or out of order"
        keys = {key: revision for revision, key in self.seen}
        lost = {key: (revision, keys.get(key)) for key, revision in written.items()
                if keys.get(key) != revision}
        assert not lost


@pytest.mark.parametrize("shards", [1, 3])
def test_a_shard_is_added_and_retired_under_writes_and_a_watch(tmp_path: Path, shards: int) -> None:
    with local_cluster(tmp_path / "c", HOSTS, f"--shards={shards}", extra=CALM) as cluster:
        refused = musterctl(cluster, "shard", "add")
        assert refused.returncode
        assert "run `musterctl shard enable-growth` first" in refused.stderr
        with Load(cluster.endpoints()) as load:
            grow(cluster)
            assert told(cluster, "add") == {"shard": shards, "state": "serving"}
            until(serves(cluster, shards))
            assert load.written
            assert not load.failures, "no request fails while a shard is born"
            load.check()

            cluster.ok("kill", "0", f"--shard={shards}")
            until(serves(cluster, shards))
            assert not load.failures, "no request needs the born shard"

            if shards > 1:
                assert told(cluster, "retire", str(shards)) == {"shard": shards, "state": "dropped"}
                return  # the rest is the same with one shard

            cluster.ok("kill", "2")
            until(lambda: all(0.0 in linked(cluster, host) for host in (0, 1)))
            refused = musterctl(cluster, "shard", "add")
            assert "needs all hosts, and these are down or run an older version: host2" in refused.stderr
            cluster.ok("start", "2", "--wait", "60s")
            until(serves(cluster, shards))

            owner = musterctl(cluster, "shard", "retire", "0")
            assert "shard 0 has the order of all changes, and stays" in owner.stderr
            assert "there is no shard 9" in musterctl(cluster, "shard", "retire", "9").stderr
            assert told(cluster, "retire", str(shards)) == {"shard": shards, "state": "dropped"}
            folders = [tmp_path / "c" / f"host{h}" / "member" / f"shard-{shards}" for h in range(HOSTS)]
            until(lambda: not any(folder.exists() for folder in folders))
            # a host that has just come back may run another version: it is waited for, for a second
            until(lambda: musterctl(cluster, "shard", "add").returncode == 0, look_s=0.5)
            until(serves(cluster, shards + 1))  # an id is used once

            for host in range(HOSTS):
                cluster.ok("kill", str(host))
            for host in range(HOSTS):
                cluster.run("start", str(host))
            until(serves(cluster, shards + 1))
            until(lambda: not nodes_of(cluster, shards))
            load.check()
        for host in range(HOSTS):
            assert "Traceback" not in (tmp_path / "c" / f"host{host}.log").read_text(encoding="utf-8")


@pytest.mark.longer
def test_births_survive_kills_at_every_step(tmp_path: Path) -> None:
    chance = random.Random(28)
    with (local_cluster(tmp_path / "c", HOSTS, "--shards=1") as cluster,
          Load(cluster.endpoints()) as load):
        grow(cluster)
        for round_ in range(ROUNDS):
            until(lambda: musterctl(cluster, "shard", "add", "--no-wait").returncode == 0, look_s=0.5)
            time.sleep(chance.uniform(0, 1.5))  # a place anywhere in the birth
            host = str(chance.randrange(HOSTS))
            if round_ % 2:
                cluster.ok("kill", host, "--shard=0")
            else:
                cluster.ok("kill", host)
                cluster.run("start", host)
            until(lambda: _settled(cluster), STARTS_S, look_s=0.3)
        table = _table(cluster)
        born = [shard for shard in table if shard]
        assert len(born) >= ROUNDS
        for shard in born:
            until(serves(cluster, shard))
        load.check()
        for host in range(HOSTS):
            assert "Traceback" not in (tmp_path / "c" / f"host{host}.log").read_text(encoding="utf-8")


def _table(cluster: LocalCluster) -> dict[int, str]:
    found = listed(cluster)
    return {facts["shard"]: facts["state"] for facts in found}


def _settled(cluster: LocalCluster) -> bool:
    table = _table(cluster)
    return set(table.values()) == {"serving"} and max(table) > 0 and all(
        len(nodes_of(cluster, shard)) == HOSTS for shard in table)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, 1, most=3)
    try:
        yield made
    finally:
        made.close()


def started_of(hosts: Hosts, host: int, file: Path) -> None:
    """Restore a backup to a host that is a cluster of its own, and start it."""
    restored = forks.run(
        [*forks.MUSTERCTL, "snapshot", "restore", file, f"--data-dir={hosts.folder / f'h{host}'}",
         f"--name=h{host}", f"--initial-cluster=h{host}={hosts.peer(host)}",
         f"--initial-advertise-peer-urls={hosts.peer(host)}"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    assert restored.returncode == 0, restored.stderr
    hosts.start(host)


def test_members_backups_and_forced_starts_know_born_shards(hosts: Hosts, tmp_path: Path) -> None:
    def ctl(host: int, *words: str) -> subprocess.CompletedProcess[str]:
        return _musterctl(hosts.client(host), *words)

    def listed_at(host: int) -> list[tuple[int, str, bool]]:
        found = json.loads(ctl(host, "shard", "list", "-w", "json").stdout or "[]")
        return sorted((facts["shard"], facts["host"], facts["up"]) for facts in found)

    hosts.found()
    until(lambda: ctl(0, "shard", "enable-growth").returncode == 0, look_s=0.3)
    assert ctl(0, "put", "/a/b", "1").returncode == 0
    assert ctl(0, "shard", "add").returncode == 0
    hosts.shards = 2
    hosts.add(1)
    hosts.join(1)
    hosts.votes(1)  # in both groups
    wanted = [(0, "h0", True), (0, "h1", True), (1, "h0", True), (1, "h1", True)]
    until(lambda: listed_at(0) == wanted)

    file = tmp_path / "backup.db"
    assert ctl(0, "snapshot", "save", str(file)).returncode == 0
    started_of(hosts, 2, file)
    until(lambda: ctl(2, "get", "/a/b").stdout == "/a/b\n1\n")
    assert listed_at(2) == [(0, "h2", True)], "a restored cluster has the shards of its beginning"

    for host in (0, 1, 2):
        process = hosts.running.pop(host)
        process.kill()
        process.wait(LIMIT_S)
    hosts.start(0, "--force-new-cluster")
    until(lambda: ctl(0, "put", "/a/b", "2").returncode == 0)
    until(lambda: listed_at(0) == wanted[::2])
    assert ctl(0, "shard", "retire", "1").returncode == 0
    assert ctl(0, "shard", "add").stdout, "births go on"
    process = hosts.running.pop(0)
    process.kill()
    process.wait(LIMIT_S)
    hosts.start(0, "--force-new-cluster")  # the order has cuts of a shard that is dropped
    until(lambda: ctl(0, "put", "/a/b", "3").returncode == 0)


def test_the_files_of_a_stopped_host_have_the_keys_of_born_shards(hosts: Hosts, tmp_path: Path) -> None:
    hosts.found()

    def ctl(*words: str) -> subprocess.CompletedProcess[str]:
        return _musterctl(hosts.client(0), *words)

    until(lambda: ctl("shard", "enable-growth").returncode == 0, look_s=0.3)
    for key in ("/a/1", "/b/1"):
        assert ctl("put", key, "before").returncode == 0
    assert ctl("shard", "add").returncode == 0
    moved = ctl("shard", "move", "/a/", "/a0", "--to", "1")
    assert moved.returncode == 0, moved.stderr
    assert ctl("put", "/a/1", "after").returncode == 0
    wanted = json.loads(ctl("get", "/", "--prefix", "-w", "json").stdout)["kvs"]
    process = hosts.running.pop(0)
    process.terminate()
    process.wait(LIMIT_S)

    def saved(*words: str) -> subprocess.CompletedProcess[str]:
        return forks.run(
            [*forks.MUSTERCTL, "snapshot", "save", file, f"--data-dir={tmp_path / 'h0'}", *words],
            capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, env=environment())

    file = tmp_path / "files.db"
    done = saved()
    assert done.returncode == 0, done.stderr
    started_of(hosts, 1, file)
    found: list[Any] = []

    def shown() -> bool:
        answer = _musterctl(hosts.client(1), "get", "/", "--prefix", "-w", "json")
        found[:] = json.loads(answer.stdout).get("kvs", []) if answer.returncode == 0 else []
        return bool(found)

    until(shown)
    assert found == wanted

    # without the files of a shard that has keys
    (tmp_path / "h0/member/shard-1/state/current").unlink()
    file = tmp_path / "less.db"
    refused = saved()
    assert refused.returncode == 1
    assert "shard 1 has keys, and nothing of it is here" in refused.stderr
    assert not file.exists()
    done = saved("--uneven")
    assert done.returncode == 0, done.stderr
    assert "shard 1: its keys are omitted: nothing of it is here" in done.stdout + done.stderr


def test_a_host_starts_again_once_one_of_its_first_shards_has_retired(tmp_path: Path) -> None:
    """It is killed while it removes the shard's files."""
    hosts = Hosts(tmp_path, 2, most=1)
    data_dir, file = tmp_path / "h0", tmp_path / "files.db"

    def ctl(*words: str) -> str:
        done = _musterctl(hosts.client(0), *words)
        return done.stdout if done.returncode == 0 else ""

    def again(*flags: str) -> None:
        hosts.start(0, f"--initial-cluster=h0={hosts.peer(0)}", "--shards=2", *flags)
        until(lambda: ctl("put", "/a/b", "again"), look_s=0.3)
        assert ctl("get", "/", "--prefix", "--keys-only").split() == ["/a/b", *keys]

    try:
        hosts.found()
        until(lambda: ctl("shard", "enable-growth"), look_s=0.3)
        keys = [f"/k{n}/x" for n in range(8)]
        for key in keys:
            assert ctl("put", key, "v")
        assert ctl("shard", "add")
        assert ctl("shard", "retire", "1", "--with-others", "--no-wait")
        written = json.loads(ctl("put", "/a/b", "1", "-w", "json"))
        assert ctl("compaction", str(written["header"]["revision"]))
        until(lambda: not (data_dir / "member/shard-1").exists(), look_s=0.001)
        _ended(hosts, kill=True)

        again()
        _ended(hosts)
        done = forks.run(
            [*forks.MUSTERCTL, "snapshot", "save", file, f"--data-dir={data_dir}"],
            capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, env=environment())
        assert done.returncode == 0, done.stderr
        again("--force-new-cluster")
        assert json.loads(ctl("shard", "add", "-w", "json"))["shard"] == 3, "no id comes again"
    finally:
        hosts.close()


def _ended(hosts: Hosts, *, kill: bool = False) -> None:
    process = hosts.running.pop(0)
    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    process.wait(LIMIT_S)


def test_root_alone_adds_shards_once_there_are_users(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1) as cluster:
        root = "--user=root:secret"
        for words in (
            ("user", "add", "root:secret"), ("user", "add", "ann:secret"), ("role", "add", "root"),
            ("user", "grant-role", "root", "root"), ("auth", "enable"),
        ):
            done = musterctl(cluster, *words)
            assert done.returncode == 0 or "role name already exists" in done.stderr, done.stderr
        for words in (("enable-growth",), ("add",)):
            refused = musterctl(cluster, "--user=ann:secret", "shard", *words)
            assert "permission denied" in refused.stderr, refused.stderr
        until(lambda: musterctl(cluster, root, "shard", "enable-growth").returncode == 0, look_s=0.3)
        done = musterctl(cluster, root, "shard", "add")
        assert done.returncode == 0, done.stderr
        done = musterctl(cluster, root, "shard", "retire", "1")
        assert done.returncode == 0, done.stderr
