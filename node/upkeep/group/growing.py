"""What this host's program speaks, said in the order; and the level to which the cluster's data has grown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.effects.newer import NewerRecord
from cluster.evaluate.replica import Told
from cluster.features import growth
from cluster.features.births import Facts
from cluster.features.moves import Room
from cluster.features.rows import RowsOf
from cluster.machine import StatusSink
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.frames import GROWTH_SINCE, HIGHEST, LOWEST, ROWS_SINCE, PeerKind

if TYPE_CHECKING:
    from node.storage import Applied, StateStore
    from node.upkeep.owner import UpkeepNode

log = structlog.get_logger("growth")


class Growing:
    """Of each node. Those of shard 0 say and log what hosts speak; all refuse links of before growth."""

    def __init__(
        self, node: UpkeepNode, settings: NodeSettings, store: StateStore, raft: Raft, status: StatusSink,
        room: Callable[[], Room] = Room,
    ) -> None:
        self._node = node
        self._shard = settings.shard
        self._own_id = settings.common.member_id
        self._layout = settings.common.shard_count, settings.common.placement_depth
        self._store = store
        self._raft = raft
        self._status = status
        self.room = room
        self.growth = store.growth()

    # -- what hosts speak

    def say(self) -> None:
        """Have the leader log what this program speaks; repeated until it is applied here.

        A host that has not taken the layout says nothing. It may have nodes to empty, whose numbers shards
        get that are born (H10)."""
        if self._shard or self.growth.spoken.get(self._own_id) == growth.OWN:
            return
        if (self._store.bootstrap() or ())[1:] != self._layout:
            return
        node, leader_id = self._node, self._raft.leader_id
        if node.writes.leader is not None:
            self._log(self._own_id, growth.OWN)
        elif leader_id and node.peers.versions.get(leader_id, LOWEST) >= GROWTH_SINCE:
            node.peers.send(leader_id, PeerKind.SPEAKS.byte, growth.OWN.encode())

    def asked(self, member_id: int, data: bytes) -> None:
        """A host asks the leader to log what it speaks. ValueError: it makes no sense."""
        self._log(member_id, growth.Spoken.decode(data))

    def _log(self, member_id: int, spoken: growth.Spoken) -> None:
        leader = self._node.writes.leader
        if leader is not None and self._all_keep_rows(leader.told.growth):
            leader.append_spoken(member_id, spoken)

    def _all_keep_rows(self, told: growth.Growth) -> bool:
        """Whether no member is so old that rows of a feature which it does not know would end it."""
        versions = self._node.peers.versions
        return all(member_id in told.spoken or versions.get(member_id, LOWEST) >= ROWS_SINCE
                   for member_id in self._node.roster.others)

    # -- the level

    def told(self) -> Told:
        """What a leader judges growth by."""
        return Told(
            self.growth, self._node.roster.table.hosts, self._linked, self._store.placement, self._facts,
            self.room)

    def _facts(self) -> Facts:
        return Facts(self._linked(), self._node.roster.changes.settled, self._raft.configuration.voters)

    def _linked(self) -> dict[int, int]:
        return {**self._node.peers.linked(), self._own_id: HIGHEST}

    def applied(self, applied: Applied) -> None:
        """Rows or items of a run, in their order."""
        rows, taken = applied.rows.get(RowsOf.VERSIONS, []), 0
        for level, members, before in applied.grown:
            self.growth.take(rows[taken:before])
            taken = before
            self.growth.grow(level, members)
        self.growth.take(rows[taken:])
        if applied.grown:
            log.info("the cluster's data has grown", shard=self._shard, growth=self.growth.level)
            self.look()

    def replaced(self) -> None:
        """Another state was installed."""
        self.growth = self._store.growth()
        self.look()

    def look(self) -> None:
        """Follow the level that is applied, at a start too: links of before growth are refused."""
        level = self.growth.level
        if level > growth.LEVEL:
            self._node.fail(str(NewerRecord.level(level, growth.LEVEL)))
        elif level:
            self._node.peers.refuse_below(GROWTH_SINCE)
            self._node.fronts.refuse_below(GROWTH_SINCE)
            self._status.say("grown", level=level)  # for the host's identity: older programs refuse it

    def facts(self) -> dict[str, object]:
        """For ``node.upkeep.facts``: the level of the data, the highest that this program knows, and the
        members that have not said that they know that."""
        members = [host.member_id for host in self._node.roster.table.members]
        lacking = self.growth.lacking(growth.LEVEL, members)
        return {"growth": self.growth.level, "growth_known": growth.LEVEL,
                "growth_lacking": [f"{member_id:x}" for member_id in lacking]}
