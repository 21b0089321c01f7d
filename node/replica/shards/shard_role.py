"""The role of a shard other than 0: its own Raft group, applied in the order that the order log gives.

What its group commits is reported to the sequencer and waits. The feed of order records, from any host's
node 0, says what is applied next and at which revisions. A cut is applied only when this node's own entry
at the cut's index has the cut's term (H3, I6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster.effects.newer import NewerRecord
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate.replica import Ahead
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.features.auth.principal import SAID, named
from cluster.order.following.feed_queue import Run
from cluster.order.following.placing import Placed, Placing
from cluster.order.following.questions import LockQuestions
from cluster.order.following.reporting import Reporting
from cluster.order.leading.attempts import Reading
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import Attempt
from cluster.order.prepare import FATE, REPORT, Prepare, decode_attempt, encode_attempt
from cluster.order.shown import ENOUGH, ShownRows, decode_ask
from cluster.pacing.patience import HURRY_S
from cluster.raft import Role
from cluster.wire.frames import ORDER_INDEX, PREPARE_SAYS_WHEN, STATE_WANTED, PeerKind
from cluster.wire.messages import HEAD, NO_HASTE, PUT_ANSWER, Method, Status
from node.links.fronts import FrontLink, Request
from node.replica.moving.of_shard import ShardMoves
from node.replica.pacing.pauses import ReturningTimer
from node.replica.roles.role import Body, Kinds, Owed
from node.replica.shards.fates import Fates, FatesNode
from node.replica.shards.feed_end import FeedEnd, FeedEndNode
from node.replica.shards.handover import HandOver, HandOverNode
from node.replica.shards.linked import linked, load_fold, not_leader
from node.slicing.slicer import Slices
from node.storage import Applied, ApplyFailed, StorageError
from node.storage.keys import FOLD

if TYPE_CHECKING:
    from cluster.machine import Syncs
    from cluster.pacing.pace import Pace
    from cluster.raft import Ready
    from node.replica.applying import Applies
    from node.serving.auth.guard import Guard
    from node.serving.txns.looking import Looking
    from node.upkeep.log.snapshots import Snapshots

log = structlog.get_logger("shard")

Token = tuple[FrontLink, int]


class ShardNode(FeedEndNode, HandOverNode, FatesNode, Protocol):
    pace: Pace
    guard: Guard
    looking: Looking
    snapshots: Snapshots
    applies: Applies
    syncer: Syncs
    applied_index: int
    dirty: set[FrontLink]

    def handle(self, ready: Ready) -> None: ...
    def after_apply(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None: ...


class ShardRole:
    """See the module; ``node.replica.roles.role`` describes the methods."""

    gathers = False  # what is applied here is put in order first
    awaited = True  # the feed's haste says how soon (node.replica.shards.feed)
    settled = False  # evaluate tells
    shards: Sequence[int] = ()  # shard 0's nodes know

    def __init__(self, node: ShardNode, kinds: Kinds) -> None:
        self.node = node
        self.settings, self.raft, self.store, self.pace = node.settings, node.raft, node.store, node.pace
        self.loop = loop = node.loop
        settings, common = node.settings, node.settings.common
        self.links = linked(node, kinds)
        self.placing = Placing(settings.shard, load_fold(node.store), node.raft.log_entries)
        self.feed = FeedEnd(self)
        self.leading: ShardLeader[Token] | None = None
        self.shown = ShownRows()
        self.returning = ReturningTimer(loop, self.pace, node.wake, node.machine.cpus_scarce)
        self.fates = Fates(node)
        self._reporting = Reporting(common.heartbeat_interval_ms / 1000)
        self._questions = LockQuestions(common.heartbeat_interval_ms / 1000)
        self.handover = HandOver(self, settings.leader_placement)
        self.moves = ShardMoves(self, node, kinds)
        node.clock.each_heartbeat(self._heartbeat)
        node.clock.each_second(self._second)
        node.upkeep.on_flushed = self._flushed
        node.frames[STATE_WANTED[0]] = self._state_wanted
        node.frames[PeerKind.HAND_OVER.byte[0]] = self.handover.frame
        node.handlers.update({
            Method.PREPARE: lambda link, rid, timeout_ms, body: self._prepare(link, rid, body),
            Method.RELEASE: lambda link, rid, timeout_ms, body: self._release(decode_attempt(body)),
            Method.SHOWN: lambda link, rid, timeout_ms, body: self._show(link, rid, *decode_ask(body))})

    def close(self) -> None:
        self.moves.close()
        self.feed.late.close()
        self.shown.clear()
        self.links.close()

    @property
    def owed(self) -> Owed:
        waits = len(self.fates) or len(self.node.looking) or (self.leading is not None and self.leading.busy)
        return Owed.FATE if waits else Owed.NOTHING

    @property
    def members_change(self) -> bool:
        return self.node.upkeep.flushes.hurried

    # -- requests

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        if self.leading is None:
            not_leader(self.node, link, rid)
        elif (refusal := self._refusal(method, body)) is not None:
            self.node.reads.refuse(link, rid, EtcdError(refusal))
        else:
            self.leading.submit((link, rid), method, body)

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        return False

    def _refusal(self, method: int, body: bytes) -> ErrorKind | None:
        return self.node.upkeep.quota.refusal(*(named(method, body)[1:] if method & SAID else (method, body)))

    def _prepare(self, link: FrontLink, rid: int, body: bytes) -> None:
        if self.leading is None:
            not_leader(self.node, link, rid)
        else:
            prepare = Prepare.decode(body)
            if prepare.sent_at is None and link.version >= PREPARE_SAYS_WHEN:
                prepare.sent_at = 0  # its sender had not heard yet what this link speaks: it sends it again
            then = partial(self._prepare_for, self.leading, (link, rid), prepare)
            self.node.expiry.when_read(prepare.leases, then)

    def _release(self, attempt: Attempt) -> None:
        if self.leading is not None:
            self.leading.release(attempt)
        self.shown.drop(attempt)

    def _show(self, link: FrontLink, rid: int, attempt: Attempt, number: int) -> None:
        if number == ENOUGH:
            self.shown.drop(attempt)
            self._pin_others()
        else:
            self.node.reads.start(link, rid, self._piece(link, rid, attempt, number))

    def _piece(self, link: FrontLink, rid: int, attempt: Attempt, number: int) -> Slices:
        piece = self.shown.piece(attempt, number)
        link.answer(rid, Status.UNKNOWN if piece is None else Status.OK, piece or b"")
        return
        yield  # one step

    def _pin_others(self) -> None:
        if self.leading is not None:
            self.leading.let_go()

    def _prepare_for(self, leading: ShardLeader[Token], token: Token, prepare: Prepare) -> None:
        if leading is self.leading:
            leading.prepare(token, prepare)

    @property
    def alone(self) -> bool:
        return self.leading is None or self.leading.alone

    @property
    def queued(self) -> int:
        return 0 if self.leading is None else self.leading.queued + len(self.leading.aside)

    @property
    def has_room(self) -> bool:
        return self.leading is not None and self.leading.runnable and self.raft.takes_proposals

    # -- leading

    def leader_changed(self) -> None:
        # What a lost term logged waits for its fate; a new leader serves once its first cut is applied.
        leading = self.leading
        if leading is not None and (self.raft.role is not Role.LEADER or leading.term != self.raft.term):
            lost, open_batches = leading.resign()
            for link, rid in lost:
                not_leader(self.node, link, rid)
            for index, batch in open_batches:
                self.fates.keep(index, leading.term, batch)
            self._drain(leading)
            self.leading = None
            self.returning.close()
        if self.leading is None and self.raft.role is Role.LEADER:
            last = self.raft.last_index
            self.leading = ShardLeader(
                self.store, self.settings.shard, self.raft.term,
                Start(last, self.placing.inherited_count(last, self.node.applied_index),
                      self.node.order_index),
                max_txn_ops=self.settings.common.max_txn_ops,
                pace=self.pace, shown=self.shown, users=lambda: self.node.guard.state)
            self.leading.rights.refusal = self.node.upkeep.quota.refusal
            self.moves.lead(self.leading)

    def evaluate(self) -> None:
        leading = self.leading
        if leading is None or not leading.serving or not self.raft.takes_proposals:
            return  # it hands over, or too much is uncommitted: what is queued waits
        if self.raft.term != leading.term:
            return  # deposed by a message of this tick: what is queued is refused when Raft tells so
        leading.run()
        if leading.dirty:
            cut = self.placing.fold.cut(self.settings.shard)
            assert cut.term >= leading.term, (
                f"I8: the leader of term {leading.term} evaluates, the latest cut here is {cut}"
            )
            self.returning.taken()
            leading.logged(self.raft.propose(leading.seal()))

    def _looks(self, leading: ShardLeader[Token], token: Token, what: bytes | Attempt) -> bool:
        wanted = leading.looks(what) if isinstance(what, Attempt) else token in leading.aside
        return leading is self.leading and wanted

    def _looked(
        self, leading: ShardLeader[Token], token: Token, what: bytes | Attempt,
        looked: Ahead | Reading | None,
    ) -> None:
        if not isinstance(what, Attempt):
            assert not isinstance(looked, Reading)
            leading.resume(token, looked)  # nothing, once the term is lost
        elif leading is not self.leading:
            not_leader(self.node, *token)
        else:
            assert looked is None or isinstance(looked, RangeCompares | Reading)
            leading.looked_at(what, looked)

    def _drain(self, leading: ShardLeader[Token]) -> int:
        last, count = None, 0
        for puts, before in leading.take_puts():
            count += len(puts)
            pack, head_bytes, term = PUT_ANSWER.pack, HEAD.size, leading.term
            for revision, ((link, rid), *_) in enumerate(puts, before + 1):
                if link is not last:
                    last, put = link, link.put
                    if link.alive:
                        self.node.dirty.add(link)
                put(pack(rid, 0, head_bytes, revision, term))
        answers = leading.take_answers()
        for (link, rid), status, body in answers:
            if link.alive:
                self.node.past.deliver(link, rid, status, body, leading.term)
                self.node.dirty.add(link)
        return count + len(answers)

    # -- the order

    def apply(self, last: int) -> None:
        self._follow()

    def catch_up(self) -> None:
        late = self.feed.late
        if late.waits:
            late.hasten()
            while (ready := self.raft.ready()) is not None:  # nothing is applied that it has not handed out
                self.node.handle(ready)
            late.hasten()  # a Ready may have begun a new pause
            self._follow()
            self.node.wake()

    def _follow(self) -> None:
        queue = self.feed.queue
        if not queue or self.feed.may_wait():
            return
        while queue and not self.node.applies.busy:
            run, ordered, waits_for = queue.run(self.raft.announced_index)
            if waits_for is not None and self.raft.prove_committed(waits_for.index, waits_for.term):  # C6
                self.node.wake()
            if not run:
                return
            self.feed.late.applied()
            try:
                self._apply_records(run, ordered)
            except (StorageError, NewerRecord):
                raise
            except Exception as error:
                # they have left the feed: the caller must not go on without them (I6)
                raise ApplyFailed(
                    f"order records {run[0][0]} to {run[-1][0]} could not be applied: {error!r}") from error

    def _apply_records(self, run: Run, ordered: int) -> None:
        node, fold, last = self.node, self.placing.fold, run[-1][0]
        placed = self.placing.take(run, node.applied_index, self.store.position.term, self.leading)
        size = sum([len(change[1]) for change in placed.changes])

        def done(applied: Applied) -> None:
            node.order_index = last
            node.applied_index = placed.index
            self.raft.applied(placed.index)
            node.upkeep.logged_bytes(size, ordered)
            node.after_apply([], applied)
            if applied.placement is not None:
                self.moves.place(applied.placement)
            self._tell(placed)
            self.feed.applied(last, sum([len(projection) for _, _, projection in run]))
            if placed.control:
                self._report(force=True)

        node.applies.run(
            self.store.apply_changes_slices(
                placed.changes, (last, placed.index, placed.term, fold.revision),
                want_events=node.watches.active, meta={FOLD: fold.encode()}, evaluated=placed.evaluated),
            done)

    def _tell(self, placed: Placed) -> None:
        leading = self.leading
        for step in placed.cuts:  # all of them first: what waits compares with what the store shows
            self.fates.decide(step.cut, placed.before)
            if leading is None or step.cut.term != leading.term:
                continue
            if leading.serving:
                leading.applied_entries(step.cut.index, step.revision)
            else:
                leading.serve()
                self.node.standing.say_state()
                self.node.standing.leads()
        if leading is not None:
            leading.applied_records(placed.records)
            self.returning.answered(self._drain(leading), leading.queued)

    def _state_wanted(self, member_id: int, data: bytes) -> None:
        if len(data) == ORDER_INDEX.size and ORDER_INDEX.unpack(data)[0] < self.node.order_index:
            # any position that is further on in the order helps it
            self.node.snapshots.send_to(member_id, 0)

    # -- reports

    def _report(self, *, force: bool) -> None:
        if self.leading is None or self.raft.term != self.leading.term:
            return  # or deposed in this turn: what is committed may be its successor's
        feed = self.feed.link
        report = self.leading.report(self.raft.commit_index)
        if report is None or feed is None or not feed.leader:
            return
        link = feed if feed.leader == feed.member_id else self.links.find(feed.leader, 0)
        if link is None:
            return
        force = force or report.urgent
        if not self._reporting.says(report.term, report.index, link, self.loop.time(), force=force):
            return
        link.request(Method.REPORT, REPORT.pack(report.shard, report.index, report.term, report.count,
                                                report.applied_order))

    def _repeat_report(self) -> None:
        """Each heartbeat until the feed shows it, then seldom: a report is state, and may be lost."""
        cut = self.placing.fold.cut(self.settings.shard)
        self._report(force=self._reporting.again(cut, self.loop.time()))

    def _query_locks(self) -> None:
        leading, feed = self.leading, self.feed.link
        if leading is None or feed is None or not feed.leader:
            self._questions.forget()
            return
        for attempt in self._questions.due(leading.undecided(), self.loop.time()):
            if (link := self.links.find(feed.leader, 0)) is not None:
                link.request(Method.QUERY, encode_attempt(attempt), self._fate(attempt))

    def _fate(self, attempt: Attempt) -> Callable[[int, bytes], None]:
        def told(status: int, body: bytes) -> None:
            leading = self.leading
            if status == Status.OK and leading is not None and FATE.unpack(body)[0] <= self.node.order_index:
                leading.release(attempt)

        return told

    # -- the tick

    def finish(self) -> None:
        self._follow()
        leading = self.leading
        if leading is not None:
            self._drain(leading)
            for token, what, looked in leading.take_unlooked():
                self.node.looking.start(
                    token[0], token[1], looked, partial(self._looks, leading, token, what),
                    partial(self._looked, leading, token, what))
            self._report(force=False)
            if leading.ready and self.raft.takes_proposals:
                self.node.wake()
        if len(self.node.reads.waiting):
            self.node.hurried_until = self.loop.time() + HURRY_S
        haste = self.feed.haste()
        self.node.syncer.unserved = self.node.clock.calm = haste == NO_HASTE
        self.feed.hasten(haste)
        self.links.flush()

    def _heartbeat(self) -> None:
        self.feed.subscribe()
        self._repeat_report()
        self.feed.acknowledge(soon=False)
        self._query_locks()
        self.handover.heartbeat()
        if self.leading is not None:
            self.leading.forget(lambda token: not token[0].awaits(token[1]))
        if len(self.shown):
            undecided = self.leading.undecided() if self.leading is not None else ()
            if self.shown.sweep(self.loop.time(), self.settings.common.limit_s, undecided):
                self._pin_others()

    def _flushed(self) -> None:
        self.feed.acknowledge(soon=False)
        self.node.wake()

    def _second(self) -> None:
        self.links.drop_unused(self.feed.link)
        self.feed.acknowledge()
        self.handover.second()
        self.feed.ask_for_state()

    def facts(self) -> dict[str, Any]:
        feed, own = self.feed.link, self.settings.common.member_id
        leading = self.leading.statistics() if self.leading is not None else {}
        return {
            "serving": self.leading is not None and self.leading.serving,
            "feed_from": f"{feed.member_id:x}" if feed is not None and feed.alive else "",
            "feed_remote": int(feed is not None and feed.alive and feed.member_id != own),
            "feed_lag": max(feed.commit - self.node.order_index, 0) if feed is not None and feed.up else -1,
            "handovers": self.handover.moved,
            "locks": leading.get("locks", 0), "unordered_entries": leading.get("unordered_entries", 0)}

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        if shard == 0 and (sequencer := self.feed.reachable_sequencer()):
            link = self.links.get(sequencer, 0)
            link.request(method, body(link.version), answered)

    def covers(self, voters: Collection[int], last: int) -> bool:
        return False  # shard 0's nodes know

    def unapplied(self) -> Iterable[bytes]:
        return [projection for _, _, projection, _, _ in self.feed.queue]

    def replaced(self) -> None:
        node = self.node
        self.placing = Placing(self.settings.shard, load_fold(self.store), self.raft.log_entries)
        self.fates.skipped_to(node.applied_index)
        self.moves.replaced()
        self.feed.replaced()
