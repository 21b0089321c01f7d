"""Truncation of the log: what the durable state covers goes, unless a replica still needs it (I17)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.pacing.pace import MAX_ENTRY_BYTES
from cluster.raft import Raft
from cluster.settings import NodeSettings
from node.upkeep.log.catching_up import CatchingUp

if TYPE_CHECKING:
    from node.storage import RaftLog, StateStore
    from node.upkeep.owner import UpkeepNode

log = structlog.get_logger("upkeep")

# Of order records kept for the own host's other nodes alone: beyond, they install. Snapshot counts; the share
# of --order-log-bytes, of which half is headroom (node.upkeep.space.disks)
_KEEP_AT_MOST = 20
_KEEP_SHARE = 8
_TRANSFER_SHARE = 3, 8  # of the same, of any leader's log, for replicas that get a state


def kept_for_transfers(settings: NodeSettings) -> int:
    """Bytes of the log that are kept at most for replicas that get a state."""
    return settings.order_log_bytes * _TRANSFER_SHARE[0] // _TRANSFER_SHARE[1]


class Truncation:
    def __init__(self, node: UpkeepNode, settings: NodeSettings, raft_log: RaftLog, store: StateStore,
                 raft: Raft, *, catching_up: CatchingUp, now_ms: Callable[[], int],
                 freed: Callable[[int], None]) -> None:
        """``freed`` gets the bytes that were dropped."""
        self._node = node
        self._log = raft_log
        self._store = store
        self._raft = raft
        self._catching_up = catching_up
        self._now_ms = now_ms
        self._freed = freed
        self._index = raft_log.snapshot_position().index
        # entries after what it returns are kept for nodes of other shards; None: there are none
        self.kept_for_others: Callable[[int], int] | None = None
        self._catchup_entries = settings.snapshot_catchup_entries
        # an entry at least: a follower that lost one frame is sent entries, no state
        self.catchup_bytes = max(settings.write_buffer_bytes // 4, MAX_ENTRY_BYTES)
        self._for_transfers = kept_for_transfers(settings)
        self._for_siblings = settings.order_log_bytes // _KEEP_SHARE
        self._entries_for_siblings = _KEEP_AT_MOST * settings.snapshot_count

    def truncate(self) -> None:
        """Drop what the durable state covers and no replica needs any more."""
        node, kept, raft = self._node, self._log, self._raft
        durable = self._store.durable_position.shard_index  # H9, I17
        caught_up = kept.index_before(self.catchup_bytes)
        index = min(durable, max(node.applied_index - self._catchup_entries, caught_up))
        slowest = self._catching_up.needed(
            kept.index_before(self._for_transfers), caught_up, raft.peers(), self._now_ms())
        if slowest is not None:
            index = min(index, slowest)
        if self.kept_for_others is not None:  # I17
            least = kept.index_before(self._for_siblings)
            index = min(index, self.kept_for_others(
                max(least, node.applied_index - self._entries_for_siblings)))
        if index > self._index:
            assert index <= durable, "I17: the log is kept from where the durable state ends"
            freed = kept.bytes_after(0) - kept.bytes_after(index)
            kept.truncate_prefix(raft.position_at(index))
            raft.compacted(index)
            self._index = index
            log.info("truncated the log", index=index, applied=node.applied_index)
            self._freed(freed)

    def installed(self, index: int) -> None:
        self._index = max(self._index, index)
