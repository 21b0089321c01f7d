"""What follows in a node when entries are applied, a snapshot is installed, or leadership changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.effects import records
from cluster.features.lessor import Lessor
from cluster.raft import Role
from cluster.version import CLUSTER_VERSION
from node.any_node import AnyNode

if TYPE_CHECKING:

    from node.links.fronts import Fronts
    from node.links.standing import Standing
    from node.members.roster import Roster
    from node.replica.applying import Applies
    from node.replica.pacing.pauses import GatheringTimer
    from node.replica.roles.role import Role as NodeRole
    from node.replica.writes import Writes
    from node.serving.confirm import Confirmations
    from node.serving.reads import Reads
    from node.serving.serve import Serve
    from node.serving.watch.watches import WatchSource
    from node.storage import Applied
    from node.upkeep.expiry import Expiry
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("node")


class LeadingNode(AnyNode, Protocol):
    writes: Writes
    lessor: Lessor
    confirmations: Confirmations
    roster: Roster
    standing: Standing
    upkeep: Upkeep
    role: NodeRole


class ConsequencesNode(LeadingNode, Protocol):
    fronts: Fronts
    serve: Serve
    watches: WatchSource
    reads: Reads
    expiry: Expiry
    applies: Applies
    gathering: GatheringTimer
    applied_index: int
    order_index: int

    def answer_alone(self) -> None: ...
    def take_position(self) -> None: ...


class Consequences:
    def __init__(self, node: ConsequencesNode) -> None:
        self._node = node

    def applied(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        """``run``: of this shard's own log, where that is the order; otherwise empty."""
        node = self._node
        if applied.rows or applied.grown:
            node.serve.applied(applied.rows)
            node.upkeep.growing.applied(applied)
        if applied.placement is not None:  # G9: before any event or watermark behind it
            node.reads.placed(applied.placement)
            node.upkeep.placed.applied(applied.placement)
        if applied.events or node.watches.holding:
            node.watches.emit(applied.events)
        node.fronts.watermark(node.store.revision, node.loop.time())
        if applied.leases:
            node.expiry.changed(applied)
        for index, term, _ in run:
            node.writes.applied(index, term)
        node.answer_alone()
        self._agreed(applied)  # before this node leads: it goes by the table of now
        if (run and node.writes.leader is None and node.raft.role is Role.LEADER
                and run[-1][1] == node.raft.term):
            self.lead()
        if applied.leases:
            node.confirmations.decided(applied.decided)
        if applied.compacted is not None:
            node.upkeep.compaction.due()
        for start, counted, found in applied.miscounted:
            log.error("a leader answered with a wrong count of deleted keys",
                      first_key=repr(start), counted=counted, found=found)
        if applied.alarms:
            node.upkeep.alarms_changed()
        if len(node.reads.waiting):
            node.reads.waiting.release(node.order_index, node.loop.time())
        node.confirmations.applied(node.applied_index)
        node.upkeep.logged_bytes(sum([len(data) for _, _, data in run]))
        if node.store.counts.grown:
            node.upkeep.counting.cut()
        node.upkeep.flushes.applied()
        node.standing.say_ready()

    def _agreed(self, applied: Applied) -> None:
        """What the cluster has agreed on about its hosts."""
        node = self._node
        if applied.bootstrap is not None:
            node.upkeep.agreed.check_bootstrap(applied.bootstrap)
        if applied.hosts:
            node.roster.applied(applied.hosts)
            node.upkeep.members_change(anew=True)
        if applied.incarnations:
            node.upkeep.agreed.incarnations(applied.incarnations)
        if applied.placement is not None and not node.store.counts.ready:
            node.upkeep.counting.begin()  # other keys are shown

    def replaced(self) -> None:
        """A snapshot was installed: all parts that follow the state start again (H8)."""
        node = self._node
        node.applies.abandon()
        node.take_position()
        self.leader_changed()  # it may have been deposed in this turn: its batches meet the state (I23)
        node.serve.replaced()  # before reads that waited are judged
        if (table := node.store.placement()) is not None:
            node.reads.placed(table)
        node.upkeep.placed.replaced()
        node.lessor.load(node.store.leases())
        node.watches.lost()
        node.writes.skipped_to(node.applied_index)
        node.upkeep.truncation.installed(node.applied_index)
        node.upkeep.flushes.replaced()
        node.upkeep.alarms_changed()
        node.upkeep.growing.replaced()
        node.roster.replaced()
        node.role.replaced()
        if node.standing.ready:
            node.upkeep.begin()
        if (agreed := node.store.bootstrap()) is not None:
            node.upkeep.agreed.check_bootstrap(agreed)
        node.upkeep.agreed.incarnations(node.store.incarnations().items())
        node.reads.waiting.release(node.order_index, node.loop.time())
        if node.raft.announced_index > node.applied_index:
            node.gathering.later()  # an apply of it was abandoned, and nothing may be committed later

    def lead(self) -> None:
        """The first entry of this leader's term is applied: it serves from now on."""
        node = self._node
        applied, term = node.store.position.term, node.raft.term
        assert applied == term, f"I8: the leader of term {term} has applied no record of it, but of {applied}"
        leader = node.writes.lead()
        node.lessor.promote(node.now_ms())
        if node.settings.shard == 0 and node.store.bootstrap() is None:
            common = node.settings.common
            leader.append(records.bootstrap(1, common.shard_count, common.placement_depth))
            log.info(f"set the initial cluster version to {CLUSTER_VERSION.rpartition('.')[0]}")
        node.upkeep.agreed.log_incarnations()
        node.roster.changes.leading()
        node.standing.say_state()
        node.upkeep.publishing.publish()
        node.standing.leads()

    def leader_changed(self) -> None:
        """Raft follows another leader or none, or this replica is elected or deposed."""
        node, leading = self._node, self._node.writes.leader
        if node.raft.role is not Role.LEADER or (leading is not None and leading.term != node.raft.term):
            node.writes.resign()
            node.confirmations.resign()
            node.roster.changes.resign()
            node.store.forget_versions()
            if leading is not None:
                node.lessor.demote()
        node.role.leader_changed()
        node.standing.leader_changed()
