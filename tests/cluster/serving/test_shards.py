"""Several shards, real processes: the layout is agreed once, and nobody works with another one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cluster.features.growth import LEVEL
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from node.control_groups import usable_cpus
from tests import forks
from tests.cluster.local_cluster import (
    LIMIT_S,
    LocalCluster,
    command,
    environment,
    free_base_port,
    local_cluster,
    until,
)
from tools.muster.host import rundir
from tools.musterctl import cli


def unary(
    channel: grpc.Channel, method: str, request: object, response: type, timeout: float = LIMIT_S
) -> object:
    """One call of etcd's API."""
    return channel.unary_unary(
        f"/etcdserverpb.{method}", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=response.FromString,
    )(request, timeout=timeout)  # fmt: skip


def put(channel: grpc.Channel, key: str, value: str) -> None:
    unary(channel, "KV/Put", pb.PutRequest(key=key.encode(), value=value.encode()), pb.PutResponse)


def everything(channel: grpc.Channel) -> dict[str, str]:
    found = unary(channel, "KV/Range", pb.RangeRequest(key=b"\0", range_end=b"\0"), pb.RangeResponse)
    return {kv.key.decode(): kv.value.decode() for kv in found.kvs}


class Servers:
    """Hosts that are started one by one, each with its own flags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = free_base_port(3, 4)
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def client(self, host: int) -> str:
        return f"127.0.0.1:{self.base + 100 * host}"

    def start(self, host: int, *flags: str) -> subprocess.Popen[bytes]:
        cluster = ",".join(f"h{i}=http://127.0.0.1:{self.base + 100 * i + 1}" for i in range(3))
        peer, client = f"http://127.0.0.1:{self.base + 100 * host + 1}", f"http://{self.client(host)}"
        with open(self.folder / f"h{host}.log", "ab") as log:
            self.running[host] = forks.popen(
                command(
                    f"--name=h{host}", f"--data-dir={self.folder / f'h{host}'}",
                    f"--initial-cluster={cluster}",
                    f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                    f"--listen-client-urls={client}", f"--advertise-client-urls={client}", *flags),
                stdout=log, stderr=log, env=environment(), cwd=self.folder)  # fmt: skip
        return self.running[host]

    def log(self, host: int) -> str:
        return (self.folder / f"h{host}.log").read_text(encoding="utf-8")


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    made = Servers(folder)
    try:
        yield made
    finally:
        for process in made.running.values():
            process.terminate()
        for process in made.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for host in made.running:
            rundir.remove_run_dir(str(folder / f"h{host}"), rundir.run_dir_of(str(folder / f"h{host}")))


@pytest.mark.parametrize(("most", "other"), [(3, 2), (1, 2), (2, 1)])
def test_a_host_with_another_number_of_shards_is_told_so_and_follows_when_told(
    tmp_path: Path, most: int, other: int
) -> None:
    with servers(tmp_path) as hosts:
        hosts.start(0, f"--shards={most}")
        hosts.start(1, f"--shards={most}")
        until(lambda: all("ready to serve" in hosts.log(i) for i in (0, 1)))  # hence the number is agreed
        odd = hosts.start(2, f"--shards={other}")
        assert odd.wait(LIMIT_S) == 1
        told = (
            f"this cluster has {most} shards at placement depth 2, this host was "
            f"started with {other} at depth 2"
        )
        assert told in hosts.log(2)
        with grpc.insecure_channel(hosts.client(0)) as channel:
            for i in range(20):
                put(channel, f"/{i}/k", str(i))
        again = hosts.start(2, f"--shards={other}")
        assert again.wait(LIMIT_S) == 1
        assert f"--shards={other}, but this cluster was made with {most}" in hosts.log(2)
        hosts.start(2)  # without a number of its own it takes what was agreed
        until(lambda: "ready to serve" in hosts.log(2))
        with grpc.insecure_channel(hosts.client(2)) as channel:
            assert everything(channel) == {f"/{i}/k": str(i) for i in range(20)}


def test_a_host_that_was_told_no_number_takes_the_agreed_one_by_itself(tmp_path: Path) -> None:
    most = 2  # not what it would choose
    with servers(tmp_path) as hosts:
        hosts.start(0, f"--shards={most}")
        hosts.start(1, f"--shards={most}")
        until(lambda: all("ready to serve" in hosts.log(i) for i in (0, 1)))  # hence the number is agreed
        hosts.start(2)
        until(lambda: "ready to serve" in hosts.log(2))
        assert "the cluster has another number of shards than this host has chosen" in hosts.log(2)
        with grpc.insecure_channel(hosts.client(2)) as channel:
            for i in range(10):
                put(channel, f"/{i}/k", str(i))
            assert everything(channel) == {f"/{i}/k": str(i) for i in range(10)}


def test_auto_is_the_number_of_cpus_and_is_kept(tmp_path: Path) -> None:
    cpus = min(usable_cpus(), 64)
    with local_cluster(tmp_path / "c", 1, "--shards=auto") as cluster:
        assert len(cluster.host(0)["nodes"]) == cpus
    with local_cluster(tmp_path / "c", 1, "--shards=auto", f"--base-port={cluster.base_port}") as cluster:
        assert len(cluster.host(0)["nodes"]) == cpus


def test_hosts_of_a_local_cluster_share_the_cpus_out(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3, "--shards=auto") as cluster:
        assert len(cluster.status()["shards"]) == max(1, usable_cpus() // 3)


def leaders(cluster: LocalCluster) -> list[int | None]:
    """The host that leads, by shard."""
    return [s["leader_host"] for s in cluster.status()["shards"]]


def test_leaders_are_spread_over_the_hosts_that_are_up(tmp_path: Path) -> None:
    def numbers() -> list[int]:
        found = leaders(cluster)
        return sorted(found.count(host) for host in range(3)) if None not in found else []

    with local_cluster(tmp_path / "c", 3, "--shards=4", extra=("--leader-placement=spread",)) as cluster:
        until(lambda: numbers() == [1, 1, 2])
        cluster.ok("kill", "1")
        until(lambda: numbers() == [0, 2, 2])
        cluster.ok("start", "1", "--wait=60s")
        until(lambda: numbers() == [1, 1, 2])
        with grpc.insecure_channel(cluster.endpoints()[1]) as channel:
            for i in range(30):
                put(channel, f"/{i}/k", str(i))
            assert everything(channel) == {f"/{i}/k": str(i) for i in range(30)}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("shards") / "c", 3, "--shards=3") as cluster:
        yield cluster


def ctl(cluster: LocalCluster, *words: str, code: int = 0) -> str:
    """musterctl on host 0."""
    done = forks.run(
        [*forks.MUSTERCTL, f"--endpoints={cluster.endpoints()[0]}", *words],
        capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment(),
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def get(cluster: LocalCluster, path: str, host: int = 0) -> str:
    with urllib.request.urlopen(f"http://{cluster.endpoints()[host]}{path}", timeout=LIMIT_S) as answer:
        return str(answer.read().decode())


def scraped(cluster: LocalCluster, host: int = 0) -> list[Sample]:
    """All that a host's /metrics shows."""
    families = text_string_to_metric_families(get(cluster, "/metrics", host))
    return [sample for family in families for sample in family.samples]


def test_shard_list_shows_every_shard_on_every_host(three: LocalCluster) -> None:
    with grpc.insecure_channel(three.endpoints()[0]) as channel:
        for i in range(60):
            put(channel, f"/{i}/k", "x")

    def listed() -> list[dict[str, object]]:
        found = json.loads(ctl(three, "shard", "list", "-w", "json"))
        # followers hear of the last records a moment later, and a leader that was replaced of the new one
        applied = {f["revision"] for f in found} == {61} and {f["order_lag"] for f in found} == {0}
        return found if applied and [f["role"] for f in found].count("leader") == 3 else []

    found = until(listed)
    assert [(f["shard"], f["host"]) for f in found] == [(s, f"host{h}") for s in range(3) for h in range(3)]
    for shard in range(3):
        of_shard = found[3 * shard : 3 * shard + 3]
        assert sorted(f["role"] for f in of_shard) == ["follower", "follower", "leader"]
        assert len({(f["term"], f["leader"]) for f in of_shard}) == 1
        assert len({f["keys"] for f in of_shard}) == 1
        assert all(f["commit_index"] >= f["applied_index"] > 0 and f["size_bytes"] > 0 for f in of_shard)
    assert sum(f["keys"] for f in found[::3]) == 60
    assert all(f["keys"] > 0 for f in found), "directories spread over all shards"
    grown = f"growth: level 0; all hosts know level {LEVEL}"  # once each has said so, and that is applied
    until(lambda: ctl(three, "shard", "list", "-w", "table").splitlines()[-1] == grown)
    table = ctl(three, "shard", "list", "-w", "table").splitlines()
    assert len(table) == 3 + 9 + 1 + 1
    assert "FEED FROM" in table[1]
    assert ctl(three, "shard", "list").splitlines()[1] == table[1], (
        "a table is the default: rows need a header"
    )
    assert len(ctl(three, "shard", "list", "-w", "simple").splitlines()) == 9
    blocks = ctl(three, "shard", "list", "-w", "fields").split("\n\n")
    assert len(blocks) == 9 + 1
    fifth = set(blocks[4].splitlines())
    assert fifth >= {
        '"Host" : "host1"', f'"MemberID" : "{found[4]["member_id"]}"', '"Shard" : 1', '"Up" : true',
    }


def test_shard_of_tells_where_keys_are(three: LocalCluster) -> None:
    placement = Placement(3)
    for key in ("plain", "/a/b/c/d", "/registry/pods/x"):
        shard = placement.shard_of(key.encode())
        assert json.loads(ctl(three, "shard", "of", key, "-w", "json"))["shards"] == [shard]
        assert ctl(three, "shard", "of", key, "-w", "simple").startswith(f"{shard}, ")
        assert "PLACED BY" in ctl(three, "shard", "of", key)
    assert json.loads(ctl(three, "shard", "of", "--prefix", "/a/", "-w", "json"))["shards"] == [0, 1, 2]
    assert len(json.loads(ctl(three, "shard", "of", "--prefix", "/a/b/", "-w", "json"))["shards"]) == 1
    ctl(three, "shard", "of", code=128)
    ctl(three, "shard", "list", "-w", "protobuf", code=4)


def test_a_user_is_passed_over_while_auth_is_off(
    three: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """As etcd's client does: "authentication is not enabled" is no reason to end."""
    line = ["--endpoints", three.endpoints()[0], "--user", "root:secret", "--dial-timeout=30s"]
    assert cli.run([*line, "put", "k", "v"]) == 0
    assert capsys.readouterr().out == "OK\n"


def test_metrics_and_status_count_every_shard(three: LocalCluster) -> None:
    samples = {(s.name, s.labels.get("shard")): s.value for s in scraped(three)}
    for shard in "012":
        assert samples["muster_shard_up", shard] == 1
        assert samples["muster_shard_term", shard] >= 1
        assert samples["muster_shard_order_index", shard] > 0
    assert samples["muster_shard_feed_remote", "1"] == 0
    facts = json.loads(get(three, "/muster/shards"))["shards"]
    with grpc.insecure_channel(three.endpoints()[0]) as channel:
        status = unary(channel, "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
    assert status.raftIndex >= facts[0]["applied_index"]
    assert status.dbSize > max(f["size_bytes"] for f in facts)
    assert [f["compacting"] for f in facts] == [0] * 3
    assert json.loads(get(three, "/muster/placement"))["shards"] == 3


def test_whichever_front_is_scraped_shows_all_fronts_of_its_host(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, "--fronts=2") as cluster:
        (endpoint,) = cluster.endpoints()
        for i in range(12):  # a connection of its own each: the kernel spreads them over the fronts
            with grpc.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                put(channel, f"k{i}", "v")
            get(cluster, "/v2/keys")
        started = set()
        for _ in range(6):
            assert json.loads(get(cluster, "/v2/stats/store"))["getsSuccess"] == 12
            started.add(json.loads(get(cluster, "/v2/stats/self"))["startTime"])
            samples = scraped(cluster)
            puts = {s.labels["front"]: s.value for s in samples
                    if s.name == "grpc_server_started_total" and s.labels["grpc_method"] == "Put"}
            assert set(puts) == {"0", "1"}
            assert sum(puts.values()) == 12
            for once in ("etcd_server_has_leader", "process_resident_memory_bytes"):
                assert [s.labels for s in samples if s.name == once] == [{}]
        assert len(started) == 1


@pytest.mark.parametrize("found_by", ["endpoints", "initial-cluster"])
def test_a_proxy_learns_the_layout_and_cannot_have_another(
    three: LocalCluster, tmp_path: Path, found_by: str
) -> None:
    port = free_base_port(1)
    where = {
        "endpoints": three.endpoints()[1],
        "initial-cluster": ",".join(
            f"host{i}=http://127.0.0.1:{three.base_port + 100 * i + 1}" for i in range(3)),
    }[found_by]
    flags = [
        f"--{found_by}={where}", f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--data-dir={tmp_path / 'p'}",
    ]
    refused = forks.run(command("proxy", *flags, "--shards=2"), capture_output=True, text=True,
                        check=False, timeout=LIMIT_S, env=environment(), cwd=tmp_path)  # fmt: skip
    assert refused.returncode == 1
    assert "--shards=2, but this cluster began with 3" in refused.stderr
    with open(tmp_path / "log", "wb") as log, forks.popen(
        command("proxy", *flags), cwd=tmp_path, stdout=log, stderr=log, env=environment()
    ) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(LIMIT_S)
                for i in range(20):
                    put(channel, f"/p{i}/k", "proxied")
            with grpc.insecure_channel(three.endpoints()[2]) as channel:
                assert {f"/p{i}/k" for i in range(20)} <= set(everything(channel))
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            rundir.remove_run_dir(str(tmp_path / "p"), rundir.run_dir_of(str(tmp_path / "p")))


def test_leaders_come_together_and_follow_the_sequencer(three: LocalCluster) -> None:
    until(lambda: len(set(leaders(three))) == 1)
    first = leaders(three)[0]
    three.ok("kill", str(first))
    until(lambda: len(found := set(leaders(three))) == 1 and not found & {None, first})
    three.ok("start", str(first), "--wait=60s")


def test_a_full_shard_refuses_what_would_grow_it(tmp_path: Path) -> None:
    placement = Placement(3)
    key = next(f"/q{i}/k" for i in range(100) if placement.shard_of(f"/q{i}/k".encode()) == 2)
    with (
        local_cluster(tmp_path / "c", 3, "--shards=3", extra=("--quota-backend-bytes=3000000",)) as cluster,
        grpc.insecure_channel(cluster.endpoints()[0]) as channel,
    ):

        def refused(request: pb.PutRequest | pb.TxnRequest) -> bool:
            try:
                if isinstance(request, pb.TxnRequest):
                    unary(channel, "KV/Txn", request, pb.TxnResponse)
                else:
                    unary(channel, "KV/Put", request, pb.PutResponse)
            except grpc.RpcError as e:
                return bool(e.details() == "etcdserver: mvcc: database space exceeded")
            return False

        big = pb.PutRequest(key=key.encode(), value=b"x" * 200_000)
        until(lambda: refused(big))
        assert refused(pb.TxnRequest(success=[pb.RequestOp(request_put=big)]))
        unary(channel, "KV/DeleteRange", pb.DeleteRangeRequest(key=key.encode()), pb.DeleteRangeResponse)


def test_a_host_whose_data_has_grown_is_not_started_by_versions_of_before(tmp_path: Path) -> None:
    def why_not(cluster: LocalCluster) -> str:
        """Of growth that is asked for; empty: it is granted."""
        done = forks.run(
            [*forks.MUSTERCTL, f"--endpoints={cluster.endpoints()[0]}", "shard",
             "enable-growth"],
            capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment())
        assert done.returncode == 0 or "not known to run" in done.stderr, done.stderr
        return done.stderr

    def links(cluster: LocalCluster, host: int) -> list[float]:
        """How many links to each peer are up, the fewest first."""
        return sorted(s.value for s in scraped(cluster, host) if s.name == "etcd_network_active_peers")

    older = ("import sys; from tools.muster import cli; from tools.muster.host.identity import bootstrap; "
             "bootstrap.FORMATS = (1, 2); sys.exit(cli.main())")  # that they know

    with local_cluster(tmp_path / "c", 3, "--shards=2") as cluster:
        files = [tmp_path / "c" / f"host{i}" / "member" / "identity.json" for i in range(3)]
        known = f"all hosts know level {LEVEL}"
        until(lambda: ctl(cluster, "shard", "list", "-w", "table").splitlines()[-1].endswith(known))
        cluster.ok("kill", "2")
        for host in (0, 1):  # either may lead: it has to notice that host 2 is gone
            until(lambda host=host: links(cluster, host) == [0, 2])  # type: ignore[misc]
        assert f"level {LEVEL} now: host2 (not connected); start that version there first" in why_not(cluster)
        assert [json.loads(file.read_bytes())["format"] for file in files] == [1, 1, 1]
        cluster.ok("start", "2", "--wait=60s")
        until(lambda: not why_not(cluster))  # once its link has told its version
        until(lambda: [json.loads(file.read_bytes())["format"] for file in files] == [3, 3, 3])
        cluster.ok("kill", "1")
        start = ["--name=host1", f"--data-dir={tmp_path / 'c' / 'host1'}"]
        done = subprocess.run([sys.executable, "-c", older, *start], capture_output=True, text=True,
                              check=False, timeout=LIMIT_S, env=environment(), cwd=tmp_path)
        assert done.returncode == 1
        assert "identity.json has format 3; this muster knows 1, 2" in done.stderr
        cluster.ok("start", "1", "--wait=60s")  # this one does
