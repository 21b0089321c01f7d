"""What a host's nodes have counted is told as a sum that never falls, whichever of them starts anew."""

from __future__ import annotations

import copy
import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cluster.wire.messages import Method
from proxy.grpc.registry import Registry
from proxy.metrics.exposition import Metrics
from proxy.metrics.lives import Lives
from proxy.metrics.node_metrics import Figures, node_samples
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.listener.test_http import Figures as OfServer
from tests.unit.proxy.listener.test_http import Request

FSYNC = "etcd_disk_wal_fsync_duration_seconds"
SENT, LOST = "etcd_network_peer_sent_bytes_total", "etcd_network_disconnected_peers_total"
STATES, TOOK = "etcd_network_snapshot_send_success", "etcd_network_snapshot_send_total_duration_seconds"
TRIPS = "etcd_network_peer_round_trip_time_seconds"


def node(pid: int, count: int, *, bounds: float = 0.1) -> Figures:
    """Of a process that has counted so much of all."""
    times = {"bounds": [bounds], "counts": [count, 2 * count], "sum": count / 2}
    return {
        "pid": pid,
        "counters": {"log_written_bytes": count, "log_last_index": count},
        "histograms": {FSYNC: times},
        "peers": {"a2": {
            "active": 1, "losses": count, "sent_bytes": count, "send_failures": count,
            "received_bytes": count, "receive_failures": count, "round_trips": times,
        }},
        "snapshots": {"receive": {}, "send": {
            "a2": {"success": count, "failures": count, "inflights": 1, "took": times}}},
        "installing": 0,
    }  # fmt: skip


class Host:
    """The nodes of a host and a front that asks them."""

    def __init__(self, counts: dict[int, Figures]) -> None:
        self.lives = Lives()
        self.nodes: dict[int, Figures] = {}
        for shard, figures in counts.items():
            self.tells(shard, figures)

    def tells(self, shard: int, figures: Figures) -> None:
        self.nodes[shard] = copy.deepcopy(figures)
        self.lives.take(shard, self.nodes[shard])

    def found(self) -> dict[str, float]:
        """The sum of each series."""
        sums: dict[str, float] = {}
        for family in node_samples(self.nodes, 0xA1, self.lives.sums()):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
        return sums


def test_a_sum_goes_on_where_one_node_starts_anew() -> None:
    host = Host({0: node(1, 100), 1: node(2, 100), 2: node(3, 100)})
    before = host.found()
    host.tells(1, node(4, 0))
    after = host.found()
    counts = (
        SENT,
        LOST,
        STATES,
        f"{FSYNC}_count",
        f"{FSYNC}_sum",
        f"{TRIPS}_count",
        f"{TOOK}_count",
        "etcd_disk_wal_write_bytes_total",
    )
    assert {name: after[name] for name in counts} == {name: before[name] for name in counts}
    assert (after[SENT], after[f"{FSYNC}_count"]) == (300, 900)
    host.tells(1, node(4, 7))
    host.tells(1, node(5, 50))  # more than the former had when it was asked last
    assert (host.found()[SENT], host.found()[f"{FSYNC}_count"]) == (357, 3 * 357)
    assert host.found()["etcd_network_active_peers"] == 3
    assert host.found()["etcd_network_snapshot_send_inflights_total"] == 3
    assert host.found()["muster_node_log_written_bytes_total"] == 250, "by shard: of this process"


def test_a_lone_nodes_counts_start_at_0_as_a_whole() -> None:
    """So each front of the host tells the same, whichever of them has been asked before."""
    host = Host({0: node(1, 100)})
    host.tells(0, node(2, 5))
    assert host.found()[SENT] == 5
    host.tells(1, node(3, 10))
    assert host.found()[SENT] == 15
    host.tells(0, node(4, 0))
    assert host.found()[SENT] == 15


def test_a_link_that_ends_or_is_made_anew_takes_nothing_from_the_sum() -> None:
    host = Host({0: node(1, 100), 1: node(2, 100)})
    moved = node(1, 110)
    moved["peers"]["a2"].update(sent_bytes=3, losses=0)
    host.tells(0, moved)
    assert (host.found()[SENT], host.found()[LOST]) == (203, 200)
    gone = node(1, 120)
    del gone["peers"]["a2"]
    host.tells(0, gone)
    assert (host.found()[SENT], host.found()[f"{TRIPS}_count"]) == (203, 630)
    assert host.found()["etcd_network_active_peers"] == 1
    back = node(1, 130)
    back["peers"]["a2"].update(sent_bytes=4, losses=0)
    host.tells(0, back)
    assert (host.found()[SENT], host.found()[f"{TRIPS}_count"]) == (204, 690)


def test_a_newer_programs_buckets_start_anew() -> None:
    host = Host({0: node(1, 100), 1: node(2, 100)})
    for shard in (0, 1):
        host.tells(shard, node(3 + shard, 1, bounds=0.2))
    assert (host.found()[f"{FSYNC}_count"], host.found()[SENT]) == (6, 202)


def test_metrics_tell_sums_that_do_not_fall_and_a_proxys_are_of_the_node_that_is_asked() -> None:
    for own, expected in ((1, (20.0, 25.0)), (0, (20.0, 15.0))):
        net = Net(own=own, shards=2).started(1)
        metrics = Metrics(net.context, OfServer(), Registry())

        def scrape(*told: Figures, net: Net = net, metrics: Metrics = metrics) -> float:
            request: Any = Request("/metrics")
            metrics.scrapes.serve(request)
            for _ in range(4):
                net.run()
                for (shard, _), asked in net.every.items():
                    for question in asked.take():
                        answers = {Method.COUNTERS: told[shard], Method.FACTS: {"shard": shard}}
                        answer = answers.get(question.method)
                        asked.ok(question, 1, b"" if answer is None else json.dumps(answer).encode())
            net.run()
            assert request.answer is not None
            families = text_string_to_metric_families(request.answer[1].decode())
            return float(sum(s.value for family in families for s in family.samples if s.name == SENT))

        seen = (scrape(node(1, 10), node(2, 10)), scrape(node(1, 10), node(3, 5)))
        assert seen == expected
