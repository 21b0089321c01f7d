"""The moving parts of a node 0: as the sequencer's node, as a source, and as a target."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.effects.newer import NewerRecord
from cluster.errors import EtcdError
from cluster.features.moves import CANCEL, cancel_body
from cluster.order.moving.mover import Copied
from cluster.order.prepare import Base
from cluster.order.sound import Place, sound
from cluster.placement import Table
from cluster.placement.changes import dropped_in
from cluster.raft import EntryKind, Role
from cluster.repeats import Repeats
from cluster.wire.frames import ORDER_INDEX, STATE_WANTED
from cluster.wire.messages import Method
from node.links.siblings import NodeLinks
from node.replica.moving.copying import Copying, CopyingNode
from node.replica.moving.leaving import SHARD, Leaving
from node.replica.moving.sequencing import Moves, SequencingRole
from node.replica.moving.sources import Sources

if TYPE_CHECKING:
    from node.links.peers import Peers
    from node.replica.pacing.pauses import GatheringTimer
    from node.replica.roles.role import Kinds
    from node.upkeep.log.snapshots import Snapshots

log = structlog.get_logger("move")

_LOOK_ENTRIES, _LOOK_BYTES = 4096, 2 << 20  # a turn's


class OrderMovesNode(CopyingNode, Protocol):
    peers: Peers
    snapshots: Snapshots
    gathering: GatheringTimer
    applied_index: int

    def now_ms(self) -> int: ...


class OrderMovesRole(SequencingRole, Protocol):
    @property
    def links(self) -> NodeLinks: ...


class OrderMoves(Moves):
    def __init__(self, role: OrderMovesRole, node: OrderMovesNode, kinds: Kinds) -> None:
        super().__init__(role, kinds.mover, node.now_ms, node.settings.common.election_timeout_ms)
        self._node = node
        self.links = role.links
        moved = kinds.moved(node.store)
        self.copying = Copying(node, self, moved, Sources(node, moved), lambda: node.roster.others)
        self.leaving = Leaving(
            node, role.links, moved, lambda: node.raft.configuration.voters, self._dropping)
        self._drops: set[int] = set()  # shards whose drop is committed
        self._looked_at = 0  # the record up to which
        self.lacks = self.copying.lacks
        self._late = Repeats()
        self._handed = 0  # how often this node has given its leadership away for want of a copy
        node.clock.each_second(self.leaving.second)
        node.clock.each_second(self.leaving.release)
        node.clock.each_second(self.second)
        node.frames[STATE_WANTED[0]] = self._state_wanted
        node.handlers[Method.COPIED] = lambda link, rid, timeout_ms, body: self._said(
            link.member_id, Copied.decode(body))

    def second(self) -> None:
        """Every second. Where data is refused, a move whose copy finds no room is cancelled: what the copy
        has taken is the clients' then."""
        node, mover, leader = self._node, self.mover, self._role.writes.leader
        if mover is None or leader is None or not node.raft.takes_proposals:  # I23
            return
        if mover.late(node.now_ms()) and self._late.news("", node.now_ms() / 1000):
            facts = mover.facts()
            log.info("a move waits for the copies of hosts", move=facts["move"], hosts=facts["waits_for"],
                     without_room=facts["without_room"])
        if not node.upkeep.quota.closed or not (number := mover.starves(node.now_ms())):
            return
        with suppress(EtcdError):  # then the next second
            leader.execute(Method.SHARD_CHANGE, bytes((CANCEL,)) + cancel_body(number))
            log.warning("a move is cancelled: data is refused, and its copy finds no room", move=number)
            node.wake()

    def follow(self, table: Table) -> None:
        """A table is applied here."""
        self.placed()
        self.copying.placed(table)

    def replaced(self) -> None:
        """Another state was installed."""
        self.copying.replaced()
        self.leaving.replaced()

    def close(self) -> None:
        self.copying.close()
        self.leaving.close()

    # -- as a source

    def _dropping(self) -> Collection[int]:
        """Shards that committed records drop behind a switch that waits for its copy: some more in each
        look, for there may be many."""
        raft = self._node.raft
        first = max(self._looked_at, self._node.applied_index) + 1
        if self.copying.waits and first <= raft.commit_index:
            last = min(raft.commit_index, first + _LOOK_ENTRIES)
            for entry in raft.log_entries(first, last, _LOOK_BYTES):
                self._looked_at = entry.index
                if entry.kind == EntryKind.RECORD and SHARD in entry.data:
                    try:
                        self._drops.update(dropped_in(sound(entry.data, Place.ORDER)))
                    except NewerRecord:  # which ends the process where it is applied
                        break
        return self._drops

    # -- as a target

    def copied(self, base: Base) -> bool:
        return self.copying.copied(base)

    def countable(self) -> bool:
        return self._node.store.counts.ready

    def copy_grew(self) -> None:
        if self._node.applied_index < self._node.raft.commit_index:
            self._node.gathering.later()
        self._node.wake()

    def report_copied(self, copied: Copied) -> None:
        raft = self._node.raft
        if raft.leader_id == raft.id:
            self._said(raft.id, copied)
        elif raft.leader_id and (link := self.links.find(raft.leader_id, 0)) is not None:
            link.request(Method.COPIED, copied.encode())
            self.links.flush()

    def _said(self, host: int, copied: Copied) -> None:
        self.heard(host, copied)
        self._node.wake()

    def ask_for_state(self) -> None:
        raft = self._node.raft
        if raft.role is Role.LEADER:  # no peer sends it a state: what it waits for may be at the next leader
            if heirs := self._node.upkeep.succession.successors():
                peers = raft.peers()
                ready = [heir for heir in heirs if peers[heir].match == raft.last_index] or heirs[:1]
                raft.transfer_leadership(ready[self._handed % len(ready)])  # the first one may wait as well
                self._handed += 1
        elif raft.leader_id:
            self._node.peers.send(raft.leader_id, STATE_WANTED, ORDER_INDEX.pack(self._node.applied_index))

    def _state_wanted(self, member_id: int, data: bytes) -> None:
        if len(data) == ORDER_INDEX.size and ORDER_INDEX.unpack(data)[0] < self._node.applied_index:
            self._node.snapshots.send_to(member_id, 0)

    def promises(self, move: int) -> bool:
        """Shard 0's leader grants itself nothing: its own copy is looked at where the switch is logged."""
        return False
