"""What the nodes of this host have done (``node.upkeep.counters``), as samples of /metrics: under etcd's
names summed over the shards, under muster's by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cluster.histogram import Histogram

Figures = dict[str, Any]  # as ``node.upkeep.counters.figures`` makes it


def has_gone(node: Figures) -> None:
    """It is down, or its shard retired: nothing is under way. What it has counted stays in the sums, which
    must not go down."""
    node["installing"] = node["open_reads"] = 0
    for peer in node.get("peers", {}).values():
        peer["active"] = 0
    for peers in node.get("snapshots", {}).values():
        for peer in peers.values():
            peer["inflights"] = 0
    if growth := node.get("growth"):
        growth.update(advice="", held=0, stopped=0, failed=0)


def node_samples(nodes: Mapping[int, Figures], member_id: int) -> Iterator[Metric]:
    """``nodes``: by shard, those that have answered. ``member_id``: this host's."""
    if not nodes:
        return
    yield from _histograms(nodes)
    yield from _peers(nodes)
    yield from _links(nodes, f"{member_id:x}")
    yield from _snapshots(nodes)
    yield from _tree(nodes)
    yield from _compactions(nodes)
    yield from _growth(nodes.get(0, {}).get("growth"))
    first = nodes.get(0, {})
    if "lease_ttls" in first:  # every node knows all leases
        ttls = Histogram(first["lease_ttls"]["bounds"])
        ttls.add(first["lease_ttls"])
        yield HistogramMetricFamily(
            "etcd_debugging_lease_ttl_total", "TTLs of leases that were granted, in seconds.",
            buckets=ttls.buckets(), sum_value=ttls.sum)
        yield CounterMetricFamily("etcd_debugging_lease_granted", "Leases granted.", ttls.count)
        revoked = first.get("leases_revoked", 0)
        yield CounterMetricFamily("etcd_debugging_lease_revoked", "Leases revoked.", revoked)
    if "auth_revision" in first:
        text = "Revision of users and roles."
        yield GaugeMetricFamily("etcd_debugging_auth_revision", text, first["auth_revision"])
    text = "States of other members that are being installed, over all shards."
    installing = sum(found.get("installing", 0) for found in nodes.values())
    yield GaugeMetricFamily("etcd_server_snapshot_apply_in_progress_total", text, installing)
    open_reads = sum(found.get("open_reads", 0) for found in nodes.values())
    yield GaugeMetricFamily("etcd_mvcc_db_open_read_transactions", "Long reads under way.", open_reads)
    for kind, name, text, counter in _SUMS:
        yield kind(name, text, sum(found["counters"].get(counter, 0) for found in nodes.values()))
    for name in next(iter(nodes.values()))["counters"]:
        text = OF_NODES.get(name, f"{name} of this host's node.")
        family = CounterMetricFamily(f"muster_node_{name}", text, labels=["shard"])
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
    counts = nodes[0].get("v2") if 0 in nodes else None
    if not counts:
        return
    text = "Writes to the v2 tree by clients of any host."
    writes = CounterMetricFamily("etcd_debugging_store_writes", text, labels=["action"])
    for action in _ACTIONS:
        counted = _WRITES.get(action, action)
        writes.add_metric([action], counts[f"{counted}Success"] + counts[f"{counted}Fail"])
    yield writes
    yield CounterMetricFamily("etcd_debugging_store_expires", "v2 keys that expired.", counts["expireCount"])


def _compactions(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    removed = sum(found.get("compacted_versions", 0) for found in nodes.values())
    yield CounterMetricFamily(
        "etcd_debugging_mvcc_db_compaction_keys", "Compacted versions.", removed)
    last = max(found.get("compacted_at", 0) for found in nodes.values())
    text = "Unix time of the last compaction."
    yield GaugeMetricFamily("etcd_debugging_mvcc_db_compaction_last", text, last)


def _growth(found: Figures | None) -> Iterator[Metric]:
    """Of the policy of growth: gauges where shard 0's leader is, counters since its process began."""
    if not found or found["mode"] == "off":
        return
    text = "What growth advises, at shard 0's leader."
    advice = GaugeMetricFamily("muster_growth_advice", text, labels=["action"])
    for action in ("add", "move", "retire", "say"):
        advice.add_metric([action], int(found["advice"] == action))
    yield advice
    for name, figure, text in (
        ("held", "held", "Reasons not to act now."),
        ("stopped", "stopped", "Whether it stopped acting after wrong forecasts."),
        ("failed", "failed", "Whether a bug ended it."),
    ):
        yield GaugeMetricFamily(f"muster_growth_{name}", text, found[figure])
    begun = CounterMetricFamily("muster_growth_actions", "Actions begun.", labels=["action"])
    for action, count in found["begun"].items():
        begun.add_metric([action], count)
    text = "Actions by outcome: right, wrong or unknown."
    came = CounterMetricFamily("muster_growth_outcomes", text, labels=["came"])
    for outcome, count in found["came"].items():
        came.add_metric([outcome], count)
    yield from (begun, came)


def _peers(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    peers = [found.get("peers", {}) for found in nodes.values()]
    for name, text, label, figure in _PEERS:
        family = CounterMetricFamily(name, text, labels=[label])
        yield _by_member(family, (), peers, figure)
    yield _times(
        "etcd_network_peer_round_trip_time_seconds", "How long a frame takes to a peer and back.", "To",
        peers, "round_trips")


def _links(nodes: Mapping[int, Figures], own: str) -> Iterator[Metric]:
    peers = [found.get("peers", {}) for found in nodes.values()]
    labels = ["Local", "Remote"]
    text = "Links to a peer that are up: one for each shard."
    active = GaugeMetricFamily("etcd_network_active_peers", text, labels=labels)
    yield _by_member(active, (own,), peers, "active")
    text = "Links to a peer that were lost, over all shards."
    lost = CounterMetricFamily("etcd_network_disconnected_peers", text, labels=labels)
    yield _by_member(lost, (own,), peers, "losses")


def _snapshots(nodes: Mapping[int, Figures]) -> Iterator[Metric]:
    """Exported once there was one, as by an etcd."""
    ways = (("send", "To", "States sent to a peer"), ("receive", "From", "States of a peer"))
    for way, label, text in ways:
        found = [node.get("snapshots", {}).get(way, {}) for node in nodes.values()]
        if not any(found):
            continue
        # counters without _total in etcd, which the library would add
        for name, figure, which in (
            ("success", "success", "installed"), ("failures", "failures", "that failed"),
            ("inflights_total", "inflights", "on their way"),
        ):
            name = f"etcd_network_snapshot_{way}_{name}"
            yield _by_member(
                GaugeMetricFamily(name, f"{text}, {which}.", labels=[label]), (), found, figure)
        name = f"etcd_network_snapshot_{way}_total_duration_seconds"
        yield _times(name, f"{text}: until they were installed.", label, found, "took")


def _by_member(family: GaugeMetricFamily | CounterMetricFamily, labels: tuple[str, ...],
               shards: Iterable[Mapping[str, Figures]], figure: str) -> Metric:
    """Sums over the peers of each shard, which are by member ID."""
    sums: Counter[str] = Counter()
    for peers in shards:
        for member, figures in peers.items():
            sums[member] += figures[figure]
    for member, value in sums.items():
        family.add_metric([*labels, member], value)
    return family


def _times(name: str, text: str, label: str, shards: Iterable[Mapping[str, Figures]],
           figure: str) -> HistogramMetricFamily:
    by_member: dict[str, Histogram] = {}
    for peers in shards:
        for member, figures in peers.items():
            observed = figures[figure]
            by_member.setdefault(member, Histogram(observed["bounds"])).add(observed)
    family = HistogramMetricFamily(name, text, labels=[label])
    for member, total in by_member.items():
        family.add_metric([member], total.buckets(), total.sum)
    return family


# name, help, labels. An apply is of all entries that were committed together: etcd's ``op`` has one value.
_HISTOGRAMS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log, over all shards of this host.", {}),
    ("etcd_disk_backend_commit_duration_seconds",
     "Writes of applied batches to the state, over all shards.", {}),
    ("etcd_server_apply_duration_seconds", "Applies of entries that were committed together.",
     {"version": "v3", "op": "Batch", "success": "true"}),
    ("etcd_disk_backend_defrag_duration_seconds", "Defragmentations of a shard.", {}),
    ("etcd_mvcc_hash_duration_seconds", "Hashes of all that is stored.", {}),
    ("etcd_mvcc_hash_rev_duration_seconds", "Hashes at a revision.", {}),
    ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Compactions of shards.", {}),
    ("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Slices of compactions.", {}),
    ("etcd_disk_backend_snapshot_duration_seconds", "Lives of checkpoints for peers and backups.", {}),
    ("etcd_snap_db_fsync_duration_seconds", "Syncs of a peer's state.", {}),
    ("etcd_snap_db_save_total_duration_seconds", "States of peers, until synced.", {}),
)

# the action in /v2/stats/store, where it differs
_WRITES = {"set": "sets"}
_ACTIONS = ("set", "create", "update", "delete", "compareAndSwap", "compareAndDelete")

# name, help, label, figure
_PEERS = (
    ("etcd_network_peer_sent_bytes", "Bytes sent to a peer, over all shards.", "To", "sent_bytes"),
    ("etcd_network_peer_received_bytes", "Bytes received from a peer, over all shards.", "From",
     "received_bytes"),
    ("etcd_network_peer_sent_failures", "Frames for a peer that was not there.", "To", "send_failures"),
    ("etcd_network_peer_received_failures",
     "Frames of a peer that could not be read, and hellos that were refused.", "From", "receive_failures"),
)

# type, name, help, counter
_SUMS: tuple[tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, str, str], ...] = (
    (GaugeMetricFamily, "etcd_disk_wal_write_bytes_total",
     "Bytes written to the log, over all shards of this host.", "log_written_bytes"),
    (CounterMetricFamily, "etcd_server_slow_apply",
     "Applies that took longer than --warning-apply-duration.", "slow_applies"),
    (CounterMetricFamily, "etcd_server_heartbeat_send_failures",
     "Heartbeats of a leader that were an interval late.", "heartbeats_late"),
    (CounterMetricFamily, "etcd_debugging_server_lease_expired",
     "Leases that this host ended when they were due.", "leases_expired"),
)

# a counter of ``node.upkeep.counters``, its help
OF_NODES = {
    "syncs": "Syncs of the log.",
    "sync_us": "Time that syncs of the log took, in microseconds.",
    "log_written_bytes": "Bytes written to the log.",
    "log_last_index": "Highest index that the log had.",
    "applied_index": "Index of the last applied entry.",
    "frames_sent": "Frames sent to peers, fronts and sibling nodes.",
    "frames_received": "Frames received from peers, fronts and sibling nodes.",
    "peer_sent_bytes": "Bytes sent to peers.",
    "range_rows_read": "Rows that ranges read.",
    "range_rows_from_cache": "Rows that ranges took from --range-cache-bytes.",
    "faults": "Requests that hit a bug of muster.",
    "slow_applies": "Applies that took longer than --warning-apply-duration.",
    "heartbeats_late": "Heartbeats that a leader sent an interval late.",
    "large_writes_held": "Large writes that a leader held back while other clients sent requests.",
    "leases_expired": "Leases that this node ended when they were due.",
    "lease_checks": "Completed checks of keys against leases.",
    "lease_mismatches": "Keys and leases that disagreed in such a check.",
    "loop_long_turns": "Turns of the event loop of more than 20 ms.",
    "loop_longest_turn_us": "The longest turn of the event loop, in microseconds.",
    "cpu_us": "CPU time of the process, in microseconds.",
}
