"""What the nodes of a host have counted is told for the host."""

from __future__ import annotations

from typing import Any

from proxy.metrics.node_metrics import has_gone, node_samples


def node(active: int, losses: int, sent: dict[str, int], took: list[int]) -> dict[str, Any]:
    """A node's figures. ``sent``: transfers that are done, by peer; ``took``: of each, in two buckets."""
    times = {"bounds": [0.1], "counts": took, "sum": 0.5}
    return {
        "counters": {"leases_expired": 1},
        "peers": {"a2": {
            "active": active, "losses": losses, "sent_bytes": 0, "send_failures": 0, "received_bytes": 0,
            "receive_failures": 2, "round_trips": {"bounds": [0.1], "counts": [0, 0], "sum": 0.0},
        }},
        "snapshots": {"receive": {}, "send": {
            peer: {"success": done, "failures": 0, "inflights": 1, "took": times}
            for peer, done in sent.items()
        }},
        "installing": 1,
        "lease_ttls": {"bounds": [2.0], "counts": [3, 0], "sum": 6.0},
        "leases_revoked": 2,
        "compacted_versions": 10 * losses,
        "compacted_at": 1_800_000_000 + losses,
        "open_reads": losses,
    }  # fmt: skip


def test_figures_of_all_shards_are_summed_and_a_lease_counts_once() -> None:
    shards = {0: node(1, 4, {"a2": 1}, [1, 0]), 1: node(0, 1, {"a2": 2, "a3": 5}, [2, 5])}
    found = {
        (s.name, *(v for _, v in sorted(s.labels.items()))): s.value
        for family in node_samples(shards, 0xA1) for s in family.samples
    }
    assert found["etcd_network_active_peers", "a1", "a2"] == 1
    assert found["etcd_network_disconnected_peers_total", "a1", "a2"] == 5
    assert found["etcd_network_peer_received_failures_total", "a2"] == 4
    assert found["etcd_network_snapshot_send_success", "a2"] == 3
    assert found["etcd_network_snapshot_send_success", "a3"] == 5
    assert found["etcd_network_snapshot_send_inflights_total", "a2"] == 2
    assert found["etcd_network_snapshot_send_total_duration_seconds_count", "a2"] == 8
    assert found["etcd_server_snapshot_apply_in_progress_total",] == 2
    assert found["etcd_debugging_server_lease_expired_total",] == 2, "one that is due has one who ends it"
    assert found["etcd_debugging_lease_ttl_total_count",] == 3, "every node hears of each grant"
    assert found["etcd_debugging_lease_granted_total",] == 3
    assert found["etcd_debugging_lease_revoked_total",] == 2
    assert found["etcd_debugging_mvcc_db_compaction_keys_total",] == 50
    assert found["etcd_debugging_mvcc_db_compaction_last",] == 1_800_000_004, "the newest of all shards'"
    assert found["etcd_mvcc_db_open_read_transactions",] == 5


def test_figures_that_an_older_node_does_not_have_fail_no_scrape() -> None:
    figures = node(1, 4, {}, [])
    for name in (
        "leases_revoked", "lease_ttls", "installing", "snapshots", "compacted_versions", "compacted_at",
        "open_reads",
    ):
        del figures[name]
        assert list(node_samples({0: figures}, 1))


def test_a_node_that_is_gone_has_no_read_under_way_and_has_compacted() -> None:
    figures = node(1, 4, {}, [])
    has_gone(figures)
    found = {s.name: s.value for family in node_samples({0: figures}, 1) for s in family.samples}
    assert found["etcd_mvcc_db_open_read_transactions"] == 0
    assert found["etcd_debugging_mvcc_db_compaction_keys_total"] == 40


def test_what_node_0_advised_is_gone_with_it() -> None:
    figures = node(1, 4, {}, [])
    figures["growth"] = {
        "mode": "advise", "advice": "move", "held": 2, "stopped": 1, "failed": 0, "begun": {"move": 3},
        "came": {}}
    has_gone(figures)
    found = {
        (s.name, *s.labels.values()): s.value
        for family in node_samples({0: figures}, 1) for s in family.samples if "growth" in s.name
    }
    assert {name: value for name, value in found.items() if value} == {
        ("muster_growth_actions_total", "move"): 3}


def test_nothing_is_told_of_transfers_before_the_first() -> None:
    names = {s.name for family in node_samples({0: node(1, 0, {}, [])}, 1) for s in family.samples}
    assert "etcd_network_active_peers" in names
    assert not [name for name in names if "etcd_network_snapshot" in name]
