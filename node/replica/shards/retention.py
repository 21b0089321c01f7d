"""How much of the order log a node 0 keeps for nodes of other hosts, and what node 0s tell each other of that
(``node.upkeep.log.floors``)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.wire.frames import HIGHEST
from node.any_node import AnyNode
from node.upkeep.log.floors import FRAME, REPEAT_S, Floors

if TYPE_CHECKING:

    from cluster.placement import Placement
    from node.links.peers import Peers
    from node.members.roster import Roster
    from node.upkeep.space.keeping import Keeping
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("sequencer")

_SHORT_S = 60.0  # between two warnings that records are kept beyond the bound


class RetentionNode(AnyNode, Protocol):
    roster: Roster
    peers: Peers
    upkeep: Upkeep
    applied_index: int


class Retention:
    def __init__(
        self, node: RetentionNode, floors: Floors, keeping: Keeping, placement: Placement
    ) -> None:
        self._node = node
        self._floors = floors
        self._keeping = keeping
        self._placement = placement
        self._least = 0  # usually the order log is kept behind this record
        self._told = (b"", 0.0)  # to other node 0s: this host's floors, and when
        self._short_since: float | None = None  # records are kept beyond the bound, for other hosts (I17)

    def kept_for_others(self, least: int) -> int:
        """The log entry after which all are kept for nodes of other shards; those up to
        ``least`` only where a majority lacks them (I17)."""
        voters, now = self._node.raft.configuration.voters, self._node.loop.time()
        self._least = least
        kept_after = self._floors.kept_after(least, voters)
        if kept_after >= least:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        elif now - self._short_since >= _SHORT_S:
            self._short_since = now
            log.warning(
                "the order log grows: a majority of a shard's replicas is down or far behind",
                shard=self._floors.of_majority(voters)[1], records=self._node.applied_index - kept_after)
        return kept_after

    def covers(self, voters: Collection[int], last: int) -> bool:
        """Whether a majority of these hosts has durably applied the order up to this record, everywhere."""
        floors = self._floors
        if self._note_own() and floors.durable(0, voters) < last:
            return False
        return floors.on_disk(voters) >= last

    def _note_own(self) -> bool:
        """Note what shard 0 has here on disk, if keys have moved; whether they have. Who has shard 0's log
        may lack what moved there: it is in no log (G5)."""
        if not self._placement.table.last_move:
            return False
        self._node.upkeep.flushes_for_changes = True
        self._floors.own_is(0, self._node.store.durable_position.order_index)
        return True

    def came(self, member_id: int, data: bytes) -> None:
        """Another node 0 tells what its host's nodes have on disk. ValueError."""
        self._floors.came(member_id, data)
        if self._node.roster.votes_change:
            self._node.roster.changes.look()

    def acknowledged(self) -> None:
        """A fed node told how far it is: a change of members waits for what is on disk (I17)."""
        if self._node.roster.votes_change:
            self.tell()
            self._node.roster.changes.look()

    def heartbeat(self) -> None:
        """Each heartbeat: keep files of what the log drops, and tell the other node 0s."""
        self._keeping.look(self._least, self._node.raft.configuration.voters)
        self.tell()

    def tell(self) -> None:
        self._note_own()
        node, said, now = self._node, self._floors.encode(HIGHEST), self._node.loop.time()
        if said != self._told[0] or now - self._told[1] >= REPEAT_S:
            self._told = said, now
            # A host that is to go may lead, and waits for this.
            told = {*node.roster.others, *node.raft.configuration.members()} - {node.raft.id}
            for member_id in sorted(told):
                version = node.peers.versions.get(member_id, 0)
                node.peers.send(member_id, FRAME, self._floors.encode(version))
