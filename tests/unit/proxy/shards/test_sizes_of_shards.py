"""The size and the keys of a host's store in /metrics are those of all shards."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.metrics.exposition import Metrics
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.listener.test_http import FIGURES, REGISTRY, Figures, Request

DISK, IN_USE = "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes"
KEYS, COMPACTED = "etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_compact_revision"


def sizes(net: Net, metrics: Metrics) -> tuple[float, float]:
    found = told(net, metrics)
    return found[DISK], found[IN_USE]


def told(net: Net, metrics: Metrics) -> dict[str, float]:
    request = Request("/metrics")
    metrics.scrapes.serve(request)
    for _ in range(2):
        net.run()
        for (shard, _member), node in net.every.items():
            for asked in node.take():
                if asked.method == Method.STATUS:
                    node.ok(asked, 3, pb.StatusResponse(dbSize=100, dbSizeInUse=10).SerializeToString())
                elif asked.method == Method.COUNTERS:
                    node.ok(asked, 3, FIGURES)
                elif asked.method == Method.FACTS:
                    facts = {"shard": shard, "size_bytes": 200 * shard, "size_in_use_bytes": 20 * shard,
                             "keys": 1000 + shard, "compact_revision": 7}
                    node.ok(asked, 3, json.dumps(facts).encode())
    net.run()
    assert request.answer is not None
    return {sample.name: sample.value
            for family in text_string_to_metric_families(request.answer[1].decode())
            for sample in family.samples if sample.name in (DISK, IN_USE, KEYS, COMPACTED)}


def test_it_adds_up_all_shards_and_keeps_that_of_a_node_that_is_down() -> None:
    net = Net(shards=3).started(leader=2)
    metrics = Metrics(net.context, Figures(), REGISTRY)  # type: ignore[arg-type]
    assert sizes(net, metrics) == (700, 70)
    net.cut(1, shard=2)
    assert sizes(net, metrics) == (700, 70)


def test_the_keys_of_a_node_that_is_down_count_as_it_told_last() -> None:
    net = Net(shards=3).started(leader=2)
    metrics = Metrics(net.context, Figures(), REGISTRY)  # type: ignore[arg-type]
    net.cut(1, shard=2)
    assert KEYS not in told(net, metrics), "it has told nothing yet"
    net.every[2, 1].up = True
    net.pass_time(1.0)
    assert told(net, metrics)[KEYS] == 3003
    for shard in range(3):
        net.cut(1, shard=shard)
        found = told(net, metrics)
        assert (found[KEYS], found[COMPACTED]) == (3003, 7)


def test_a_proxy_which_has_no_nodes_tells_sizes_of_all_shards_and_nothing_else_of_them() -> None:
    net = Net(own=0, shards=3).started(leader=2)
    metrics = Metrics(net.context, Figures(), REGISTRY)  # type: ignore[arg-type]
    assert sizes(net, metrics) == (700, 70)
    found = [(sample.name, sample.value) for family in metrics.of_host(()) for sample in family.samples
             if sample.name.startswith("muster_shard_")]
    assert sorted(set(found)) == [("muster_shard_is_leader", 0), ("muster_shard_up", 0)]
