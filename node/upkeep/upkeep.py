"""What a node does besides requests: its parts are made and driven here.

Long work runs in slices or in a thread, so that no request waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.faults import faults
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.frames import PeerKind
from node.machine import NodeMachine
from node.slicing.slicer import Slicer
from node.upkeep.compaction import ClockCompaction, Compaction
from node.upkeep.counting import Counting
from node.upkeep.group.agreed import Agreed
from node.upkeep.group.growing import Growing
from node.upkeep.group.placed import Placed
from node.upkeep.group.publishing import Publishing
from node.upkeep.group.succession import Succession
from node.upkeep.growth.advising import Advising
from node.upkeep.growth.gathering import GatheringNode
from node.upkeep.lease_checks import LeaseChecks
from node.upkeep.log.catching_up import CatchingUp, Slowing
from node.upkeep.log.flushes import Flushes
from node.upkeep.log.truncation import Truncation, kept_for_transfers
from node.upkeep.space.alarms import Alarms
from node.upkeep.space.copies import CopyRoom
from node.upkeep.space.disks import Logged
from node.upkeep.space.giving_back import GivingBack
from node.upkeep.space.quota import Quota
from node.upkeep.space.rewriting import Rewriting
from node.upkeep.space.shortage import Shortage

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from node.storage import RaftLog, StateStore

log = structlog.get_logger("upkeep")


class Upkeep:
    def __init__(self, node: GatheringNode, settings: NodeSettings, machine: NodeMachine, raft_log: RaftLog,
                 store: StateStore, raft: Raft, slicer: Slicer) -> None:
        self._node = node
        self._log = raft_log
        self._store = store
        common, now_ms = settings.common, machine.now_ms
        self._logged = logged = Logged()
        self.alarms = Alarms(store, common.member_id, ask=node.raise_alarm, leader=self._leader)
        self._shortage = Shortage(
            node, settings, raft_log, raft, alarms=self.alarms, logged=logged, now_ms=now_ms)
        self.quota = Quota(settings, store, alarms=self.alarms, shortage=self._shortage, logged=logged)
        self.room = CopyRoom(settings, self.quota)
        self.rewriting = Rewriting(settings, store)
        self._giving_back = GivingBack(machine, node.fail)
        self.catching_up = CatchingUp()
        self._slowing = Slowing(
            self.catching_up, raft, raft_log, machine.loop, room_bytes=kept_for_transfers(settings),
            go_on=self._go_on)
        self.truncation = Truncation(
            node, settings, raft_log, store, raft, catching_up=self.catching_up, now_ms=now_ms,
            freed=self._truncated)
        self.flushes = Flushes(node, settings, machine, store, logged=logged, flushed=self._flushed)
        self.on_flushed: Callable[[], None] = lambda: None
        # a log beyond it waits for others, not for a flush
        self._long_log_bytes = 2 * (self.flushes.each_bytes + self.truncation.catchup_bytes)
        self.counting = Counting(store, slicer)
        self.compaction = Compaction(node, machine, store, raft, freed=self._compacted)
        self._clock_compaction = ClockCompaction(
            settings, store, alarms=self.alarms, leader=self._leader, now_ms=now_ms)
        self._raises_corrupt = settings.corrupt_check
        self.flushes_for_changes = settings.shard > 0  # of members; shard 0 does once keys have moved
        self.lease_checks = LeaseChecks(
            store, slicer, settings.lease_check_interval_ms / 1000, machine.loop.time, common.member_id,
            self._raise_corrupt)
        self.agreed = Agreed(node, settings)
        self.publishing = Publishing(node, settings, store, raft)
        self.growing = Growing(node, settings, store, raft, machine.status, self.room.facts)
        self.advising = Advising(node, settings, machine, store, raft, self.growing)
        self.placed = Placed(node, store, self.advising.placed)
        self.succession = Succession(node, raft, election_ms=common.election_timeout_ms, now_ms=now_ms)

    def _leader(self) -> Leader | None:
        return self._node.writes.leader

    # -- the log

    def logged_bytes(self, size: int, ordered: int = 0) -> None:
        """``size`` bytes of the log have been applied, and in shards other than 0 ``ordered`` bytes of node
        0's."""
        logged = self._logged
        logged.own += size
        logged.ordered += ordered
        if logged.own >= self.quota.tell_at:
            self.quota.in_use()
        # on every host: within a second a fast disk takes more than the margin
        if logged.own >= self._shortage.look_at:
            self._shortage.look()
        if (slowed := self.catching_up.slows) is not None:
            self._slowing.logged(slowed, size)

    def _go_on(self) -> None:
        if not self._node.stopping:  # a node that stops looks by its clock, or has closed
            self._node.wake()

    def _truncated(self, freed: int) -> None:
        # RocksDB would drop it when more is written
        if self.alarms.no_space and freed >= self.flushes.each_ordered_bytes:
            self._giving_back.want(self._reclaim)

    def _reclaim(self, again: bool) -> None:
        self._log.reclaim()

    # -- the state

    def _flushed(self) -> None:
        self.truncation.truncate()
        self.counting.flushed()
        self.on_flushed()

    def _compacted(self) -> None:
        self.counting.compacted()
        # RocksDB takes its time to drop what was deleted: it counts for the quota, and puts may wait for it
        if self.quota.full or self.alarms.no_space or self._store.much_removed(self.quota.scarce):
            self._give_back()
        elif self._store.buffers_removals:  # on a quiet store they would stay
            self.flushes.want()

    def moved_rows_went(self) -> None:
        """Of a copy that was given up, or of keys that have left: they count until RocksDB merges that."""
        if self.room.lacks_quota:
            self._give_back()

    def _give_back(self, *, again: bool = False) -> None:
        self.rewriting.hosts = len(self._node.roster.table.peers)
        self._giving_back.want(self.rewriting.rewrite, again)

    def _short(self) -> bool:
        return self.alarms.no_space or self.room.lacks_quota

    def begin(self, *, started: bool = False) -> None:
        """After a start or an install: count the keys, and go on with an interrupted compaction. A process
        that has ``started`` knows nothing of a rewrite that found no room in the one before. Hosts may start
        together."""
        self.counting.begin()
        if self._store.compacting:
            self.compaction.due()
        elif started and self._store.compact_revision and self._short() and self._store.worth_rewriting:
            self._give_back(again=True)

    def alarms_changed(self) -> None:
        self.alarms.changed()
        self.quota.alarms_changed()

    def _raise_corrupt(self) -> None:
        """Keys and leases of this host do not agree."""
        if self._raises_corrupt:
            self.alarms.want(rpc_pb2.CORRUPT)

    # -- others

    def peer_said(self, member_id: int, kind: int, data: bytes) -> None:
        """A frame of another member. ValueError if it makes no sense."""
        if kind == PeerKind.ALARM:
            self.alarms.asked(data)
        elif kind == PeerKind.PUBLISH:
            self.publishing.asked(data)
        elif kind == PeerKind.SPEAKS:
            self.growing.asked(member_id, data)
        elif kind == PeerKind.LOAD:
            self.advising.told(member_id, data)
        else:
            self._shortage.came(member_id, data)

    # -- clockwork

    def tick(self) -> None:
        node = self._node
        if not self.alarms.corrupt:
            node.expiry.look()
        node.serve.v2.look()
        self.publishing.publish()
        self.growing.say()
        self.agreed.log_incarnations()
        node.roster.changes.look()
        self.members_change(anew=False)

    def members_change(self, *, anew: bool) -> None:
        """Every heartbeat, and when the table has changed (``anew``): a change of members may wait for a
        flush, or a move's source."""
        self.flushes.hasten(wanted=self.flushes_for_changes and self._node.roster.votes_change, anew=anew)

    def second(self) -> None:
        faults.log(log)
        self.quota.second()
        self._shortage.second()
        self._giving_back.second(self._short)
        self.lease_checks.second()
        self._store.lease_lists.second()
        if self._log.bytes_after(0) >= self._long_log_bytes:
            self.truncation.truncate()
        self._clock_compaction.second()
        self.advising.second()

    def close(self) -> None:
        self._giving_back.close()
        self.flushes.close()
        self.quota.close()
