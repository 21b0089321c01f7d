"""What this node has done so far, as plain counters: for /metrics, and for the guard that keeps work from growing.

Read when a front asks (``Method.COUNTERS``); on the hot path there is an addition to an integer at most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.faults import faults
from node.sockets import traffic
from process.turns import turns

if TYPE_CHECKING:
    from node.server import Node


def counters(node: Node) -> dict[str, int]:
    """Name: value, none of which goes down while the process lives (times in microseconds, sizes in bytes).

    ``loop_long_turns``: that took longer than 20 ms (``process.turns``). ``frames_*`` are of all ZeroMQ sockets of the process: to peers, to fronts and to sibling nodes.
    """
    return {
        "syncs": node.syncer.count,
        "sync_us": round(node.syncer.total_s * 1e6),
        "log_written_bytes": node.log.written_bytes,
        "log_last_index": node.log.last_index(),
        "applied_index": node.applied_index,
        "frames_sent": traffic.sent,
        "frames_received": traffic.received,
        "peer_sent_bytes": sum(link.sent_bytes for link in node.peers.links.values()),
        "range_rows_read": node.store.blocks.read_rows,
        "range_rows_from_cache": node.store.blocks.taken_rows,
        "faults": faults.count,
        "lease_checks": node.upkeep.lease_checks.done,
        "lease_mismatches": node.upkeep.lease_checks.mismatches,
        "loop_long_turns": turns.long,
        "loop_longest_turn_us": round(turns.longest_s * 1e6),
        "cpu_us": time.process_time_ns() // 1000,
    }
