"""What the nodes of this host have done (``node.upkeep.counters``), as samples of /metrics: under etcd's
names summed over the shards, and under muster's by shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
    yield from _links(nodes, f"{member_id:x}")
    yield from _snapshots(nodes)
    yield from _tree(nodes)
    if 0 in nodes and "lease_ttls" in nodes[0]:  # all nodes hear of each lease
        ttls = Histogram(nodes[0]["lease_ttls"]["bounds"])
        ttls.add(nodes[0]["lease_ttls"])
        yield HistogramMetricFamily(
            "etcd_debugging_lease_ttl_total", "TTLs of leases that were granted, in seconds.",
            buckets=ttls.buckets(), sum_value=ttls.sum,
        )
    if 0 in nodes and "auth_revision" in nodes[0]:
        yield GaugeMetricFamily(
            "etcd_debugging_auth_revision", "The current revision of users and roles.",
            nodes[0]["auth_revision"],
        )
    yield GaugeMetricFamily(
        "etcd_disk_wal_write_bytes_total", "Bytes written to the log, over all shards of this host.",
        sum(found["counters"].get("log_written_bytes", 0) for found in nodes.values()),
    )
    yield GaugeMetricFamily(
        "etcd_server_snapshot_apply_in_progress_total",
        "States of other members that are checked, synced and put in place just now, over all shards.",
        sum(found.get("installing", 0) for found in nodes.values()),
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
    peers = [found.get("peers", {}) for found in nodes.values()]
    for name, text, label, figure in _PEERS:
        family = CounterMetricFamily(name, text, labels=[label])
        for member, value in _summed(peers, figure).items():
            family.add_metric([member], value)
        yield family
    yield _times(
        "etcd_network_peer_round_trip_time_seconds", "How long a frame takes to a peer and back.", "To",
        peers, "round_trips",
    )


def _links(nodes: Mapping[int, Figures], own: str) -> Iterator[Metric]:
    peers = [found.get("peers", {}) for found in nodes.values()]
    labels = ["Local", "Remote"]
    families: tuple[tuple[GaugeMetricFamily | CounterMetricFamily, str], ...] = (
        (GaugeMetricFamily(
            "etcd_network_active_peers",
            "Links to a peer that stand and are not refused: one of each shard.", labels=labels,
        ), "active"),
        (CounterMetricFamily(
            "etcd_network_disconnected_peers", "Links to a peer that were lost, over all shards.",
            labels=labels,
        ), "losses"),
    )
    for family, figure in families:
        for member, value in _summed(peers, figure).items():
            family.add_metric([own, member], value)
        yield family


def _snapshots(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    """Once there was one, as by an etcd."""
    for way, label, text in (
        ("send", "To", "States sent to a peer"), ("receive", "From", "States of a peer"),
    ):
        found = [node.get("snapshots", {}).get(way, {}) for node in nodes.values()]
        if not any(found):
            continue
        # counters that etcd names without _total, which the library would add to a counter
        for name, figure, which in (
            ("success", "success", "installed"), ("failures", "failures", "in vain"),
            ("inflights_total", "inflights", "on their way"),
        ):
            family = GaugeMetricFamily(
                f"etcd_network_snapshot_{way}_{name}", f"{text}, {which}.", labels=[label])
            for member, value in _summed(found, figure).items():
                family.add_metric([member], value)
            yield family
        yield _times(
            f"etcd_network_snapshot_{way}_total_duration_seconds", f"{text}: until they were installed.",
            label, found, "took",
        )


def _summed(shards: Iterable[Mapping[str, Figures]], figure: str) -> Counter[str]:
    """``shards``: the peers of each, by member ID."""
    by_member: Counter[str] = Counter()
    for peers in shards:
        for member, figures in peers.items():
            by_member[member] += figures[figure]
    return by_member


def _times(
    name: str, text: str, label: str, shards: Iterable[Mapping[str, Figures]], figure: str
) -> HistogramMetricFamily:
    by_member: dict[str, Histogram] = {}
    for peers in shards:
        for member, figures in peers.items():
            observed = figures[figure]
            by_member.setdefault(member, Histogram(observed["bounds"])).add(observed)
    family = HistogramMetricFamily(name, text, labels=[label])
    for member, total in by_member.items():
        family.add_metric([member], total.buckets(), total.sum)
    return family


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
    (
        "etcd_network_peer_received_failures",
        "Frames of a peer that could not be read, and hellos that were refused.", "From", "receive_failures",
    ),
)

# name, help, counter
_SUMS = (
    ("etcd_server_slow_apply", "Applies that took longer than --warning-apply-duration.", "slow_applies"),
    (
        "etcd_server_heartbeat_send_failures", "Heartbeats of a leader that were an interval late.",
        "heartbeats_late",
    ),
    ("etcd_debugging_server_lease_expired", "Leases that this host ended when they were due.",
     "leases_expired"),
)
