"""The role of shard 0 in a store of several: the order log, the sequencer when it leads, the others' feed.

Besides what every node does: cuts out of the other leaders' reports, transactions over several shards
(``cluster.order.sequencing.coordinator``), and projections of what is committed for the other nodes
(``node.replica.shards.feed``). Control records (compaction) are acknowledged only when every shard's leader
has applied them (H11, I20).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.feature_table import EVERYWHERE
from cluster.evaluate.replica import Leader
from cluster.features.auth.principal import FRONT, NOBODY, SAID, Principal, named
from cluster.order.leading.queued import Report
from cluster.order.leading.rights import KEYS_ELSEWHERE
from cluster.order.log import Attempt, Change, Control
from cluster.order.prepare import FATE, REPORT, Grant, decode_attempt
from cluster.order.sequencing.controls import Controls
from cluster.order.sequencing.coordinator import MAX_WAITING, Coordinator, Look, Wide
from cluster.order.sequencing.fetching import Ask, Fetched, Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.order.sound import Place, sound
from cluster.pacing.pace import Company, Pace
from cluster.placement import Placement
from cluster.raft import EntryKind, Role
from cluster.wire.messages import ANSWER, LEADER, LONE_HEAD, Method, Status
from node.links.fronts import FrontLink
from node.links.siblings import NodeLink
from node.replica.lone import owed_of_writes, unapplied_records
from node.replica.role import Body, Kinds, Owed, RoleNode
from node.replica.shards.feed import Feeds, FeedsNode
from node.replica.shards.linked import FOLD, linked, load_fold, not_leader
from node.storage import Applied
from node.upkeep.floors import FRAME, REPEAT_S

if TYPE_CHECKING:
    from node.links.peers import Peers
    from node.replica.applying import Applies
    from node.replica.pauses import GatheringTimer
    from node.replica.writes import Writes
    from node.serving.confirm import Confirmations
    from node.serving.looking import Looking
    from node.serving.watches import WatchSource

log = structlog.get_logger("sequencer")

_APPLY_BYTES, _APPLY_ENTRIES = 1 << 20, 256
_WIDE = frozenset((Method.WIDE, Method.LONE, Method.LEASE_REVOKE))
_SHORT_S = 60.0  # between two warnings that records are kept beyond the bound
Token = tuple[FrontLink, int]
Waits = tuple[FrontLink, bytes]  # whom to tell, and the record that says so


class OrderNode(RoleNode, FeedsNode, Protocol):
    """What node 0 is to its role besides."""

    writes: Writes
    pace: Pace
    confirmations: Confirmations
    looking: Looking
    watches: WatchSource
    gathering: GatheringTimer
    applies: Applies
    peers: Peers
    link_ends: list[Callable[[FrontLink], None]]
    acknowledge: Callable[[FrontLink, bytes], None]

    def now_ms(self) -> int:
        """Raft's time."""

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        """A run of the order log is applied."""


class OrderRole:
    """See the module and ``node.replica.role``."""

    gathers = False  # other nodes wait for what is applied here, and it is put in order first
    settled = False  # it is asked

    def __init__(self, node: OrderNode, kinds: Kinds) -> None:
        self.node = node
        self.settings, self.loop, self.raft, self.store = node.settings, node.loop, node.raft, node.store
        self.writes, self.pace = node.writes, node.pace
        common = node.settings.common
        self.links = linked(node, kinds)
        self.placement = Placement(common.shard_count, common.placement_depth)
        self.fold = load_fold(node.store)
        self.feeds = Feeds(node)
        self.reports = Reports()
        self.fetching = Fetching(common.heartbeat_interval_ms)
        self.sequencer: Sequencer[Token] | None = None  # once this node leads and serves
        self._coordinator_kind: type[Coordinator[Token]] = kinds.coordinator
        self._controls: Controls[Waits] = Controls()
        self.cuts = 0
        self.company = Company()
        self._patience: asyncio.TimerHandle | None = None  # ends the wait for it
        self._told = (b"", 0.0)  # other node 0s, of this host's floors: what and when
        self._short_since: float | None = None  # records are kept beyond the bound, for other hosts (I17)
        self.writes.on_logged = self._logged
        self.writes.lease_keys = KEYS_ELSEWHERE
        node.acknowledge = self.acknowledge
        node.expiry.decide = self._revoke_expired
        node.upkeep.truncation.kept_for_others = self.kept_for_others
        node.link_ends.append(self.feeds.gone)
        node.clock.each_heartbeat(self._heartbeat)
        node.clock.each_second(self._second)
        node.frames[FRAME[0]] = self.feeds.floors.came
        node.handlers.update({
            Method.REPORT: lambda link, rid, timeout_ms, body: self._report(link, body),
            Method.FEED: lambda link, rid, timeout_ms, body: self.feeds.subscribe(link, rid, body),
            Method.FEED_ACK: lambda link, rid, timeout_ms, body: self.feeds.acknowledge(link, body),
            Method.LONE: self._lone,
            Method.WIDE: lambda link, rid, timeout_ms, body: self._wide(
                link, rid, body[0], timeout_ms, body[1:]),
            Method.QUERY: lambda link, rid, timeout_ms, body: self._query(link, rid, body),
        })

    @property
    def coordinator(self) -> Coordinator[Token] | None:
        """Of the transactions over several shards, once this node leads and serves."""
        return None if self.sequencer is None else self.sequencer.coordinator

    # -- requests

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """A write of a front; one over several shards is coordinated."""
        inner = method & ~SAID
        if inner in _WIDE:
            who, inner, body = named(method, body)
            if inner == Method.LONE:
                self._lone(link, rid, timeout_ms, body, who)
            elif inner == Method.WIDE:
                self._wide(link, rid, body[0], timeout_ms, body[1:], who)
            else:  # its keys may hang anywhere: all shards take part (H6)
                self._wide(link, rid, inner, timeout_ms, body, who)
        elif inner in EVERYWHERE and len(self._controls) >= MAX_WAITING:
            self.node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
        else:
            self.writes.submit(link, rid, method, body)

    @property
    def alone(self) -> bool:
        """Whether at most one write is on its way here, and none waits."""
        return self.writes.alone

    @property
    def queued(self) -> int:
        """Writes that wait to be evaluated, or are looked at before."""
        return self.writes.queued + self.writes.aside

    @property
    def has_room(self) -> bool:
        """Whether a tick would evaluate writes that are queued."""
        return self.writes.due

    def _lone(
        self, link: FrontLink, rid: int, timeout_ms: int, body: bytes, who: Principal | None = None
    ) -> None:
        """A put that is alone at its front: as a transaction over its shard, unless it would have to wait for
        another."""
        (shard,), request = LONE_HEAD.unpack_from(body), body[LONE_HEAD.size :]
        try:
            free = self.coordinator is None or self.coordinator.free_for(Method.PUT, request, shard)
        except EtcdError as e:
            self.node.reads.refuse(link, rid, e)
            return
        if free:
            self._wide(link, rid, Method.PUT, timeout_ms, request, who)
        else:
            link.answer(rid, Status.ELSEWHERE, LEADER.pack(0, 0))
            self.node.mark_dirty(link)

    def _wide(
        self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes,
        who: Principal | None = None,
    ) -> None:
        coordinator = self.coordinator
        if coordinator is None:
            # elected and not serving yet, or no leader at all: the front asks again
            not_leader(self.node, link, rid)
            return
        try:
            if (refusal := self.node.upkeep.quota.refusal(method, body)) is not None:
                raise EtcdError(refusal)
            accepted = coordinator.submit(
                (link, rid), method, body, deadline_ms=self.node.now_ms() + timeout_ms,
                who=who or (NOBODY if link.watches else FRONT))
        except EtcdError as e:
            self.node.reads.refuse(link, rid, e)
            return
        if not accepted:
            self.node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))

    def _report(self, link: FrontLink, body: bytes) -> None:
        report = Report(*REPORT.unpack(body))
        self.reports.take(report, link.member_id)
        if self.coordinator is not None:
            self.coordinator.leader_of(report.shard, report.term)
            if report.index > self.coordinator.fold.cut(report.shard).index:
                self.company.reported(report.shard, self.loop.time())
        self._release_controls()

    def _query(self, link: FrontLink, rid: int, body: bytes) -> None:
        fate = self.coordinator.fate(decode_attempt(body)) if self.coordinator is not None else None
        if fate is not None:
            link.answer(rid, Status.OK, FATE.pack(fate))
            self.node.mark_dirty(link)

    # -- the sequencer

    def evaluate(self) -> None:
        """The first part of a tick: the sequencer's, then that of every node."""
        sequencer = self.sequencer
        self.pace.held = False
        if sequencer is not None and self._sequencing and self.writes.has_room:
            coordinator = sequencer.coordinator
            self.pace.held = self._expects_company(coordinator)
            if grown := sequencer.run(self.node.now_ms(), due=self.writes.due):
                self.cuts += 1
                self.company.cut(grown, self.loop.time())
            self._send_prepares(coordinator)
            for wide, looked in coordinator.take_unlooked():
                assert wide.token is not None
                self.node.looking.start(*wide.token, looked, partial(self._looks, coordinator, wide, looked),
                                   partial(self._looked, coordinator, wide, looked))
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
    def _sequencing(self) -> bool:
        leader = self.writes.leader
        return (leader is not None and not self.raft.transferring and self.raft.role is Role.LEADER
                and self.raft.term == leader.term)

    def _expects_company(self, coordinator: Coordinator[Token]) -> bool:
        """Whether what could leave waits for reports that are about to come (``cluster.pacing.pace``)."""
        if self.writes.uncommitted or coordinator.busy or not (self.reports.uncut or self.writes.queued):
            return False
        patience_s = self.company.patience_s(self.loop.time())
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(patience_s, self.node.wake) if patience_s else None
        return patience_s > 0

    def _fetch(
        self, attempt: Attempt, members: Mapping[int, int], rows: Fetched, token: Token,
        then: Callable[[bool], None],
    ) -> None:
        link, rid = token
        self.fetching.start(attempt, members, rows, lambda: link.awaits(rid), then, self.node.now_ms())
        self.node.wake()

    def _send_asks(self) -> None:
        for ask in self.fetching.take_messages():
            if (link := self.links.find(ask.member_id, ask.shard)) is not None:
                link.request(Method.SHOWN, ask.body, partial(self._came, ask) if ask.answered else None)

    def _came(self, ask: Ask, status: int, body: bytes) -> None:
        self.fetching.came(ask, body if status == Status.OK else None, self.node.now_ms())
        self.node.wake()

    def _logged(self, index: int) -> None:
        if self.coordinator is not None:
            self.coordinator.logged(index)

    def _send_prepares(self, coordinator: Coordinator[Token]) -> None:
        for message in coordinator.take_messages():
            member_id = self.reports.reporters.get(message.shard)
            link = self.links.find(member_id, message.shard) if member_id is not None else None
            if link is None:
                continue
            if message.method == Method.PREPARE:
                attempt = decode_attempt(message.body[:16])
                link.request(message.method, message.body, self._answered(link, message.shard, attempt))
            else:
                link.request(message.method, message.body)

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """Ask whoever reported last that it leads there."""
        member_id = self.reports.reporters.get(shard)
        link = self.links.find(member_id, shard) if member_id is not None else None
        if link is not None:
            link.request(method, body if isinstance(body, bytes) else body(link.version), answered)
            self.node.wake()

    def _answered(self, link: NodeLink, shard: int, attempt: Attempt) -> Callable[[int, bytes], None]:
        def answered(status: int, body: bytes) -> None:
            coordinator = self.coordinator
            if coordinator is None or attempt.term != coordinator.term:
                return
            if status == Status.OK:
                grant = Grant.decode(body)
                grant.member_id = link.member_id
                coordinator.granted(attempt, shard, grant)
            elif status == Status.LOCKED:
                coordinator.refused(attempt, shard, decode_attempt(body), self.node.now_ms())

        return answered

    def _revoke_expired(self, leases: list[int]) -> None:
        """Leases that this term found due: one attempt for all of them (D7)."""
        coordinator = self.coordinator
        if coordinator is not None and leases:
            self.node.expiry.as_read(leases, partial(self._expire_at, coordinator))

    def _expire_at(self, coordinator: Coordinator[Token], leases: list[int]) -> None:
        if coordinator is self.coordinator:  # H7: else another term has to find them due
            coordinator.submit(None, Method.LEASE_REVOKE, b"", leases)

    # -- the order log

    def apply(self, last: int) -> None:
        """Every entry is in order, and its items get their revisions by the fold."""
        raft, fold, node = self.raft, self.fold, self.node
        while node.applied_index < last and not node.applies.busy:
            first = node.applied_index + 1
            entries = raft.log_entries(first, min(last, node.applied_index + _APPLY_ENTRIES))
            run: list[tuple[int, int, bytes]] = []
            changes: list[tuple[int, bytes, int, int]] = []
            size = 0
            for entry in entries:
                data = sound(entry.data, Place.ORDER) if entry.kind == EntryKind.RECORD else b""
                self.feeds.judged(entry.index, data)
                run.append((entry.index, entry.term, data))
                for step in fold.take(data, 0):
                    if isinstance(step, Change):
                        if step.items:
                            changes.append((step.revision, step.items, 0, step.sub if step.attempt else -1))
                    elif isinstance(step, Control):
                        changes.append((step.revision, step.item, 0, -1))
                size += len(data)
                if size >= _APPLY_BYTES:
                    break
            index, term, _ = run[-1]
            if index < last and (size >= _APPLY_BYTES or len(run) == _APPLY_ENTRIES):
                node.gathering.later()  # far behind, as after a restart: the loop is served between two runs
                last = index
            self.node.applies.run(
                self.store.apply_changes_slices(
                    changes, (index, index, term, fold.revision), want_events=self.node.watches.active,
                    meta={FOLD: fold.encode()}),
                partial(self._applied_run, run))

    def _applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        self.node.applied_run(run, applied)
        leader = self.writes.leader
        if leader is not None and self.sequencer is None:
            self._sequence(leader)
        self._release_controls()
        self.feeds.applied(self._concerned())

    def _concerned(self) -> Container[int]:
        """The shards whose leaders wait for what was applied since the last call."""
        fold = self.fold
        concerned: Container[int] = range(self.placement.shards) if fold.concerns_all else fold.concerned
        fold.concerned, fold.concerns_all = set(), False
        return concerned

    def catch_up(self) -> None:
        """Have all applied that is known to be committed."""
        gathering = self.node.gathering
        if gathering.waits:
            gathering.catch_up()

    def _sequence(self, leader: Leader) -> None:
        """This replica leads, and its first entry has just been applied."""
        common = self.settings.common
        # H15: nothing is in the log's tail beyond what is applied: this leader's own first entry was its last
        tail = Tail(leader, self.fold.copy())
        coordinator = self._coordinator_kind(
            leader.term, self.placement, leader.view, tail.fold, max_txn_ops=common.max_txn_ops,
            heartbeat_ms=common.heartbeat_interval_ms, gone=lambda token: not token[0].alive,
            users=leader.auth)
        self.sequencer = Sequencer(
            tail, coordinator, self.placement, self.reports, self.writes, self.fetching, self._fetch)

    def leader_changed(self) -> None:
        """Who does not lead any more coordinates nothing."""
        if self.coordinator is not None and self.writes.leader is None:
            for link, rid in self.coordinator.resign():
                not_leader(self.node, link, rid)
            self.sequencer = None
            self.company, self.pace.held = Company(self.company.busy), False
        self._settle_controls()

    @property
    def awaited(self) -> bool:
        """Whether another node wants the order's records at once."""
        return self.feeds.hasty

    def kept_for_others(self, least: int) -> int:
        """Log entries after this are kept for nodes of other shards, those up to ``least`` only where they
        must be (``node.upkeep.floors``)."""
        floors, voters, now = self.feeds.floors, self.raft.configuration.voters, self.loop.time()
        kept_after = floors.kept_after(least, voters)
        if kept_after >= least:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        elif now - self._short_since >= _SHORT_S:
            self._short_since = now
            log.warning(
                "more of the order is kept than usual: most replicas of a shard are down or far behind",
                shard=floors.of_majority(voters)[1],
                records=self.node.applied_index - kept_after,
            )
        return kept_after

    def facts(self) -> dict[str, Any]:
        """What the sequencer has done."""
        coordinator = self.coordinator.statistics() if self.coordinator is not None else {}
        return {
            "serving": self.coordinator is not None,
            "cuts": self.cuts,
            "multis": coordinator.get("completed", 0),
            "restarts": coordinator.get("restarted", 0),
            "running": coordinator.get("running", 0),
            "queued": coordinator.get("queued", 0),
            "feed_records": self.feeds.records,
            "records_lacking": self.feeds.alone.records,
            "shards_lacking": list(self.feeds.alone.lacking),
        }

    def replaced(self) -> None:
        """Another state was installed."""
        self.fold = load_fold(self.store)  # I19: the donor's, in the batch of its data
        self.feeds.applied(range(self.placement.shards))

    # -- control records

    @property
    def owed(self) -> Owed:
        """Controls are answered by who leads: the shards report to nobody else."""
        if len(self._controls):
            return Owed.LEADING
        if len(self.fetching) or (self.coordinator is not None and self.coordinator.awaited):
            return Owed.FATE
        return owed_of_writes(self.writes, self.node.looking)

    def unapplied(self) -> Iterable[bytes]:
        """Records of the order that are here and not applied yet."""
        return unapplied_records(self.raft, self.node.applied_index)

    def acknowledge(self, link: FrontLink, record: bytes) -> None:
        """A compaction is applied here: it is acknowledged once every shard's leader has applied it (I20)."""
        if len(self._controls) < MAX_WAITING:
            self._controls.add(self.node.applied_index, (link, record))
            self._release_controls()
            self._settle_controls()
        else:  # it was logged before so many waited
            self._tell_unknown(link, record)
        assert len(self._controls) <= MAX_WAITING, "I23: what waits is bounded"

    def _release_controls(self) -> None:
        if not len(self._controls):
            return
        applied = self.reports.applied_by_all(range(1, self.placement.shards), self.fold)
        for link, record in self._controls.done(applied):
            link.put(record)
            self.node.mark_dirty(link)

    def _settle_controls(self) -> None:
        """Who does not lead is not told any more what the shards' leaders have applied: whoever waits for
        that hears that the outcome is unknown. Not that it is lost: it is applied here, and must not be asked
        for again (I23)."""
        if self.raft.role is not Role.LEADER:
            for link, record in self._controls.all():
                self._tell_unknown(link, record)

    def _tell_unknown(self, link: FrontLink, record: bytes) -> None:
        link.answer(
            ANSWER.unpack_from(record)[0],
            Status.UNKNOWN,
            EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode(),
        )
        self.node.mark_dirty(link)

    def _forget_controls(self) -> None:
        """Their fronts have told their clients that the outcome is unknown: a shard without a leader ends no
        wait (I23)."""
        self._controls.keep(lambda waits: waits[0].awaits(ANSWER.unpack_from(waits[1])[0]))

    # -- the tick

    def finish(self) -> None:
        """Look whether more is to be cut, and send what is for other nodes."""
        if self.reports.uncut and self._sequencing and self.writes.due:
            self.node.wake()
        self._send_asks()
        self.links.flush()

    def _heartbeat(self) -> None:
        self.fetching.again(self.node.now_ms())
        if len(self._controls):
            self._forget_controls()
        said, now = self.feeds.floors.encode(), self.loop.time()
        if said != self._told[0] or now - self._told[1] >= REPEAT_S:
            self._told = said, now
            for peer in self.node.roster.table.peers:
                self.node.peers.send(peer.member_id, FRAME, said)

    def _second(self) -> None:
        self.feeds.alone.look(self.raft.commit_index, self.loop.time())

    def close(self) -> None:
        """The node is closing."""
        self.links.close()
