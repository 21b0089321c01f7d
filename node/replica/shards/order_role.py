"""The role of shard 0 in a store of several: the order log, the sequencer when it leads, the others' feed.

Besides what every node does, it makes cuts of the other leaders' reports, coordinates transactions over
several shards (``cluster.order.sequencing.coordinator``), and feeds the other nodes
(``node.replica.shards.feed``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.feature_table import EVERYWHERE
from cluster.evaluate.replica import Leader
from cluster.features.auth.principal import FRONT, NOBODY, SAID, Principal, named
from cluster.order.leading.queued import Report
from cluster.order.leading.rights import KEYS_ELSEWHERE
from cluster.order.log import Change, Control
from cluster.order.prepare import FATE, REPORT, decode_attempt
from cluster.order.sequencing.coordinator import Coordinator, Look, Wide
from cluster.order.sequencing.reports import Askable, Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.order.sound import Place, sound
from cluster.pacing.pace import Pace
from cluster.placement import Placement, Table
from cluster.raft import EntryKind, Role
from cluster.wire.messages import LEADER, LONE_HEAD, Method, Status
from node.links.fronts import FrontLink, Tell
from node.replica.moving.of_order import OrderMoves
from node.replica.pacing.pauses import CompanyTimer
from node.replica.roles.lone import OwnLog, OwnLogNode
from node.replica.roles.role import Body, Kinds, Owed
from node.replica.shards.birthing import Birthing
from node.replica.shards.controls import ControlWaits
from node.replica.shards.feed import Feeds, FeedsNode
from node.replica.shards.linked import RoleNode, linked, load_fold, not_leader
from node.replica.shards.retention import Retention
from node.replica.shards.to_leaders import Token, ToLeaders
from node.storage import Applied
from node.storage.kept import FOLDER
from node.storage.keys import FOLD
from node.upkeep.log.floors import FRAME
from node.upkeep.space.keeping import Keeping, KeepingNode

if TYPE_CHECKING:
    from node.links.peers import Peers
    from node.replica.applying import Applies
    from node.serving.confirm import Confirmations
    from node.serving.txns.uncounted import Uncounted
    from node.serving.watch.watches import WatchSource
    from node.upkeep.log.snapshots import Snapshots

_APPLY_BYTES, _APPLY_ENTRIES = 1 << 20, 256
_WIDE = frozenset((Method.WIDE, Method.LONE, Method.LEASE_REVOKE))


class OrderNode(RoleNode, OwnLogNode, FeedsNode, KeepingNode, Protocol):
    pace: Pace
    confirmations: Confirmations
    uncounted: Uncounted
    watches: WatchSource
    applies: Applies
    peers: Peers
    snapshots: Snapshots
    link_ends: list[Callable[[FrontLink], None]]
    acknowledge: Callable[[FrontLink, bytes, Tell], None]

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None: ...


class OrderRole(OwnLog):
    """See the module; ``node.replica.roles.role`` describes the methods."""

    gathers = False  # other nodes wait for what is applied here, and it is put in order first
    settled = False  # evaluate tells

    def __init__(self, node: OrderNode, kinds: Kinds) -> None:
        super().__init__(node)
        self.node = node
        self.settings, self.loop, self.store, self.pace = node.settings, node.loop, node.store, node.pace
        common = node.settings.common
        self.links = linked(node, kinds)
        node.upkeep.quota.share()
        self.placement = Placement(common.shard_count, common.placement_depth)
        self.moves = OrderMoves(self, node, kinds)
        self.fold = load_fold(node.store)
        self.birthing = Birthing(self)
        self.folded = node.applied_index  # the order record up to which it is
        self.feeds = Feeds(node)
        self.keeping = self.feeds.keeping = Keeping(
            node, node.machine.open_kept(os.path.join(node.settings.data_dir, FOLDER)), self.feeds.floors,
            lambda: (self.folded, self.fold))
        self.retention = Retention(node, self.feeds.floors, self.keeping, self.placement)
        self.reports: Reports = Reports()
        self.leaders = ToLeaders(self)
        self.sequencer: Sequencer[Token] | None = None  # once this node leads and serves
        self._coordinator_kind: type[Coordinator[Token]] = kinds.coordinator
        self.askable = Askable()
        self.askable.follow(self.placement.table, self.folded)
        self.controls = ControlWaits(node, lambda: self.askable.applied(self.reports, self.fold))
        self._follow_table(node.store.placement(), anew=True)
        self.cuts = 0
        self.company = CompanyTimer(self.loop, node.wake, node.machine.cpus_scarce)
        self.writes.on_logged, self.writes.lease_keys = self._logged, KEYS_ELSEWHERE
        node.acknowledge = self.controls.acknowledge
        node.expiry.decide = self._revoke_expired
        node.expiry.enough = lambda: self.coordinator is not None and self.coordinator.ends_enough
        node.upkeep.truncation.kept_for_others = self.retention.kept_for_others
        node.link_ends.append(self.feeds.gone)
        node.clock.each_heartbeat(self._heartbeat)
        node.clock.each_second(self.birthing.second)
        node.clock.each_second(lambda: self.feeds.alone.look(self.raft.commit_index, self.loop.time()))
        node.frames[FRAME[0]] = self.retention.came
        node.handlers.update({
            Method.REPORT: lambda link, rid, timeout_ms, body: self._report(link, body),
            Method.FEED: lambda link, rid, timeout_ms, body: self.feeds.subscribe(link, rid, body),
            Method.FEED_ACK: lambda link, rid, timeout_ms, body: self._acknowledged(link, body),
            Method.LONE: self._lone,
            Method.WIDE: lambda link, rid, *asked: node.uncounted.submit(link, rid, Method.WIDE, *asked),
            Method.QUERY: lambda link, rid, timeout_ms, body: self._query(link, rid, body),
        })

    @property
    def shards(self) -> Sequence[int]:
        return self.placement.running

    @property
    def coordinator(self) -> Coordinator[Token] | None:
        """Of transactions over several shards, once this node leads and serves."""
        return None if self.sequencer is None else self.sequencer.coordinator

    # -- requests

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        inner = method & ~SAID
        if inner in _WIDE:
            who, inner, body = named(method, body)
            if inner == Method.LONE:
                self._lone(link, rid, timeout_ms, body, who)
            elif inner == Method.WIDE:
                self.wide(link, rid, body[0], timeout_ms, body[1:], who)
            else:  # any shard may have keys of the lease: all take part (H6)
                self.wide(link, rid, inner, timeout_ms, body, who)
        elif inner in EVERYWHERE and self.controls.full:
            self.node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
        elif self.moves.has_left(method, body):  # G7
            who, inner, body = named(method, body)
            self.wide(link, rid, inner, timeout_ms, body, who)
        else:
            self.writes.submit(link, rid, method, body)

    @property
    def has_room(self) -> bool:
        return self.writes.due or (self.pace.held and self.company.enough(self._changes))

    def _lone(
        self, link: FrontLink, rid: int, timeout_ms: int, body: bytes, who: Principal | None = None
    ) -> None:
        """A front's only put: coordinated over its shard, unless it would wait for another transaction."""
        (shard,), request = LONE_HEAD.unpack_from(body), body[LONE_HEAD.size :]
        try:
            free = self.coordinator is None or self.coordinator.free_for(Method.PUT, request, shard)
        except EtcdError as e:
            self.node.reads.refuse(link, rid, e)
            return
        if free:
            self.wide(link, rid, Method.PUT, timeout_ms, request, who)
        else:
            link.answer(rid, Status.ELSEWHERE, LEADER.pack(0, 0))
            self.node.mark_dirty(link)

    def wide(
        self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes,
        who: Principal | None = None,
    ) -> None:
        coordinator = self.coordinator
        if coordinator is None:
            not_leader(self.node, link, rid)  # or elected and not serving yet: the front asks again
            return
        try:
            if (refusal := self.node.upkeep.quota.refusal(method, body)) is not None:
                raise EtcdError(refusal)
            if not coordinator.submit(
                    (link, rid), method, body, deadline_ms=self.node.now_ms() + timeout_ms,
                    who=who or (NOBODY if link.watches else FRONT)):
                raise EtcdError(errors.TOO_MANY_REQUESTS)
        except EtcdError as e:
            self.node.reads.refuse(link, rid, e)

    def _report(self, link: FrontLink, body: bytes) -> None:
        report = Report(*REPORT.unpack(body))
        before = self.reports.reporters.get(report.shard)
        if not self.reports.take(report, link.member_id):
            self.birthing.step()
            return
        if self.reports.reporters[report.shard] != before:
            self.node.roster.changes.another_leads(report.shard)
        if self.coordinator is not None:
            self.coordinator.leader_of(report.shard, report.term)
            if report.index > self.coordinator.fold.cut(report.shard).index:
                self.company.reported(report.shard)
        self.controls.release()

    def _query(self, link: FrontLink, rid: int, body: bytes) -> None:
        fate = self.coordinator.fate(decode_attempt(body)) if self.coordinator is not None else None
        if fate is not None:
            link.answer(rid, Status.OK, FATE.pack(fate))
            self.node.mark_dirty(link)

    # -- the sequencer

    def evaluate(self) -> None:
        sequencer = self.sequencer
        self.pace.held = False
        if sequencer is not None and self.sequencing and self.writes.has_room:
            coordinator = sequencer.coordinator
            self.moves.run()
            self.pace.held = self._expects_company(coordinator)
            last = self.raft.last_index  # what runs has no multi up to there
            if grown := sequencer.run(self.node.now_ms(), due=self.writes.due):
                self.cuts += 1
                self.company.cut(grown)
            self.leaders.send_prepares(coordinator, last)
            for wide, looked in coordinator.take_unlooked():
                assert wide.token is not None
                self.node.looking.start(*wide.token, looked, partial(self._looks, coordinator, wide, looked),
                                   partial(self._looked, coordinator, wide, looked))
        self.moves.sift()
        self.writes.run()
        self.node.confirmations.run(self.writes.leader is not None)

    def _looks(self, coordinator: Coordinator[Token], wide: Wide[Token], ahead: Look) -> bool:
        return coordinator is self.coordinator and coordinator.looks(wide, ahead)

    def _looked(
        self, coordinator: Coordinator[Token], wide: Wide[Token], ahead: Look, looked: Look | None
    ) -> None:
        if self._looks(coordinator, wide, ahead):
            coordinator.looked_at(wide, looked)

    @property
    def sequencing(self) -> bool:
        leader = self.writes.leader
        return (leader is not None and not self.raft.transferring and self.raft.role is Role.LEADER
                and self.raft.term == leader.term)

    def _expects_company(self, coordinator: Coordinator[Token]) -> bool:
        """Whether the next entry waits for reports that are about to come (``cluster.pacing.pace``)."""
        if self.writes.uncommitted or coordinator.busy or not (self.reports.uncut or self.writes.queued):
            return False
        return self.company.awaited(self._changes)

    def _changes(self) -> int:
        """Those of a record that would be made now."""
        fold = self.fold if self.sequencer is None else self.sequencer.tail.fold
        return self.writes.queued + self.reports.changes(fold)

    def _logged(self, index: int) -> None:
        if self.coordinator is not None:
            self.coordinator.logged(index)

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        self.leaders.ask(shard, method, body, answered)

    def _revoke_expired(self, leases: list[int]) -> None:
        """Leases that this term found due: one attempt for all of them (D7)."""
        if (coordinator := self.coordinator) is not None and leases:
            self.node.expiry.as_read(leases, partial(self._expire_at, coordinator))

    def _expire_at(self, coordinator: Coordinator[Token], leases: list[int]) -> None:
        if coordinator is self.coordinator:  # H7: otherwise another term has to find them due
            coordinator.submit(None, Method.LEASE_REVOKE, b"", leases)

    # -- the order log

    def apply(self, last: int) -> None:
        raft, fold, node = self.raft, self.fold, self.node
        while node.applied_index < last and not node.applies.busy:
            first = node.applied_index + 1
            entries = raft.log_entries(first, min(last, node.applied_index + _APPLY_ENTRIES))
            run: list[tuple[int, int, bytes]] = []
            changes: list[tuple[int, bytes, int, int]] = []
            size = 0
            for entry in entries:
                data = sound(entry.data, Place.ORDER) if entry.kind == EntryKind.RECORD else b""
                if self.moves.lacks(data):  # G5: what was before it is applied first
                    break
                self.feeds.judged(entry.index, data)
                run.append((entry.index, entry.term, data))
                for step in fold.take(data, 0):
                    if isinstance(step, Change) and step.items:
                        changes.append((step.revision, step.items, 0, step.sub if step.attempt else -1))
                    elif isinstance(step, Control):
                        changes.append((step.revision, step.item, 0, -1))
                size += len(data)
                if size >= _APPLY_BYTES:
                    break
            if not run:
                return
            self.folded, term, _ = run[-1]
            index = self.folded
            if index < last and (size >= _APPLY_BYTES or len(run) == _APPLY_ENTRIES):
                node.gathering.later()  # far behind: the loop is served between two runs
                last = index
            self.node.applies.run(
                self.store.apply_changes_slices(
                    changes, (index, index, term, fold.revision), want_events=self.node.watches.active,
                    meta={FOLD: fold.encode()}), partial(self._applied_run, run))

    def _applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        self._place(applied.placement)
        self.node.applied_run(run, applied)
        self.moves.applied(self.node.applied_index)
        leader = self.writes.leader
        if leader is not None and self.sequencer is None:
            self.sequence(leader)
        self.controls.release()
        # a change of members waits for what each node has on disk (I17)
        self.feeds.applied(self._concerned(), everybody=bool(applied.hosts))

    def _place(self, table: Table | None, *, anew: bool = False) -> None:
        """Go by a table that is applied here, with what is folded. ``anew``: it came with a state."""
        before = self.placement.running
        self._follow_table(table, anew=anew)
        if before != self.placement.running:
            self.node.roster.changes.shards_changed()
        self.birthing.step()

    def _follow_table(self, table: Table | None, *, anew: bool = False) -> None:
        if table is None or not table.generation:
            return
        self.placement.replace(table)
        self.askable.follow(table, self.folded, anew=anew)
        self.moves.follow(table)
        if table.has_born:
            self.birthing.follow(table, self.fold)

    def _concerned(self) -> Container[int]:
        fold = self.fold
        concerned: Container[int] = self.placement.ids if fold.concerns_all else fold.concerned
        fold.concerned, fold.concerns_all = set(), False
        return concerned

    def sequence(self, leader: Leader) -> None:
        common = self.settings.common
        # H15: the log's tail is all applied: this leader's own first entry was its last
        # and if another role was this node's until now, what is not applied has no cut
        tail = Tail(leader, self.fold.copy())
        for record in self.unapplied():
            tail.fold.take(sound(record, Place.ORDER), 0)
        self.birthing.begin()
        coordinator = self._coordinator_kind(
            leader.term, self.placement, leader.view, tail.fold, max_txn_ops=common.max_txn_ops,
            heartbeat_ms=common.heartbeat_interval_ms, gone=lambda token: not token[0].alive,
            users=leader.auth)
        coordinator.evaluator.refusal = self.node.upkeep.quota.refusal
        self.sequencer = Sequencer(
            tail, coordinator, self.placement, self.reports, self.writes, self.leaders.fetching,
            self.leaders.fetch)
        self.moves.begin(leader, coordinator)

    def leader_changed(self) -> None:
        if self.coordinator is not None and self.writes.leader is None:
            for link, rid in self.coordinator.resign():
                not_leader(self.node, link, rid)
            self.sequencer = None
            self.birthing.end()
            self.moves.end()
            self.company.close()
            self.pace.held = False
        self.controls.settle()

    @property
    def awaited(self) -> bool:
        return self.feeds.hasty

    def covers(self, voters: Collection[int], last: int) -> bool:
        return self.retention.covers(voters, last)

    def facts(self) -> dict[str, Any]:
        coordinator = self.coordinator.statistics() if self.coordinator is not None else {}
        return {
            "serving": self.coordinator is not None, "cuts": self.cuts,
            "multis": coordinator.get("completed", 0), "restarts": coordinator.get("restarted", 0),
            "running": coordinator.get("running", 0), "queued": coordinator.get("queued", 0),
            "feed_records": self.feeds.records, "records_lacking": self.feeds.alone.records,
            "shards_lacking": list(self.feeds.alone.lacking), "kept_bytes": self.keeping.bytes,
            "shards_kept": self.keeping.shards, **self.moves.facts()}

    def replaced(self) -> None:
        self.fold = load_fold(self.store)  # I19: the donor's, in the batch of its data
        self.folded = self.node.applied_index
        self._place(self.store.placement(), anew=True)  # which the fold knows
        self.moves.replaced()
        self.feeds.applied(self.placement.ids)

    @property
    def owed(self) -> Owed:
        if len(self.controls):  # the shards report to the leader only
            return Owed.LEADING
        if len(self.leaders.fetching) or (self.coordinator is not None and self.coordinator.awaited):
            return Owed.FATE
        return super().owed

    # -- the tick

    def finish(self) -> None:
        if self.reports.uncut and self.sequencing and self.writes.due:
            self.node.wake()
        self.leaders.send_asks()
        self.links.flush()

    def _heartbeat(self) -> None:
        self.leaders.heartbeat()
        self.controls.forget()
        if self.coordinator is not None and not self.writes.has_room:  # else it runs
            self.coordinator.sweep(self.node.now_ms())
        self.birthing.step()
        self.retention.heartbeat()

    def _acknowledged(self, link: FrontLink, body: bytes) -> None:
        self.feeds.acknowledge(link, body)
        self.retention.acknowledged()

    def close(self) -> None:
        self.feeds.close()
        self.moves.close()
        self.keeping.close()
        self.birthing.close()
        self.links.close()
