"""A load like a Kubernetes cluster's, in small, on a real etcd and on a host of muster with two shards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from bench.client import Client, RpcError, parse_endpoint
from bench.compare import figures, kinds, report
from bench.load import run
from bench.load.spec import Spec
from bench.load.traffic import kubernetes
from bench.load.traffic.kubernetes import guarded, rates
from bench.load.traffic.kubernetes_reads import BEHIND, LEASES, PODS, STAMP, kinds_of, outline
from bench.load.traffic.workloads import PUT, RANGE
from bench.systems import systems
from bench.systems.systems import System, start_muster
from cluster.pb import rpc_pb2 as pb
from tests.ports import free_base_port

SMALL = Spec(
    "kubernetes",
    ("x:1",),
    duration_s=2.0,
    conns=4,
    timeout_s=30.0,
    pods=120,
    nodes=50,
    watches=60,
    kinds=30,
    page=50,
    leases=10,
    scale=0.1,
    renewals_per_s=1000.0,
    keep_alives_per_s=200.0,
    statuses_per_s=200.0,
    lists_per_s=20.0,
    progress_per_s=50.0,
)


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "_free_block", lambda size: free_base_port(1, 2))
        system = start_muster(tmp_path_factory.mktemp("muster"), hosts=1, shards=2)
    yield system
    system.stop()


@pytest.mark.parametrize("name", ["etcd", "muster"])
def test_every_kind_of_request_is_answered_and_every_write_reaches_every_watch_of_its_kind(
    name: str, request: pytest.FixtureRequest
) -> None:
    system: System = request.getfixturevalue(name)
    result = asyncio.run(run.run(replace(SMALL, endpoints=tuple(system.endpoints)), server_roots=system.pids))
    # an etcd before 3.5.8 may say that a watch has come to a revision before that one's event
    assert {what for what in result["errors"] if what != BEHIND or name == "muster"} == set(), result[
        "errors"
    ]
    counts = {kind: found["count"] for kind, found in result["extra"].items()}
    assert result["asked_per_s"] == {
        "renewal": 100.0,
        "keep-alive": 20.0,
        "status update": 20.0,
        "list in pages": 2.0,
        "whole list": 2.0,
        "progress": 5.0,
    }
    assert {kind: counts[kind] for kind in result["asked_per_s"]} == {
        "renewal": 200,
        "keep-alive": 40,
        "status update": 40,
        "list in pages": 4,
        "whole list": 4,
        "progress": 10,
    }
    assert result["reached_per_s"].keys() == result["asked_per_s"].keys()
    assert all(rate <= result["asked_per_s"][kind] * 1.4 for kind, rate in result["reached_per_s"].items())
    assert counts["page"] == 4 * 3
    assert counts["watch created"] == 60
    assert counts["event"] == 2 * (200 + 40)  # two API servers
    assert result["operations"] == sum(counts[kind] for kind in result["asked_per_s"])
    assert len(result["client"]["processes"]) == 3
    assert result["server"] is not None
    assert result["server"]["rss_bytes"] > 0


def on(etcd: System, work: Callable[[Client], Awaitable[None]]) -> None:
    async def bounded() -> None:
        client = await Client.open([parse_endpoint(e) for e in etcd.endpoints])
        try:
            async with asyncio.timeout(60):
                await work(client)
        finally:
            await client.close()

    uvloop.run(bounded())


def test_an_object_that_has_changed_is_read_and_written_again(etcd: System) -> None:
    async def work(client: Client) -> None:
        prefix = b"/registry/changed/"
        objects = kubernetes._Objects(prefix, [prefix + b"a"], (400, 400), 1)
        await objects.create(client, 30.0)
        known = objects.revisions[0]
        other = await client.unary(PUT, pb.PutRequest(key=prefix + b"a", value=b"another's"), pb.PutResponse)
        assert other.header.revision > known

        extra: dict[str, list[int]] = {}
        writes = kubernetes._Writes(SMALL, client, extra)
        answered: asyncio.Future[RpcError | None] = asyncio.get_running_loop().create_future()
        always = random.Random(1)
        always.random = lambda: 1.0  # type: ignore[method-assign]  # so nothing is outdated by itself
        update = kubernetes._Update(writes, client, 0, objects, lambda: 0, always)
        update.call("", (77).to_bytes(8, "big"), lambda error, body: answered.set_result(error))
        assert await answered is None
        assert (writes.committed, len(writes.conflicts_us)) == (1, 1)
        found = (await client.unary(RANGE, pb.RangeRequest(key=prefix + b"a"), pb.RangeResponse)).kvs[0]
        assert found.mod_revision == objects.revisions[0] > other.header.revision
        assert found.value.startswith(b"k8s\0")
        assert (int.from_bytes(found.value[STAMP], "big"), len(found.value)) == (77, 400)

        again = kubernetes._Objects(prefix, [prefix + b"a"], (400, 400), 1)
        await again.create(client, 30.0)  # what is there is not put again
        assert again.revisions == objects.revisions

    on(etcd, work)


def test_an_update_is_the_transaction_of_kubernetes() -> None:
    txn = pb.TxnRequest.FromString(guarded(b"/registry/pods/a/b", 7, b"new"))
    (compare,) = txn.compare
    assert (compare.target, compare.result, compare.mod_revision) == (pb.Compare.MOD, pb.Compare.EQUAL, 7)
    assert txn.success[0].request_put == pb.PutRequest(key=b"/registry/pods/a/b", value=b"new")
    assert txn.failure[0].request_range == pb.RangeRequest(key=b"/registry/pods/a/b")


@pytest.mark.parametrize("rows", [0, 1, 3, 600])
@pytest.mark.parametrize("more", [False, True])
def test_the_outline_of_an_answer_is_what_its_message_says(rows: int, more: bool) -> None:
    answer = pb.RangeResponse(
        header=pb.ResponseHeader(cluster_id=2**63, member_id=9, revision=300, raft_term=2),
        kvs=[{"key": b"k%d" % i, "value": bytes(i), "version": 1} for i in range(rows)],
        more=more,
        count=rows + 200,
    )
    assert outline(answer.SerializeToString()) == (300, rows, answer.kvs[-1].key if rows else b"", more)


def test_kinds_begin_with_those_that_are_written_and_go_on_with_custom_resources() -> None:
    assert kinds_of(2) == [PODS, LEASES]
    assert len(set(kinds_of(200))) == 200
    assert kinds_of(25)[24] == b"/registry/example.com/kind-000/"


def test_three_processes_share_a_run_and_its_rates_are_scaled() -> None:
    writes, lists, watches = SMALL.split(1)
    assert [one.part for one in (writes, lists, watches)] == ["writes", "lists", "watches"]
    assert rates(writes) == {"renewal": 100.0, "keep-alive": 20.0, "status update": 20.0}
    assert {**rates(writes), **rates(lists), **rates(watches)} == rates(SMALL)
    assert "whole list" not in rates(replace(SMALL, lists_per_s=0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"total": 5},
        {"clients": 2},
        {"rate_per_s": 1.0},
        {"duration_s": 0.0},
        {"pods": 0},
        {"kinds": 1},
        {"watches": 29},
        {"watches": 61},
        {"scale": 0.0},
        {"lists_per_s": -1.0},
        {"page": 0},
    ],
)
def test_a_load_that_means_nothing_is_refused(changes: dict[str, Any]) -> None:
    SMALL.check()
    with pytest.raises(ValueError):
        replace(SMALL, **changes).check()


def test_a_comparison_tells_the_kinds_apart() -> None:
    def one(renewal_ms: float) -> dict[str, Any]:
        summary = {"mean": renewal_ms, "p50": renewal_ms, "p99": 2 * renewal_ms, "max": 3 * renewal_ms}
        return {
            "command": "kubernetes",
            "operations": 30,
            "duration_s": 2.0,
            "client": {"limited": "no"},
            "others_busy_percent": 1.0,
            "errors": {"renewal: x": 2, "event: y": 1},
            "extra": {
                "renewal": {"count": 20, "latency_ms": summary},
                "event": {"count": 40, "latency_ms": summary},
            },
        }

    row = {
        "name": "kubernetes",
        "title": "Kubernetes",
        "duration_s": 2.0,
        "targets": [],
        "runs": {"etcd": [one(2.0), {"failed": "why"}], "muster": [one(1.0), one(1.0)]},
    }
    renewal, event = kinds.split(row, ["etcd", "muster"])
    assert (renewal["name"], event["title"]) == ("kubernetes: renewal", "Kubernetes: event")
    assert renewal["runs"]["etcd"][1] == {"failed": "why"}
    assert figures.figures(renewal["runs"]["etcd"], "throughput_per_s") == [10.0]
    assert figures.figures(renewal["runs"]["etcd"], "errors") == [2.0]
    assert figures.ratios(event["runs"], ["etcd", "muster"])["muster"]["p99_ms"]["median"] == 0.5


def test_tables_of_one_host_have_a_file_of_their_own() -> None:
    of = {hosts: report.file_name({"preset": "kubernetes", "plan": {"hosts": hosts}}) for hosts in (1, 3)}
    assert of == {1: "kubernetes-1-host", 3: "kubernetes"}
