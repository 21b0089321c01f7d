"""What a node does besides requests: truncating the log, compacting, expiring leases, publishing itself.

Truncation follows what a *finished flush* of the state covers (H9), never what is merely applied. Physical
compaction and flushes run in slices or in a thread, so that no request waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError

from cluster import errors
from cluster.effects import records
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate.validate import parse
from cluster.faults import faults
from cluster.features.autocompact import AutoCompactor
from cluster.features.v2.requests import grows
from cluster.order.sequencing.coordinator import MAX_WAITING
from cluster.pacing.pace import MAX_ENTRY_BYTES
from cluster.pb import rpc_pb2
from cluster.raft import Role
from cluster.wire.frames import PeerKind
from cluster.wire.messages import ANSWER, Method, Status
from node.links.fronts import FrontLink
from node.links.incarnations import REFUSED
from node.slicing.slicer import Slices
from node.slicing.yielding import Others
from node.storage.keys import PUT
from node.upkeep.giving_back import GivingBack
from node.upkeep.lease_checks import LeaseChecks
from node.upkeep.space import ENOUGH, GONE, SHORT, VERY_SHORT, Sizes, Space, of_store
from node.upkeep.space import FRAME as SPACE_FRAME

if TYPE_CHECKING:
    from node.replica.server import Node
    from node.storage import Applied, Position

log = structlog.get_logger("upkeep")

AGREED = "agreed"  # file in a node's directory: the layout that this host was not started with
# Of order records kept for the own host's other nodes alone: beyond, they install. Snapshot counts; the share
# of --order-log-bytes, of which half is headroom (node.upkeep.space)
_KEEP_AT_MOST = 20
_KEEP_SHARE = 8
_TRANSFER_SHARE = 3, 8  # of the same, of any leader's log, for who gets a state
# of the same: a sibling of node 0 flushes so often at least, that what is kept for it may go
_FLUSH_SHARE = 16
# A compaction has time, requests have not: while there are any (node.slicing.yielding) it takes a fifth of
# the loop, as etcd pauses between batches, in short slices: what comes waits for one
_COMPACT_SLICE_US = 500
_COMPACT_BESIDE_US = 200
_COMPACT_PAUSE_S = 0.001
_LOOKS = 32  # at the free space, while so much is logged as its margin has
_QUOTA_STEP = 64 << 10  # logged bytes between two looks at the quota, at least
_QUOTA_CHANGES = 5_000  # are looked at at a time, for a put among them
_KEY_WRITES = frozenset((Method.PUT, Method.DELETE_RANGE, Method.TXN, Method.COMPACT, Method.LEASE_GRANT,
                         Method.LEASE_REVOKE))
# what a put takes besides key and value, and a lease, as etcd's quota.go estimates it
_PUT_COST, _LEASE_COST = 256, 64


class Upkeep:
    """Housekeeping of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._thread = node.machine.thread("flush")
        self._giving_back = GivingBack(node.machine, node.fail)
        self._flushing = False
        self._compacting = False
        self._cutting = False  # blocks of the counts
        self._requests = Others(node.machine.perf_counter, lambda: (node.raft.last_index, node.serve.ranges))
        self._truncated = node.log.snapshot_position().index
        # entries after what it returns are kept for nodes of other shards; None: there are none
        self.kept_for_others: Callable[[int], int] | None = None
        self._flush_began = (node.store.position.shard_index, node.store.position.order_index)
        self._log_bytes = self._flushed_bytes = 0  # applied here, of the own log; of that, flushed
        self._ordered_bytes = self._flushed_ordered = 0  # the same of node 0's log, in other shards
        self._waiting_compaction: list[tuple[FrontLink, bytes]] = []
        self._published = False
        self._quota_full = False
        self._quota_look_at = 0  # log bytes
        # requests of so many bytes together are within the quota until then, whatever they are
        self._quota_fits = 0
        self._tell_at, self._tell_step = 0, _QUOTA_STEP  # log bytes
        self._quiet_to = node.store.revision  # what was put until then raises no alarm (any more)
        self._wants_alarm = False  # NOSPACE was asked for, and no alarm has been applied since
        self._alarms = node.store.alarms()
        self._no_space = any(kind == rpc_pb2.NOSPACE for _, kind in self._alarms)
        self.corrupt = any(kind == rpc_pb2.CORRUPT for _, kind in self._alarms)
        self.leader_changes = 0
        self.leaving: dict[int, int] = {}  # member -> when it said last that it is about to end, in ms
        settings = node.settings
        self._sizes = Sizes(settings.common.run_dir, settings.shard, settings.common.shard_count)
        self._short = ENOUGH  # how short of space the store is, at the leader of shard 0
        self._space_look_at = 0  # log bytes
        self._space = None if settings.shard else Space(
            settings.common.member_id, settings.data_dir, most_log_bytes=settings.order_log_bytes,
            margin_bytes=settings.min_free_disk_bytes)
        # Large entries count by their bytes too: most of the log is then truncated before RocksDB would write
        # it a second time, when the log's write buffer, of half as much again as the state's, is full
        self._flush_bytes = settings.write_buffer_bytes * 3 // 4
        # an entry at least: a follower that lost one frame is sent entries, no state
        self._catchup_bytes = max(settings.write_buffer_bytes // 4, MAX_ENTRY_BYTES)
        self._for_transfers = settings.order_log_bytes * _TRANSFER_SHARE[0] // _TRANSFER_SHARE[1]
        self.lease_checks = LeaseChecks(
            node.store, node.slicer, settings.lease_check_interval_ms / 1000, node.loop.time,
            settings.common.member_id, self._raise_corrupt)
        # of other shards' writes a sibling has no rows, so it flushes for them when that helps node 0, and no
        # sooner
        self._ordered_flush_bytes = min(4 * self._flush_bytes, settings.order_log_bytes // _FLUSH_SHARE)
        self._auto = AutoCompactor(settings.auto_compaction_mode, settings.auto_compaction_retention)

    # -- leases

    def leases_changed(self, applied: Applied) -> None:
        """Grants and revokes were applied: the registry follows, on every replica, in their order."""
        lessor, now = self._node.lessor, self._node.now_ms()
        for kind, lease, seconds in applied.leases:
            if kind == records.Item.LEASE_GRANT:
                lessor.granted(lease, seconds, now)
            elif kind == records.Item.LEASE_REVOKE:
                lessor.revoked(lease)
            else:
                lessor.checkpointed(lease, seconds)

    def _expire(self) -> None:
        if self._node.lessor.primary and not self.corrupt:
            self._node.expiry.decide(self._node.lessor.due(self._node.now_ms()))
        self._node.serve.v2.look()

    # -- quota and alarms

    def refusal(self, method: int, body: bytes) -> ErrorKind | None:
        """Why a write must be refused, whatever it says. While a member is corrupt no key, no lease and
        no history changes, as in etcd."""
        if self.corrupt and method in _KEY_WRITES:
            return errors.CORRUPT
        return errors.NO_SPACE if self.over_quota(method, body) else None

    def over_quota(self, method: int, body: bytes) -> bool:
        """Whether a write must be refused for want of space (etcd's NOSPACE; deletes always pass)."""
        if self._quota_full or self._log_bytes >= self._quota_look_at:  # there may be room by now
            self._look_at_quota()
        if not (self._quota_full or self._no_space or self._short):
            if self.fits(len(body)):
                return False
            cost = _cost(method, body)
            if not cost or self.in_use() + cost < self._node.settings.quota_backend_bytes:
                return False
            self._raise_no_space(body)  # as etcd does: one request that is too large for what is left
            return True
        if _cost(method, body):
            if self._quota_full:
                self._raise_no_space(body)
            return True
        return self._short >= VERY_SHORT and method in (Method.DELETE_RANGE, Method.TXN)

    def in_use(self) -> int:
        """What all shards have in use on this host; the others are told what this one has."""
        own = self._node.store.size_in_use_bytes()
        self._sizes.tell(own)
        self._tell_at = self._log_bytes + self._tell_step
        return own + self._sizes.others()

    def fits(self, size: int) -> bool:
        """Whether requests of so many bytes are within the quota for certain, without a look at each."""
        return size < self._quota_fits

    def _raise_corrupt(self) -> None:
        """Keys and leases of this host do not agree."""
        member_id = self._node.settings.common.member_id
        if self._node.settings.corrupt_check and (member_id, rpc_pb2.CORRUPT) not in self._alarms:
            self._node.raise_alarm(_alarm(member_id, rpc_pb2.CORRUPT))

    def _raise_no_space(self, body: bytes) -> None:
        """A request does not fit; without a body nobody made it. Who asks for the alarm asks again each
        second."""
        if body and not self._wants_alarm:
            self._wants_alarm = True
            self._ask_no_space()

    def _ask_no_space(self) -> None:
        member_id = self._node.settings.common.member_id
        if (member_id, rpc_pb2.NOSPACE) not in self._alarms:
            self._node.raise_alarm(_no_space_at(member_id))

    def _put_since(self) -> bool:
        """Whether a key was put here since the last alarm, or since there was room. A full store may be
        disarmed, and deleted from, without another alarm: that comes with the next put, as in etcd."""
        store = self._node.store
        if store.revision <= self._quiet_to:
            return False
        first = max(self._quiet_to + 1, store.compact_revision)
        looked, last = 0, first
        for revision, _, kind, _ in islice(store.changes(first), _QUOTA_CHANGES):
            if kind == PUT:
                return True
            looked, last = looked + 1, revision
        # the next look goes on there; of what one request deletes no more than that is looked at
        self._quiet_to = store.revision if looked < _QUOTA_CHANGES else max(first, last - 1)
        return False

    def _look_at_quota(self) -> None:
        quota = self._node.settings.quota_backend_bytes
        left = quota - self.in_use() - _PUT_COST if quota > 0 else 1 << 62
        # a burst does not pass it between two seconds, nor do the shards together
        self._tell_step = max(left // (4 * self._node.settings.common.shard_count), _QUOTA_STEP)
        self._quota_look_at = self._log_bytes + self._tell_step
        grows = self._quota_look_at - self._log_bytes + _PUT_COST * self._node.settings.common.max_txn_ops
        self._quota_fits = left - grows
        full = left <= 0
        if full and not self._quota_full:
            log.warning(
                "the space quota is used up: writes are refused until data is deleted and compacted, and the "
                "alarm disarmed",
                quota_bytes=quota,
            )
        self._quota_full = full
        if not full:
            self._quiet_to = self._node.store.revision
        elif not (self._no_space or self._wants_alarm) and self._put_since():  # as etcd's: all refuse then
            self._ask_no_space()

    def _look_at_space(self) -> None:
        """How short of space this host is, and at the leader of shard 0 whether the store must take no more
        in."""
        node, space = self._node, self._space
        least = min(
            node.settings.order_log_bytes // 2,
            node.settings.min_free_disk_bytes or node.settings.order_log_bytes,
        )
        self._space_look_at = self._log_bytes + max(least // _LOOKS, _QUOTA_STEP)
        if space is None:
            return
        if space.look(node.log.bytes_after(0), node.log.file_bytes()):
            self._tell_space()
            log.warning("room on the disks", short=space.own > ENOUGH, why=space.why)
        if node.writes.leader is None:
            self._short = ENOUGH
            return
        heard_s = {member_id: peer.heard_ms / 1000 for member_id, peer in node.raft.peers().items()}
        levels = space.of_hosts(node.raft.configuration.voters, heard_s, node.now_ms() / 1000)
        self._short = of_store(levels)
        if self._short:
            for member_id, level in levels.items():
                if SHORT <= level < GONE:
                    self.alarm(_no_space_at(member_id))

    def _tell_space(self) -> None:
        if self._space is not None:
            for peer in self._node.roster.table.peers:
                self._node.peers.send(peer.member_id, SPACE_FRAME, bytes((self._space.own,)))

    def peer_said(self, member_id: int, kind: int, data: bytes) -> None:
        """A frame of another member. ValueError if that is not what was sent."""
        if kind == PeerKind.ALARM:
            self.alarm(data)
        elif kind == PeerKind.PUBLISH:
            self.publication(data)
        elif self._space is not None:
            self._space.came(member_id, data, self._node.now_ms() / 1000)

    def alarms_changed(self) -> None:
        """Alarms were raised or disarmed."""
        self._alarms = self._node.store.alarms()
        self._no_space = any(kind == rpc_pb2.NOSPACE for _, kind in self._alarms)
        self._wants_alarm, self._quiet_to = False, self._node.store.revision
        self.in_use()  # who disarms one has made room, maybe
        self.corrupt = any(kind == rpc_pb2.CORRUPT for _, kind in self._alarms)
        log.warning(
            "alarms",
            raised=[f"{rpc_pb2.AlarmType.Name(kind)} {member_id:x}" for member_id, kind in self._alarms],
        )

    def alarm(self, body: bytes) -> None:
        """A host wants its alarm logged; it asks until that is applied there."""
        request = parse(rpc_pb2.AlarmRequest.FromString, body)
        if (request.memberID, request.alarm) not in self._alarms:
            self._execute(Method.SET_ALARM, body)

    def _execute(self, method: int, body: bytes) -> None:
        """Have it logged, if this node leads. EtcdError, if ``body`` says nothing that can be."""
        if self._node.writes.leader is not None:
            self._node.writes.leader.execute(method, body)

    # -- the log

    def logged_bytes(self, size: int, ordered: int = 0) -> None:
        """So much of the log has been applied, and in shards other than 0 so much of node 0's."""
        self._log_bytes += size
        self._ordered_bytes += ordered
        if self._log_bytes >= self._tell_at:
            self.in_use()
        # on every host: within a second a fast disk takes more than the margin
        if self._log_bytes >= self._space_look_at:
            self._look_at_space()
        catching_up = self._node.snapshots.catching_up
        if (slowed := catching_up.slows) is not None and self._node.raft.role is Role.LEADER:
            pause_s = catching_up.pause_s(
                size, self._node.log.bytes_after(slowed), self._for_transfers, self._node.loop.time())
            if pause_s and not self._node.raft.held_back:
                self._node.raft.held_back = True
                self._node.loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._node.raft.held_back = False
        if not self._node.stopping:  # a node that stops looks by its clock, or has closed
            self._node.wake()

    def applied(self) -> None:
        """Something was applied: is it time to flush the state and truncate the log?"""
        node = self._node
        if not self._cutting and node.store.counts.grown:
            self._cutting = True
            node.slicer.start(self._cut_counts())
        grown = max(node.applied_index - self._flush_began[0], node.order_index - self._flush_began[1])
        if not self._flushing and (
            grown >= node.settings.snapshot_count
            or self._log_bytes - self._flushed_bytes >= self._flush_bytes
            or self._ordered_bytes - self._flushed_ordered >= self._ordered_flush_bytes
        ):
            self._flushing = True
            self._flush_began = (node.applied_index, node.order_index)
            self._flushed_bytes, self._flushed_ordered = self._log_bytes, self._ordered_bytes
            flushing = self._node.loop.run_in_executor(self._thread, self._node.store.flush)
            flushing.add_done_callback(self._flushed)

    def _flushed(self, done: asyncio.Future[Position]) -> None:
        self._flushing = False
        if done.cancelled() or self._node.stopping:
            return
        if done.exception() is not None:
            log.error("flushing the state failed", error=str(done.exception()))
            self._node.fail(f"flushing the state failed: {done.exception()}")
            return
        self._truncate()

    def _truncate(self) -> None:
        """Drop what the durable state covers and nobody needs any more."""
        node = self._node
        durable = node.store.durable_position.shard_index  # H9, I17
        kept_from = node.applied_index - node.settings.snapshot_catchup_entries
        index = min(durable, max(kept_from, node.log.index_before(self._catchup_bytes)))
        least = node.log.index_before(self._for_transfers)
        slowest = node.snapshots.catching_up.needed(
            least, node.log.index_before(self._catchup_bytes), node.raft.peers(), node.now_ms())
        if slowest is not None:
            index = min(index, slowest)
        least = node.log.index_before(node.settings.order_log_bytes // _KEEP_SHARE)
        if self.kept_for_others is not None:  # I17
            index = min(index, self.kept_for_others(
                max(least, node.applied_index - _KEEP_AT_MOST * node.settings.snapshot_count)))
        if index > self._truncated:
            assert index <= durable, "I17: the log is kept from where the durable state ends"
            freed = node.log.bytes_after(0) - node.log.bytes_after(index)
            node.log.truncate_prefix(node.raft.position_at(index))
            node.raft.compacted(index)
            self._truncated = index
            log.info("truncated the log", index=index, applied=node.applied_index)
            # RocksDB would drop it when more is written
            if self._no_space and freed >= self._ordered_flush_bytes:
                self._giving_back.want(node.log.reclaim)

    def begin(self) -> None:
        """After a start or an install: count the keys in slices (``node.storage.state.counts``), and go on
        with a compaction that was interrupted. Counting takes about a second of CPU a million keys, on every
        host at once, so both begin only when this node serves, and give way to writes."""
        self._node.slicer.start(self._count_keys())
        if self._node.store.compacting:
            self.compaction_due()

    def _count_keys(self) -> Slices:
        counts = self._node.store.counts
        while counts is self._node.store.counts and not counts.build_step():
            yield

    def _cut_counts(self) -> Slices:
        while not self._node.store.counts.cut_step():
            yield
        self._cutting = False

    def installed(self, index: int) -> None:
        """A snapshot took the place of everything up to ``index``."""
        self._truncated = max(self._truncated, index)

    # -- compaction

    def compaction_due(self) -> None:
        """A compaction was applied: remove old versions in slices."""
        if not self._compacting:
            self._compacting = True
            self._node.loop.call_soon(self._compact)

    def _compact(self) -> None:
        node = self._node
        store = node.store
        if node.stopping:
            return
        beside = self._requests.about()
        if not store.compaction_step(_COMPACT_BESIDE_US if beside else _COMPACT_SLICE_US):
            node.loop.call_later(_COMPACT_PAUSE_S if beside else 0, self._compact)
            return
        self._compacting = False
        waiting, self._waiting_compaction = self._waiting_compaction, []
        for link, record in waiting:
            link.put(record)
            self._node.mark_dirty(link)
        # RocksDB takes its time to drop what was deleted, and puts wait for it
        if self._quota_full or self._no_space:
            self._giving_back.want(store.defragment)

    def answer_when_compacted(self, link: FrontLink, record: bytes) -> None:
        """A compaction asked for with ``physical``: answer once the old data is gone here, which may take
        longer than a request may; the front is told at once that it is in order."""
        rid = ANSWER.unpack_from(record)[0]
        self._node.mark_dirty(link)
        self._waiting_compaction = [waiting for waiting in self._waiting_compaction if waiting[0].alive]
        if len(self._waiting_compaction) < MAX_WAITING:
            link.answer(rid, Status.PARTIAL, b"")
            self._waiting_compaction.append((link, record))
        else:  # it is in order, and will be done
            link.answer(rid, Status.UNKNOWN, EtcdError(errors.TOO_MANY_REQUESTS).encode())
        self.compaction_due()

    # -- members

    def published(self) -> bool:
        """Whether this host's own attributes are applied here (in shard 0, which keeps them)."""
        if not self._published:
            node = self._node
            self._published = (
                node.settings.shard != 0
                or node.store.members().get(node.settings.common.member_id) == self._attributes()
            )
        return self._published

    def _attributes(self) -> bytes:
        settings = self._node.settings
        return rpc_pb2.Member(
            ID=settings.common.member_id, name=settings.common.name, peerURLs=list(settings.peer_urls),
            clientURLs=list(settings.client_urls)).SerializeToString(deterministic=True)

    def publish(self) -> None:
        """Have the leader log this host's attributes, unless they are applied here; repeated until they
        are."""
        if self.published():
            return
        node = self._node
        if node.writes.leader is not None:
            self.publication(self._attributes())
        elif node.raft.leader_id and node.raft.leader_id != node.settings.common.member_id:
            node.peers.send(node.raft.leader_id, PeerKind.PUBLISH.byte, self._attributes())

    def publication(self, member: bytes) -> None:
        """A host asks the leader to log its attributes; repeated by it until they are applied there."""
        if member not in self._node.store.members().values():
            self._execute(Method.PUBLISH, member)

    def log_incarnations(self) -> None:
        """The leader of shard 0 logs which data directories stand behind the members that it has heard
        (H10)."""
        leader = self._node.writes.leader
        if leader is not None:
            for member_id, incarnation in self._node.incarnations.to_log(leader.term):
                leader.append(records.incarnation(member_id, incarnation))

    def incarnations_agreed(self, applied: Iterable[tuple[int, int]]) -> None:
        """Such records were applied: whoever is somebody else takes no part, this replica neither."""
        node = self._node
        for member_id in node.incarnations.agree(applied):
            if member_id == node.settings.common.member_id:
                node.fail(REFUSED.format(member_id))
            else:
                node.peers.refuse(member_id)

    def check_bootstrap(self, bootstrap: tuple[int, int, int]) -> None:
        """The order log says how the store is laid out; a host started otherwise must not go on."""
        _, shards, depth = bootstrap
        common = self._node.settings.common
        if (shards, depth) != (common.shard_count, common.placement_depth):
            with open(f"{self._node.settings.data_dir}/{AGREED}", "w", encoding="utf-8") as f:
                # for the next start of this host; one that is lost is written again
                f.write(f"{shards} {depth}\n")
            self._node.fail(
                f"this cluster has {shards} shards at placement depth {depth}, this host was started with "
                f"{common.shard_count} at depth {common.placement_depth}: start it with --shards {shards} "
                f"--shard-depth {depth}")

    # -- leadership

    def successors(self) -> list[int]:
        """Voters that are reachable and not about to end, the one that is furthest along first."""
        raft, now = self._node.raft, self._node.now_ms()
        election_ms = self._node.settings.common.election_timeout_ms
        voters = raft.configuration.voters  # a leader serves one that was removed for a while
        found = [
            (-peer.match, member_id) for member_id, peer in raft.peers().items()
            # who ends says so every heartbeat until it has gone, and is not heard any more then
            if now - peer.heard_ms < election_ms <= now - self.leaving.get(member_id, -election_ms)
            and member_id in voters
        ]
        return [member_id for _, member_id in sorted(found)]

    def transfer(self, link: FrontLink, rid: int, body: bytes) -> None:
        """Hand leadership to the member a front names."""
        node = self._node
        if node.raft.role is not Role.LEADER:
            link.answer(rid, Status.NOT_LEADER, node.raft.leader_id.to_bytes(8, "little")
                        + node.raft.term.to_bytes(8, "little"))
        else:
            target = int.from_bytes(body[:8], "little")
            if target not in node.raft.configuration.voters:
                raise EtcdError(errors.BAD_LEADER_TRANSFEREE)
            node.raft.transfer_leadership(target)
            node.wake()
            link.answer(rid, Status.OK, b"")
        node.mark_dirty(link)

    # -- clockwork

    def tick(self) -> None:
        """Every heartbeat interval."""
        self._expire()
        self.publish()
        self.log_incarnations()
        self._node.roster.changes.look()

    def second(self) -> None:
        """Every second."""
        node = self._node
        faults.log(log)
        self._look_at_quota()
        if self._wants_alarm:
            self._ask_no_space()
        self._look_at_space()
        self.lease_checks.second()
        if self._space is not None and self._space.own:
            self._tell_space()
        # it waits for others, not for a flush
        if node.log.bytes_after(0) >= 2 * (self._flush_bytes + self._catchup_bytes):
            self._truncate()
        leader = node.writes.leader
        if leader is not None and node.settings.shard == 0:
            revision = self._auto.due(node.store.revision, node.now_ms())
            if revision is not None and not self.corrupt and revision > leader.view.compact_revision:
                log.info("compacting by the clock", revision=revision)
                leader.execute(
                    Method.COMPACT, rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
                )

    def close(self) -> None:
        """Wait for what helper threads do."""
        self._giving_back.close()
        self._thread.shutdown(wait=True)
        self._sizes.close()


def _no_space_at(member_id: int) -> bytes:
    return _alarm(member_id, rpc_pb2.NOSPACE)


def _alarm(member_id: int, kind: rpc_pb2.AlarmType) -> bytes:
    raised = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member_id, alarm=kind)
    return raised.SerializeToString()


def _cost(method: int, body: bytes) -> int:
    """What a request adds at most, as etcd estimates it; a malformed one nothing, for it is refused as such.

    A put in a transaction's transaction counts like any other, where etcd forgets it."""
    try:
        if method == Method.PUT:
            return _put_cost(rpc_pb2.PutRequest.FromString(body))
        if method == Method.TXN:
            return _txn_cost(rpc_pb2.TxnRequest.FromString(body))
        if method == Method.V2_WRITE and grows(body):
            return _PUT_COST + 2 * len(body)  # a node and an event
    except DecodeError:
        return 0
    return _LEASE_COST if method == Method.LEASE_GRANT else 0


def _put_cost(put: rpc_pb2.PutRequest) -> int:
    return _PUT_COST + len(put.key) + len(put.value)


def _txn_cost(txn: rpc_pb2.TxnRequest) -> int:
    return max(sum(
        _put_cost(op.request_put) if op.HasField("request_put") else
        _txn_cost(op.request_txn) if op.HasField("request_txn") else 0 for op in branch)
        for branch in (txn.success, txn.failure))
