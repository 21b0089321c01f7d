"""What this node has done so far, as plain counters: for /metrics, and for the guard that keeps work from
growing.

Read when a front asks (``Method.COUNTERS``); on the hot path there is an addition to an integer at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cluster.faults import faults
from cluster.histogram import CHECKPOINT_S, Histogram

if TYPE_CHECKING:
    from cluster.features.lessor import Lessor
    from cluster.machine import Syncs
    from node.links.peers import Peers
    from node.machine import NodeMachine
    from node.replica.applying import Applies
    from node.replica.clock import Clock
    from node.replica.pacing.large import LargeWrites
    from node.serving.auth.guard import Guard
    from node.serving.backups import Backups
    from node.serving.reads import Reads
    from node.serving.serve import Serve
    from node.serving.streams import Streams
    from node.storage import RaftLog, StateStore
    from node.upkeep.log.snapshots import Snapshots
    from node.upkeep.space.defragments import Defragments
    from node.upkeep.upkeep import Upkeep


class LinkedNode(Protocol):
    peers: Peers
    snapshots: Snapshots


class HoldingNode(Protocol):
    reads: Reads
    streams: Streams
    backups: Backups


class CountersNode(LinkedNode, HoldingNode, Protocol):
    machine: NodeMachine
    log: RaftLog
    store: StateStore
    syncer: Syncs
    serve: Serve
    guard: Guard
    defragments: Defragments
    applies: Applies
    clock: Clock
    large: LargeWrites
    upkeep: Upkeep
    lessor: Lessor
    applied_index: int


def figures(node: CountersNode) -> dict[str, Any]:
    """All that a front exports of this node, as JSON. ``histograms``: by etcd's names, in seconds. ``peers``:
    by member ID. ``snapshots``: between members, by direction and peer. ``installing``: whether one is being
    put in place. ``lease_ttls``: of granted leases, in seconds. ``leases_revoked``: or expired. ``v2``:
    of the v2 tree. ``auth_revision``: of users and roles. ``growth``: of its policy.
    ``compacted_versions``: removed by compactions. ``compacted_at``: when the last one ended, in Unix time.
    ``open_reads``: long ones."""
    compaction, snapshots = node.upkeep.compaction, node.snapshots
    return {
        "counters": counters(node),
        "histograms": {
            "etcd_disk_wal_fsync_duration_seconds": node.syncer.took.observed(),
            "etcd_disk_backend_commit_duration_seconds": node.store.commits.observed(),
            "etcd_server_apply_duration_seconds": node.applies.took.observed(),
            "etcd_disk_backend_defrag_duration_seconds": node.defragments.took.observed(),
            "etcd_mvcc_hash_duration_seconds": node.serve.maintenance.hashes.observed(),
            "etcd_mvcc_hash_rev_duration_seconds": node.serve.maintenance.hash_revs.observed(),
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": compaction.took.observed(),
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds": compaction.slices.observed(),
            "etcd_disk_backend_snapshot_duration_seconds": _checkpoints(node).observed(),
            "etcd_snap_db_fsync_duration_seconds": snapshots.syncs.observed(),
            "etcd_snap_db_save_total_duration_seconds": snapshots.saves.observed(),
        },
        **_between_members(node),
        "lease_ttls": node.lessor.ttls.observed(),
        "leases_revoked": node.lessor.revokes,
        "v2": node.serve.v2.tree.counted(),
        "auth_revision": node.guard.state.revision,
        "growth": node.upkeep.advising.figures(),
        "compacted_versions": node.store.compacted_versions,
        "compacted_at": compaction.ended_at,
        "open_reads": node.reads.running + node.streams.parked,
    }


def _checkpoints(node: CountersNode) -> Histogram:
    """For peers and for backups."""
    found = Histogram(CHECKPOINT_S)
    for lives in (node.snapshots.lives, node.backups.lives):
        found.add(lives.observed())
    return found


def _between_members(node: LinkedNode) -> dict[str, Any]:
    peers = node.peers
    return {
        "peers": {
            f"{member:x}": {
                "active": int(link.active()),
                "losses": link.losses,
                "sent_bytes": link.sent_bytes,
                "send_failures": link.failures,
                "received_bytes": peers.received_bytes[member],
                "receive_failures": peers.received_failures[member],
                "round_trips": peers.round_trips.took[member].observed(),
            }
            for member, link in peers.links.items()
        },
        "snapshots": node.snapshots.figures(),
        "installing": int(node.snapshots.installing),
    }


def counters(node: CountersNode) -> dict[str, int]:
    """Name: value, none of which goes down while the process lives (times in microseconds, sizes in bytes).

    ``loop_long_turns``: longer than 20 ms (``tools.muster.machine.process.turns``). ``frames_*``: of all
    ZeroMQ sockets of the process.
    """
    return {
        "syncs": node.syncer.took.count,
        "sync_us": round(node.syncer.took.sum * 1e6),
        "log_written_bytes": node.log.written_bytes,
        "log_last_index": node.log.highest_index(),
        "applied_index": node.applied_index,
        "frames_sent": node.machine.traffic.sent,
        "frames_received": node.machine.traffic.received,
        "peer_sent_bytes": node.peers.sent_bytes,
        "range_rows_read": node.store.blocks.read_rows,
        "range_rows_from_cache": node.store.blocks.taken_rows,
        "faults": faults.count,
        "slow_applies": node.applies.slow,
        "heartbeats_late": node.clock.late,
        "large_writes_held": node.large.held,
        "leases_expired": node.lessor.expiries,
        "lease_checks": node.upkeep.lease_checks.done,
        "lease_mismatches": node.upkeep.lease_checks.mismatches,
        "loop_long_turns": node.machine.turns.long,
        "loop_longest_turn_us": round(node.machine.turns.longest_s * 1e6),
        "cpu_us": round(node.machine.cpu_s() * 1e6),
    }
