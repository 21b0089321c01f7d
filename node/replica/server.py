"""The node: one event loop that drives Raft, the disk, the store and all links.

Work is done per *tick*, not per request. Sockets put what arrives into queues. The tick then

1. evaluates the queued writes, proposes them as one entry, and starts a confirmation round for the questions,
2. does what Raft wants: writes entries to the log, sends messages that may leave before the sync, syncs,
3. applies what is committed, answers the requests that waited for it, emits watch events,
4. sends one frame per front and per peer.

Votes and acks (``messages_after_sync``) leave only after the sync that covers them (I2), and an answer leaves
only after the apply (I7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import chain

import structlog

from cluster import errors
from cluster.effects import records
from cluster.endpoints import ipc_endpoint
from cluster.errors import EtcdError
from cluster.evaluate.replica import Copies, Leader
from cluster.faults import MISTAKES, faults
from cluster.features.lessor import Lessor
from cluster.machine import FrameSocket
from cluster.pacing.pace import Pace
from cluster.pacing.patience import HURRY_S, Patience
from cluster.raft import IntegrityError, Ready
from cluster.raft import Role as RaftRole
from cluster.repeats import Repeats
from cluster.settings import NodeSettings, Peer
from cluster.wire.frames import PeerKind
from cluster.wire.messages import Method, Status
from node.kinds import FRONT, METHOD, RAFT, SNAPSHOT, TOLD, WRITES
from node.links.fronts import FrontLink, Fronts, PassOn, Send, Tell
from node.links.incarnations import Incarnations
from node.links.mail import Mail
from node.links.peer_link import REFUSED_INCARNATION, REFUSED_REMOVED
from node.links.peers import Peers
from node.links.promises import Promises
from node.links.standing import Standing
from node.machine import NodeMachine
from node.members.changes import Changes
from node.members.roster import Roster
from node.replica.applying import Applies
from node.replica.clock import Clock
from node.replica.consequences import Consequences
from node.replica.leaving import FRAME as LEAVING_FRAME
from node.replica.leaving import Leaving, end_all
from node.replica.opening import first_voters, open_disks, start_raft
from node.replica.pacing.large import LargeWrites
from node.replica.pacing.pauses import GatheringTimer
from node.replica.pacing.spin import Spin
from node.replica.requests import take_in
from node.replica.roles.role import Handler, Kinds, Role
from node.replica.writes import Beside, Writes
from node.serving.auth.admission import Admission
from node.serving.auth.guard import Guard
from node.serving.backups import Backups
from node.serving.confirm import Confirmations, Times
from node.serving.leases.checkpoints import LeaseCheckpoints
from node.serving.leases.ids import LeaseIds
from node.serving.leases.listing import LeaseList
from node.serving.maintenance import Maintenance
from node.serving.ranges import Ranges
from node.serving.reads import Reads
from node.serving.serve import Serve
from node.serving.streams import Streams
from node.serving.txns.looking import Looking
from node.serving.txns.past import Past
from node.serving.txns.uncounted import Uncounted
from node.serving.v2 import V2Tree
from node.serving.watch.watches import WatchSource
from node.slicing.slicer import Slicer
from node.storage import Applied
from node.upkeep.counters import figures
from node.upkeep.expiry import Expiry
from node.upkeep.facts import Facts
from node.upkeep.log.snapshots import Snapshots
from node.upkeep.space.defragments import Defragments
from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("node")

_QUIET_REQUESTS = 8  # with at most so many requests in a tick the loop may sync by itself
_LONE_BYTES = 1024  # a smaller frame of a peer is of few requests: its tick waits for no others


class Node:
    """One replica of one shard. In what replicas differ, its ``role`` says (``node.replica.roles.role``)."""

    def __init__(self, settings: NodeSettings, machine: NodeMachine,
                 role: Callable[[Node, Kinds], Role], kinds: Kinds) -> None:
        # The parts' types are declared, so that a part which is made before another is checked against it.
        self.settings = settings
        common = settings.common
        self.machine = machine
        self.loop, self.status, self.now_ms = machine.loop, machine.status, machine.now_ms
        self.voters = first_voters(settings)
        self.log, self.store = open_disks(settings, machine, self.voters)
        self.raft = start_raft(settings, machine, self.log, self.store)
        self.lessor: Lessor = kinds.lessor(
            common.election_timeout_ms, common.heartbeat_interval_ms, settings.lease_checkpoint_interval_ms)
        self.lessor.load(self.store.leases())
        self._notes = settings.shard == 0  # I25: in other shards the order's records tell
        self.syncer = machine.syncs(self.log.sync, self._synced)
        self._scheduled = self._running = self._answered_early = self.closed = False
        self._requests_in_tick = 0
        self._gathers = False  # the frame that is taken in holds nothing but writes
        self.wanted_revision = 0  # a read waits for it
        self.hurried_until = 0.0  # a read waits for what is applied here, or did just now
        self.stopping: bool = False
        self.left = False  # nothing is owed any more, and fronts were told
        self.fatal: asyncio.Future[str] = self.loop.create_future()
        self.take_position()
        self._make_serving(kinds)
        self._make_links()
        self._make_role(role, kinds)
        self.peers: Peers
        self.local_fronts: FrameSocket

    def _make_serving(self, kinds: Kinds) -> None:
        settings, common, machine, loop = self.settings, self.settings.common, self.machine, self.loop
        self.admission: Admission = Admission(self)
        self.large: LargeWrites = LargeWrites(self, self.admission.requests)
        self.fronts: Fronts = Fronts(
            common.cluster_id, self.large.requests, self._greet, self._front_gone,
            (common.shard_count, common.placement_depth), settings.shard == 0, limit_s=common.limit_s,
            now=machine.monotonic)
        self.dirty = self.fronts.dirty
        self.guard: Guard = Guard(self.store, self.fronts, lambda: self.order_index)
        self.slicer: Slicer = Slicer(loop, lambda: self.raft.last_index, machine.perf_counter)
        self.watches: WatchSource = WatchSource(
            self.store, self.mark_dirty, self.slicer.start, lambda: self.fronts.watermark_again(loop.time()))
        self.reads: Reads = Reads(loop, self.slicer, self.mark_dirty, lambda: self.order_index)
        if (table := self.store.placement()) is not None:
            self.reads.placed(table)
        self.streams: Streams = Streams(
            self.reads.start, loop.time, self.reads.refuse, common.client_stall_timeout_ms / 1000)
        self.reads.on_cancelled = self.streams.end
        self.upkeep: Upkeep = Upkeep(self, settings, machine, self.log, self.store, self.raft, self.slicer)
        self.pace = Pace()
        self.past: Past = Past(
            self.store, self.raft, self.reads, self.streams, self.mark_dirty, max_txn_ops=common.max_txn_ops)
        self.looking: Looking = Looking(self.store, self.reads, self.wake)
        self.uncounted: Uncounted = Uncounted(self)
        new_lease_id = LeaseIds(machine, common.member_id)
        self.writes: Writes = Writes(
            self.raft, self.store, self.dirty.add,
            lambda: Leader(
                self.store, self.raft.term, max_txn_ops=common.max_txn_ops, lessor=self.lessor,
                new_lease_id=new_lease_id, auth=self.guard.copy(),
                copies=Copies(lambda: self.serve.v2.tree.copy(), self.upkeep.growing.told)),
            refusal=self.upkeep.quota.refusal, control_applied=self._control_applied, pace=self.pace,
            beside=Beside(self.past.answer, self.looking.start, self.past.shown))
        self.expiry: Expiry = Expiry(self)
        self.writes.fits = self.upkeep.quota.fits
        self.confirmations: Confirmations = kinds.confirmations(
            self.raft, self.store, self.lessor, self.mark_dirty, applied_index=lambda: self.applied_index,
            times=Times(loop.time, self.now_ms, common.limit_s), beside=self.reads.start,
            judged=self.guard.question)
        self.lease_checkpoints: LeaseCheckpoints = LeaseCheckpoints(self)
        self._for_peers = Spin(machine, lambda: self.confirmations.open or self.writes.uncommitted > 0)
        self._for_clients = Spin(machine, lambda: True)
        self.defragments: Defragments = Defragments(self)
        self.serve: Serve = Serve(
            self,
            ranges=Ranges(self.store, self.raft, self.streams),
            maintenance=Maintenance(self, Facts(self).now, partial(figures, self)),
            v2=V2Tree(self),
            lease_list=LeaseList(
                self.lessor, self.store, self.raft, reads=self.reads, streams=self.streams,
                slicer=self.slicer, mark_dirty=self.mark_dirty),
            defragment=self.defragments.ask,
        )
        self.backups: Backups = Backups(self)
        self.snapshots: Snapshots = Snapshots(self, self.upkeep.catching_up)

    def _make_links(self) -> None:
        settings = self.settings
        self.incarnations: Incarnations = Incarnations(
            settings.common.member_id, settings.incarnation, self.voters.voters, self.log,
            self.store.incarnations(),
            lambda: chain.from_iterable(map(records.incarnations_in, self.role.unapplied())))
        self.promises: Promises = Promises(self, self.log, not settings.unsafe_no_fsync)
        self.roster: Roster = Roster(self, Changes(self))
        self.mail: Mail = Mail(self)
        self._broken = Repeats()  # frames of peers
        self.standing: Standing = Standing(self)
        self.consequences: Consequences = Consequences(self)
        self.after_apply: Callable[[list[tuple[int, int, bytes]], Applied], None] = self.consequences.applied
        self.state_replaced: Callable[[], None] = self.consequences.replaced
        self.frames: dict[int, Callable[[int, bytes], None]] = {
            SNAPSHOT: self.snapshots.frame, int(PeerKind.PROMISES): self.promises.came,
            LEAVING_FRAME[0]: lambda member_id, data: self.upkeep.succession.left(member_id)}

    def _make_role(self, role: Callable[[Node, Kinds], Role], kinds: Kinds) -> None:
        loop = self.loop
        self.clock: Clock = self._clock()
        self.patience: Patience = Patience(
            self.raft, loop.time, lambda: len(self.reads.waiting) > 0,
            lambda: self.serve.watched or self.role.awaited)
        self.handlers: dict[int, Handler] = self.upkeep.advising.handlers()  # of requests, by method
        self.link_ends: list[Callable[[FrontLink], None]] = [self.watches.gone]
        # of a control record that is applied here: the rest of its answer, once others have applied it
        self.acknowledge: Callable[[FrontLink, bytes, Tell], None] = (
            lambda link, record, tell: tell(link, record))
        self.role: Role = role(self, kinds)
        self.clock.each_second(lambda: self.standing.second(loop.time()))
        self.clock.each_second(lambda: self.promises.second(loop.time()))
        self.clock.each_second(self._settle_mark)
        self.catch_up: Callable[[], None] = self.role.catch_up
        self.gathering: GatheringTimer = GatheringTimer(
            loop, self.role.apply, self._unseen if self.role.gathers else lambda: False, self.wake)
        self.applies: Applies = Applies(
            loop, self.watches.gather, lambda: self.gathering.go_on(), self.settings.warning_apply_ms / 1000,
            self.machine.perf_counter)

    def _control_applied(self, link: FrontLink, record: bytes, physical: bool) -> None:
        self.acknowledge(link, record, self.upkeep.compaction.answer_when_done if physical else self._answer)

    def _answer(self, link: FrontLink, record: bytes) -> None:
        link.put(record)
        self.mark_dirty(link)

    def _clock(self) -> Clock:
        """What is due each heartbeat and each second, in this order; the role's work follows."""
        clock = Clock(self)
        for each_heartbeat in (self.upkeep.tick, self.lease_checkpoints.look, self.standing.say_ready):
            clock.each_heartbeat(each_heartbeat)
        for each_second in (self.reads.sweep, self.snapshots.sweep, self.backups.sweep, self.streams.sweep,
                            lambda: self.fronts.sweep(self.loop.time()), self.writes.sweep,
                            self.confirmations.sweep, self.upkeep.second):
            clock.each_second(each_second)
        return clock

    def take_position(self) -> None:
        """Note how far the state is in the group's log and in the order: reads wait for that."""
        position = self.store.position
        self.applied_index: int = position.shard_index
        self.order_index: int = position.order_index if self.settings.shard else position.shard_index

    # -- life

    def start(self) -> None:
        settings = self.settings
        self.peers = Peers(
            self.machine, settings, roster=self.roster, incarnations=self.incarnations,
            promises=self.promises, on_frame=self._peer_frame, on_front=self._remote_front,
            on_refused=self._refused)
        self.local_fronts = self.machine.listen(
            ipc_endpoint(settings.common.run_dir, settings.shard), self._local_front,
            keyed=False, hwm=100_000)
        if (agreed := self.store.bootstrap()) is not None:
            self.upkeep.agreed.check_bootstrap(agreed)
        self.upkeep.agreed.incarnations(())
        self.upkeep.growing.look()
        self.roster.start()
        self.standing.started()
        self.wake()
        self.clock.start()

    async def stop(self) -> None:
        await Leaving(self).run()
        self.role.close()  # its links only now: what was logged here gets its fate by the feed
        self.closed = True  # the loop goes on for some turns: what they were to do has no store any more
        end_all(
            self.clock.stop, self.gathering.stop, self.applies.abandon, self.slicer.close, self.expiry.close,
            self.large.close, self.local_fronts.close, self.peers.close, self.syncer.close, self.store.settle,
            self.upkeep.close, self.defragments.close, self.snapshots.close, self.backups.close,
            self.streams.close, self.log.close, self.store.close)

    # -- what arrives

    def wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._run)

    def mark_dirty(self, link: FrontLink) -> None:
        self.dirty.add(link)
        self.wake()

    def _local_front(self, parts: list[bytes]) -> None:
        self.fronts.frame(parts[0], parts[-1], self.local_fronts.send, b"")
        self._wake_for_frame()

    def front_frame(self, identity: bytes, data: bytes, send: Send, pass_on: PassOn) -> None:
        """A frame of a front in this process (``tools.muster.joined``), which holds all that came to the
        front in this turn of the loop: the tick runs at once, unless one is scheduled or running."""
        self.fronts.frame(identity, data, send, b"", pass_on)
        if self._scheduled or self._running:
            self._wake_for_frame()
        elif not self._gathered():
            self._run()

    def front_gone(self, identity: bytes) -> None:
        self.fronts.drop(identity)

    def _remote_front(self, identity: bytes, data: bytes, send: Send) -> bool:
        self.fronts.frame(identity, data, send, FRONT)
        self._wake_for_frame()
        return identity in self.fronts.links

    def _wake_for_frame(self) -> None:
        if not self._gathered():
            self.wake()

    def _gathered(self) -> bool:
        """Whether the frame held only writes, for the entry that leaves when the one under way is done."""
        gathers, self._gathers = self._gathers, False
        return gathers and not self.dirty and not self.role.has_room

    def take_requests(self, link: FrontLink, requests: list[tuple[int, int, int, bytes]]) -> None:
        """The judged requests of a front's frame."""
        self._gathers = True
        self._requests_in_tick += len(requests)
        taker = self.uncounted.taker(requests)
        if WRITES.issuperset(map(METHOD, requests)) and taker.submit_all(link, requests):
            return
        submit = taker.submit
        for rid, method, timeout_ms, body in requests:
            if not (write := method in WRITES):
                self._gathers = False
                self.catch_up()  # outside of try: a fault of an apply ends the node
                if not link.alive:
                    return  # an answer that left early found its queue full
            try:
                if write:
                    submit(link, rid, method, timeout_ms, body)
                else:
                    take_in(self, link, rid, method, timeout_ms, body)
            except EtcdError as error:
                self.reads.refuse(link, rid, error)
            except MISTAKES as error:  # the link goes on, for all share it; a failing disk is no mistake
                faults.met(f"taking in a request of method {method}", error)
                self.reads.refuse(link, rid, EtcdError(errors.INTERNAL_FAULT))

    def hurry(self, link: FrontLink, revision: int) -> None:
        """A read waits until this revision is applied here: its front hears of it, and for a while of what
        follows, at once."""
        self.hurried_until = self.loop.time() + HURRY_S
        self.fronts.hurry(link, revision, self.hurried_until)
        self.wanted_revision = max(revision, self.wanted_revision)
        self.patience.hurried()

    def _greet(self, link: FrontLink) -> None:
        link.answer(0, Status.STATE, self.standing.state())
        self.guard.greet(link)
        self.roster.greet(link)
        self.upkeep.placed.greet(link)
        self.dirty.add(link)
        if self.left and link.watches:
            link.answer(0, Status.LEAVING, b"")

    def _front_gone(self, link: FrontLink) -> None:
        for ended in self.link_ends:
            ended(link)

    def _peer_frame(self, member_id: int, kind: int, data: bytes) -> None:
        due = True
        try:
            if kind == RAFT:
                due = self.mail.came(member_id, data)
            elif kind in TOLD:
                self.upkeep.peer_said(member_id, kind, data)
            elif kind in self.frames:
                self.frames[kind](member_id, data)
        except (ValueError, IntegrityError, EtcdError) as e:  # dropped: Raft sends it again
            self.peers.received_failures[member_id] += 1
            if self._broken.news((member_id, kind), self.loop.time()):
                log.warning("dropped a broken frame of a peer", peer=f"{member_id:x}", error=str(e))
        if due and len(data) <= _LONE_BYTES and self.role.alone and not (self._scheduled or self._running):
            self._run()  # at once: no other work could share this tick
        elif due:
            self.wake()

    def _refused(self, peer: Peer, code: int, reason: str) -> None:
        if code == REFUSED_INCARNATION:
            self.fail(reason)
        elif code == REFUSED_REMOVED:
            self.roster.leave()

    def fail(self, reason: str) -> None:
        """End this process for a reason that a restart would not mend."""
        if not self.fatal.done():
            self.fatal.set_result(reason)

    # -- the tick

    def _run(self) -> None:
        if self.closed:
            return
        self._scheduled, self._running = False, True
        writes = self.writes
        if writes.leader is None:  # a leader knows its commits itself
            self.patience.look()
        for _ in range(4):
            self.role.evaluate()
            busy = False
            while (ready := self.raft.ready()) is not None:
                busy = True
                self.handle(ready)
                self.answer_alone()
            if not busy or self.role.settled:
                break
        lone, self._requests_in_tick = self._requests_in_tick <= 1, 0
        self.role.finish()
        self.large.look()
        self.mail.send()
        answered, self._answered_early = bool(self.dirty) or self._answered_early, False
        self.fronts.flush()
        self._running = False
        self.clock.look()
        if self.confirmations.open or (lone and writes.uncommitted == 1):
            self._for_peers.soon()
        elif answered and lone and writes.leader is not None:
            self._for_clients.soon()
        if writes.ready or self.dirty:
            self.wake()

    def answer_alone(self) -> None:
        """If no other answer is about to be ready, this one leaves before the rest of the tick."""
        if self.dirty and self.role.alone:
            self._answered_early = True
            self.fronts.flush()

    def raise_alarm(self, body: bytes) -> None:
        """Have the sequencer log an alarm of this host. The caller asks again until it is applied here."""
        if self.settings.shard:
            self.role.ask_leader(0, Method.SET_ALARM, lambda version: body)
        elif self.writes.leader is not None:
            self.upkeep.alarms.asked(body)
        elif self.raft.leader_id and self.raft.leader_id != self.settings.common.member_id:
            self.peers.send(self.raft.leader_id, PeerKind.ALARM.byte, body)

    def handle(self, ready: Ready) -> None:
        if ready.leader_changed:
            self.consequences.leader_changed()
        self.mail.queue(ready.messages)
        if ready.must_sync:
            self.mail.send()  # appends travel while this disk writes and syncs
        if ready.entries or ready.hard_state is not None:
            self.log.append(ready.entries, ready.hard_state)
        if ready.messages_after_sync:
            self.mail.hold(ready.sequence, ready.messages_after_sync)
        if ready.must_sync:
            if self.syncer.request(ready.sequence, quiet=self._requests_in_tick <= _QUIET_REQUESTS):
                self._persisted(ready.sequence)
                self.mail.send()  # a follower's ack waits for nothing else
        elif self.syncer.busy or self.mail.holds_before(ready.sequence):
            self.syncer.request(ready.sequence, quiet=False)
        elif ready.messages_after_sync or ready.hard_state is not None:
            self._persisted(ready.sequence)
        if ready.entries and self.role.gathers:
            self.writes.prepare()  # while they travel
        first, last = ready.committed
        if last > first:
            if self._notes:
                self.log.note_committed(last)
            self.gathering.take(last)
        if ready.configuration is not None:
            self.roster.configured()
        for context, index in ready.reads:
            self.confirmations.confirmed(context, index)
        if ready.reads_failed:
            self.confirmations.failed(ready.reads_failed)
        for peer, min_index in ready.snapshots_to:
            self.snapshots.send_to(peer, min_index)

    def _synced(self, sequence: int) -> None:
        if self._persisted(sequence):
            self.wake()
        self.mail.send()  # a follower's ack waits for nothing else

    def _settle_mark(self) -> None:
        if self.log.mark_is_behind():  # H10: nothing was logged since
            self.syncer.again()

    def _persisted(self, sequence: int) -> bool:
        self.mail.synced(sequence)
        return self.raft.persisted(sequence)

    def _unseen(self) -> bool:
        """Whether no request here waits for what is committed, so that it may be applied later
        (``cluster.pacing.gathering``)."""
        return (self.raft.role is RaftRole.FOLLOWER and not self.serve.watched and not self.writes.uncommitted
                and not len(self.reads.waiting) and self.store.revision >= self.wanted_revision
                and self.standing.ready)

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        """A run of this shard's own log is applied, which is the order."""
        self.applied_index = self.order_index = run[-1][0]
        self.raft.applied(self.applied_index)
        self.after_apply(run, applied)
