"""What the nodes of this host have done (``node.upkeep.counters``), as samples of /metrics: under etcd's
names summed over the shards, and under muster's by shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cluster.histogram import Histogram

Figures = dict[str, Any]  # as ``node.upkeep.counters.figures`` makes it


def node_samples(nodes: Mapping[int, Figures], member_id: int) -> Iterator[Metric]:
    """``nodes``: by shard, those that have answered. ``member_id``: this host's."""
    if not nodes:
        return
    yield from _histograms(nodes)
    yield from _peers(nodes)
    yield from _tree(nodes)
    if 0 in nodes and "auth_revision" in nodes[0]:
        yield GaugeMetricFamily(
            "etcd_debugging_auth_revision", "The current revision of users and roles.",
            nodes[0]["auth_revision"],
        )
    yield GaugeMetricFamily(
        "etcd_disk_wal_write_bytes_total", "Bytes written to the log, over all shards of this host.",
        sum(found["counters"].get("log_written_bytes", 0) for found in nodes.values()),
    )
    for name, text, counter in _SUMS:
        yield CounterMetricFamily(
            name, text, sum(found["counters"].get(counter, 0) for found in nodes.values())
        )
    for name in next(iter(nodes.values()))["counters"]:
        family = CounterMetricFamily(
            f"muster_node_{name}", f"{name} of this host's node, by shard.", labels=["shard"]
        )
        for shard, found in nodes.items():
            family.add_metric([str(shard)], found["counters"][name])
        yield family


def _histograms(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    for name, text, labels in _HISTOGRAMS:
        total: Histogram | None = None
        for found in nodes.values():
            observed = found.get("histograms", {}).get(name)
            if observed is None:
                continue
            if total is None:
                total = Histogram(observed["bounds"])
            total.add(observed)
        if total is not None:
            family = HistogramMetricFamily(name, text, labels=list(labels))
            family.add_metric(list(labels.values()), total.buckets(), total.sum)
            yield family


def _tree(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    """Of version 2, which lies on shard 0."""
    counts = nodes[0].get("v2") if 0 in nodes else None
    if not counts:
        return
    writes = CounterMetricFamily(
        "etcd_debugging_store_writes", "Writes to the tree of version 2, by whomever.", labels=["action"])
    for action, counted in _WRITES:
        writes.add_metric([action], counts[f"{counted}Success"] + counts[f"{counted}Fail"])
    yield writes
    yield CounterMetricFamily(
        "etcd_debugging_store_expires", "Keys of version 2 whose time was over.", counts["expireCount"])


def _peers(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    for name, text, label, figure in _PEERS:
        by_member: Counter[str] = Counter()
        for found in nodes.values():
            for member, figures in found.get("peers", {}).items():
                by_member[member] += figures[figure]
        family = CounterMetricFamily(name, text, labels=[label])
        for member, value in by_member.items():
            family.add_metric([member], value)
        yield family
    trips: dict[str, Histogram] = {}
    for found in nodes.values():
        for member, figures in found.get("peers", {}).items():
            observed = figures["round_trips"]
            trips.setdefault(member, Histogram(observed["bounds"])).add(observed)
    times = HistogramMetricFamily(
        "etcd_network_peer_round_trip_time_seconds", "How long a frame takes to a peer and back.",
        labels=["To"],
    )
    for member, total in trips.items():
        times.add_metric([member], total.buckets(), total.sum)
    yield times


# name, help, its labels. An apply here is of all entries that were committed together, so etcd's ``op`` has
# one value.
_HISTOGRAMS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log, over all shards of this host.", {}),
    (
        "etcd_disk_backend_commit_duration_seconds",
        "Writes of applied batches to the state, over all shards.", {},
    ),
    (
        "etcd_server_apply_duration_seconds", "Applies of entries that were committed together.",
        {"version": "v3", "op": "Batch", "success": "true"},
    ),
    ("etcd_disk_backend_defrag_duration_seconds", "How long a defragmentation of a shard takes.", {}),
    ("etcd_mvcc_hash_duration_seconds", "How long a hash of all that is stored takes.", {}),
    ("etcd_mvcc_hash_rev_duration_seconds", "How long a hash at a revision takes.", {}),
)

# action, how /v2/stats/store calls it
_WRITES = (
    ("set", "sets"),
    ("create", "create"),
    ("update", "update"),
    ("delete", "delete"),
    ("compareAndSwap", "compareAndSwap"),
    ("compareAndDelete", "compareAndDelete"),
)

# name, help, label, figure
_PEERS = (
    ("etcd_network_peer_sent_bytes", "Bytes sent to a peer, over all shards.", "To", "sent_bytes"),
    (
        "etcd_network_peer_received_bytes", "Bytes received from a peer, over all shards.", "From",
        "received_bytes",
    ),
    ("etcd_network_peer_sent_failures", "Frames for a peer that was not there.", "To", "send_failures"),
)

# name, help, counter
_SUMS = (
    ("etcd_server_slow_apply", "Applies that took longer than --warning-apply-duration.", "slow_applies"),
    (
        "etcd_server_heartbeat_send_failures", "Heartbeats of a leader that were an interval late.",
        "heartbeats_late",
    ),
)
