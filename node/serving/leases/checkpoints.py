"""Lease checkpoints (H7, decision 108): the sequencer logs the time left of long leases, and clears that
before it acknowledges a keep-alive. Every replica applies these records, whatever its flags are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster.effects import records
from cluster.features.lessor import Lessor

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from cluster.settings import NodeSettings
    from node.replica.writes import Writes
    from node.serving.confirm import Confirmations

_AT_ONCE = 500  # of a heartbeat's: 1 ms


class CheckpointsNode(Protocol):
    settings: NodeSettings
    lessor: Lessor
    writes: Writes
    confirmations: Confirmations

    def now_ms(self) -> int: ...

    def wake(self) -> None: ...


class LeaseCheckpoints:
    """Only shard 0's leader logs any."""

    def __init__(self, node: CheckpointsNode) -> None:
        self._node = node
        if node.settings.shard == 0:
            node.confirmations.blocked = self.clear

    def look(self) -> None:
        """Every heartbeat: log those that are due."""
        node, leader = self._node, self._node.writes.leader
        if leader is None or node.settings.shard or not node.settings.lease_checkpoint_interval_ms:
            return
        for lease, left_s in node.lessor.due_checkpoints(node.now_ms(), _AT_ONCE):
            self._log(leader, lease, left_s)

    def clear(self, lease: int) -> None:
        """A keep-alive waits: for this, unless for the end of its lease."""
        leader = self._node.writes.leader
        if leader is not None and self._node.lessor.needs_checkpoint_clear(lease):
            self._log(leader, lease, 0)

    def _log(self, leader: Leader, lease: int, left_s: int) -> None:
        if leader.view.changes_lease(lease):
            return  # it ends: what is logged behind that would be of another lease of the same ID
        leader.append(records.lease_checkpoint(lease, left_s))
        self._node.lessor.logged(lease, left_s)
        self._node.wake()
