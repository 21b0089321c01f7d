"""Three hosts advise under load; with ``--growth auto`` they add a shard and move keys to it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.table import State
from tests.cluster.local_cluster import LocalCluster, local_cluster, until
from tests.cluster.placement import table_at
from tests.cluster.serving.test_births import CALM, Load, grow, musterctl, unary

# a leader that does anything is hot, whatever else the machine does
EAGER = ",".join((
    "hot=0.001", "cool=1000", "gain=0", "free_cpus=0", "free_disk=0", "for_s=1", "after_election_s=1",
    "settle_s=5", "span_rest_s=0", "moves=1000", "order_work=1000", "one_key=1", "behind=1000000000",
    "refused_s=2", "wrong=1000"))

LARGE = (("grpc.max_receive_message_length", -1),)


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("advised") / "c"
    with local_cluster(folder, 3, "--shards=1", extra=CALM) as cluster:
        yield cluster


def advice(cluster: LocalCluster) -> dict[str, Any]:
    done = musterctl(cluster, "shard", "advice", "-w", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(cluster: LocalCluster, path: str, data: bytes | None = None) -> list[str]:
    """What each host answers."""
    asked = [urllib.request.Request(f"http://{endpoint}{path}", data) for endpoint in cluster.endpoints()]
    return [urllib.request.urlopen(request, timeout=30).read().decode() for request in asked]


def table(cluster: LocalCluster) -> Table:
    return table_at(cluster.endpoints()[0], 30)


def all_known(found: dict[str, Any]) -> bool:
    return (len(found["hosts"]) == 3 and all(host["tells"] for host in found["hosts"])
            and [shard["shard"] for shard in found["shards"]] == [0])


def test_by_default_hosts_advise(advised: LocalCluster) -> None:
    with Load(advised.endpoints()) as load:
        until(lambda: all_known(advice(advised)))
        until(lambda: advice(advised)["shards"][0]["rate"] > 0)
    found = advice(advised)
    assert found["mode"] == "advise"
    assert found["shards"][0]["cpu"] > 0
    assert all(host["cpus"] > 0 and 0 < host["free_disk"] <= 1 for host in found["hosts"])
    assert load.failures == []


@pytest.mark.parametrize("form", ["table", "simple", "fields"])
def test_advice_is_printed(advised: LocalCluster, form: str) -> None:
    done = musterctl(advised, "shard", "advice", "-w", form)
    assert done.returncode == 0, done.stderr
    assert {"table": "advice (advise): ", "simple": "", "fields": '"Mode" : "advise"'}[form] in done.stdout
    assert done.stdout


def test_advice_is_asked_by_json_and_told_in_metrics(advised: LocalCluster) -> None:
    assert [json.loads(told)["mode"] for told in page(advised, "/v3/shards/advice", b"{}")] == ["advise"] * 3
    for told in page(advised, "/metrics"):
        assert 'muster_growth_advice{action="add"} ' in told
        assert "muster_growth_failed 0" in told


def test_advice_needs_no_argument(advised: LocalCluster) -> None:
    done = musterctl(advised, "shard", "advice", "more")
    assert done.returncode == 128
    assert "accepts no arguments" in done.stderr


def test_off_is_off(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, "--shards=1", extra=(*CALM, "--growth=off")) as cluster:
        found = advice(cluster)
        assert (found["mode"], found["shards"], found["hosts"]) == ("off", [], [])
        assert "--growth off" in musterctl(cluster, "shard", "advice", "-w", "table").stdout
        assert "muster_growth" not in page(cluster, "/metrics")[0]


def test_hosts_add_a_shard_by_themselves_and_move_keys_to_it(tmp_path: Path) -> None:
    flags = (*CALM, "--growth=auto", f"--growth-bounds={EAGER}")
    with local_cluster(tmp_path / "c", 3, "--shards=1", extra=flags) as cluster:
        grow(cluster)
        with Load(cluster.endpoints()) as load:
            until(lambda: serving(cluster, 1), limit_s=180, look_s=0.5)
            right = 'muster_growth_outcomes_total{came="right"}'
            until(lambda: counted(cluster, right), limit_s=180, look_s=0.5)
            until(lambda: any(span.owner for span in table(cluster).spans), limit_s=180, look_s=0.5)
            began = len(load.written)
            until(lambda: len(load.written) > began + 50, limit_s=180)
        for action in ("add", "move"):
            assert counted(cluster, f'muster_growth_actions_total{{action="{action}"}}') >= 1
        assert counted(cluster, "muster_growth_failed") == 0
        assert load.failures == []
        assert load.written.items() <= kept(cluster).items()


def serving(cluster: LocalCluster, shard: int) -> bool:
    known = table(cluster).shards.get(shard)
    return known is not None and known.state == State.SERVING


def counted(cluster: LocalCluster, sample: str) -> float:
    """Over all hosts."""
    lines = [line for told in page(cluster, "/metrics") for line in told.splitlines()]
    return sum(float(line.removeprefix(sample)) for line in lines if line.startswith(f"{sample} "))


def kept(cluster: LocalCluster) -> dict[bytes, int]:
    """The keys of the load, by their revisions."""
    with grpc.insecure_channel(cluster.endpoints()[0], options=LARGE) as channel:
        request = pb.RangeRequest(key=b"/load/", range_end=b"/load0")
        found = unary(channel, "KV/Range", request, pb.RangeResponse, 60.0)
    return {kv.key: kv.mod_revision for kv in found.kvs}
