"""The node of a shard other than 0: its own Raft group, applied in the order that the order log gives.

What its group commits is reported to the sequencer and waits; the feed of order records, from any host's node 0,
says what is applied next and at which revisions. A cut is applied only when this node's own entry at the
cut's index has the cut's term (H3, I6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from cluster.messages import FEED_HEAD, LEADER, Method, Status
from cluster.order import ENTRY_ITEMS, Attempt, Change, Control, Cut, Entries, decode_cut, entry_count
from cluster.prepare import FATE, REPORT, Prepare, decode_attempt, encode_attempt
from cluster.raft import EntryKind, Role
from cluster.records import Item, items
from cluster.settings import NodeSettings
from cluster.shard import ShardBatch, ShardLeader
from node.feed import FEED_ACK_BODY, FEED_BODY
from node.fronts import FrontLink
from node.links import NodeLink, NodeLinks
from node.order_node import FOLD, load_fold
from node.server import Node
from node.sockets import CurveKeys

log = structlog.get_logger("shard")

Token = tuple[FrontLink, int]
_RUN_RECORDS = 256  # order records applied in one batch
_ACK_EVERY = 200
_MAX_QUEUED = 50_000


class ShardNode(Node):
    """See the module."""

    def __init__(self, settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(settings, loop)
        self.fold = load_fold(self)
        self._count_at_applied = self.fold.cut(settings.shard).count
        self._order_index = self.store.position.order_index
        self._feed: deque[tuple[int, int, bytes]] = deque()
        self._feed_link: NodeLink | None = None
        self._next_feed = self._order_index + 1
        self._acked = 0
        self.leading: ShardLeader[Token] | None = None
        # batches of a lost term whose fate is open: index -> (term, batch)
        self._fates: dict[int, tuple[int, ShardBatch]] = {}
        self._reported: tuple[int, int, int] = (0, 0, 0)
        self._held_since: dict[Attempt, float] = {}
        self._starved = False
        self.links: NodeLinks

    @property
    def order_index(self) -> int:
        return self._order_index

    def start(self) -> None:
        keys = CurveKeys.load(self.settings.common.curve_key_file)
        self.links = NodeLinks(self.loop, self._context, self.settings.common, keys, self.wake)
        super().start()

    async def stop(self) -> None:
        self.links.close()
        await super().stop()

    # -- requests

    def _submit(self, link: FrontLink, rid: int, method: int, body: bytes) -> None:
        if self.leading is None:
            self._not_leader(link, rid)
        else:
            self.leading.submit((link, rid), method, body)

    def _node_request(self, link: FrontLink, rid: int, method: int, body: bytes) -> bool:
        if method == Method.PREPARE:
            if self.leading is None:
                self._not_leader(link, rid)
            else:
                self.leading.prepare((link, rid), Prepare.decode(body))
        elif method == Method.RELEASE:
            if self.leading is not None:
                self.leading.release(decode_attempt(body))
        else:
            return False
        return True

    def _not_leader(self, link: FrontLink, rid: int) -> None:
        leader = 0 if self.raft.role is Role.LEADER else self.raft.leader_id
        link.answer(rid, Status.NOT_LEADER, LEADER.pack(leader, self.raft.term))
        self._mark_dirty(link)

    # -- leading

    def _leader_changed(self) -> None:
        leading = self.leading
        if leading is not None and (self.raft.role is not Role.LEADER or leading.term != self.raft.term):
            lost, open_batches = leading.resign()
            for link, rid in lost:
                self._not_leader(link, rid)
            for index, batch in open_batches:
                self._fates[index] = (leading.term, batch)
            self._drain(leading)
            self.leading = None
        if self.leading is None and self.raft.role is Role.LEADER:
            self.leading = ShardLeader(
                self.store, self.settings.shard, self.raft.term, first_index=self.raft.last_index,
                inherited_count=self._inherited_count(), max_txn_ops=self.settings.common.max_txn_ops)
            self.leading.order_index = self._order_index
        super()._leader_changed()

    def _inherited_count(self) -> int:
        """The cumulative count that the log's last record carries."""
        for index in range(self.raft.last_index, self.applied_index, -1):
            entry = self.raft.log_entries(index, index)[0]
            if entry.kind == EntryKind.RECORD:
                return entry_count(entry.data)
        return self.fold.cut(self.settings.shard).count

    def _evaluate(self) -> None:
        leading = self.leading
        if leading is None or not leading.serving or self.raft.transferring:
            return
        leading.run()
        if leading.dirty:
            leading.logged(self.raft.propose(leading.seal()))

    def _drain(self, leading: ShardLeader[Token]) -> None:
        for (link, rid), status, body in leading.take_answers():
            if link.alive:
                link.answer(rid, status, body)
                self._dirty.add(link)

    def _lead(self) -> None:
        """Not by an own entry alone: a shard's leader serves once a cut of its term is applied (I8)."""

    # -- the order

    def _apply(self, last: int) -> None:
        """The group committed more: perhaps the next order record can be applied."""
        self._follow()

    def _own_cut(self, projection: bytes) -> Cut | None:
        """What a record puts in order of this shard."""
        found = None
        for kind, pos, end in items(projection):
            if kind == Item.CUT:
                for shard, cut in decode_cut(projection, pos, end):
                    if shard == self.settings.shard:
                        found = cut
        return found

    def _follow(self) -> None:
        while self._feed:
            run: list[tuple[int, int, bytes]] = []
            available = min(self.raft.commit_index, self.raft.persisted_index)
            for record in self._feed:
                cut = self._own_cut(record[2])
                if cut is not None and cut.index > available:
                    break
                run.append(record)
                if len(run) >= _RUN_RECORDS:
                    break
            if not run:
                return
            for _ in run:
                self._feed.popleft()
            self._apply_records(run)

    def _apply_records(self, run: list[tuple[int, int, bytes]]) -> None:
        shard, fold, raft = self.settings.shard, self.fold, self.raft
        changes: list[tuple[int, bytes, int, int]] = []
        # what the leader must hear, in order: (order index, term, [(cut, revision before)], attempts)
        heard: list[tuple[int, int, list[Entries], list[Attempt]]] = []
        before: dict[int, int] = {}  # entry -> revision before it
        control = False
        index, term = self.applied_index, self.store.position.term
        for order_index, order_term, projection in run:
            cuts: list[Entries] = []
            attempts: list[Attempt] = []
            for step in fold.take(projection, shard):
                if isinstance(step, Entries):
                    cuts.append(step)
                    index, term = self._ordered(step, index, changes, before)
                elif isinstance(step, Change):
                    if step.items:
                        changes.append((step.revision, step.items, 0, step.sub))
                    if step.attempt is not None:
                        attempts.append(step.attempt)
                else:
                    assert isinstance(step, Control)
                    changes.append((step.revision, step.item, 0, -1))
                    control = True
            heard.append((order_index, order_term, cuts, attempts))
        last = run[-1][0]
        applied = self.store.apply_changes(
            changes, (last, index, term, fold.revision), want_events=self.watches.active, meta={FOLD: fold.encode()})
        self._order_index = last
        self.applied_index = index
        raft.applied(index)
        self._after_apply([], applied)
        self._tell(heard, before)
        if last - self._acked >= _ACK_EVERY:
            self._acknowledge()
        if control:
            self._report(force=True)

    def _ordered(
        self, step: Entries, index: int, changes: list[tuple[int, bytes, int, int]], before: dict[int, int]
    ) -> tuple[int, int]:
        """Take the entries that a cut puts in order."""
        revision = step.revision
        count = self._count_at_applied
        term = step.cut.term
        while index < step.cut.index:
            for entry in self.raft.log_entries(index + 1, min(step.cut.index, index + 256)):
                before[entry.index] = revision
                if entry.kind == EntryKind.RECORD:
                    if len(entry.data) > ENTRY_ITEMS:
                        changes.append((revision, entry.data, ENTRY_ITEMS, -1))
                    grown = entry_count(entry.data)
                    revision += grown - count
                    count = grown
                index, term = entry.index, entry.term
        # H3, I6: the entry at the cut's index has the cut's term, which proves the whole prefix
        assert term == step.cut.term, f"I6: entry {index} has term {term}, the cut {step.cut.term}"
        assert count == step.cut.count, f"I3: entry {index} carries count {count}, the cut {step.cut.count}"
        self._count_at_applied = count
        return index, term

    def _tell(self, heard: list[tuple[int, int, list[Entries], list[Attempt]]], before: dict[int, int]) -> None:
        """The leader, and whoever waits for entries of a lost term, hear of what was applied."""
        leading = self.leading
        for order_index, order_term, cuts, attempts in heard:
            for step in cuts:
                self._decide_fates(step.cut, before)
                if leading is None or step.cut.term != leading.term:
                    continue
                if leading.serving:
                    leading.applied_entries(step.cut.index, step.revision)
                else:
                    leading.serve()
                    log.info("leading", shard=self.settings.shard, term=leading.term, revision=self.store.revision)
            if leading is not None:
                leading.applied_record(order_index, order_term, attempts)
        if leading is not None:
            self._drain(leading)

    def _decide_fates(self, cut: Cut, before: dict[int, int]) -> None:
        """The first cut of a later term decides them all: at or below it and matching: done; the rest: lost."""
        for index in sorted(self._fates):
            term, batch = self._fates[index]
            if index <= cut.index and index in before and self.log.term(index) == term:
                for reply in batch.replies:
                    (link, rid), status, body = reply.bind(before[index], term)
                    link.answer(rid, status, body)
                    self._mark_dirty(link)
            elif cut.term > term or index <= cut.index:
                for reply in batch.replies:
                    self._not_leader(*reply.token)
            else:
                continue
            del self._fates[index]

    # -- feed and reports

    def _fed(self, link: NodeLink) -> Callable[[int, bytes], None]:
        def fed(status: int, body: bytes) -> None:
            if link is not self._feed_link:
                return
            if status != Status.PARTIAL:
                # what comes next is not kept there any more: another host may have it, or a snapshot must do
                self._starved = True
                link.drop("it does not keep the order records wanted here")
                return
            order_index, term = FEED_HEAD.unpack_from(body)
            if order_index != self._next_feed:
                link.drop(f"order record {order_index} where {self._next_feed} was due")
                return
            self._next_feed += 1
            self._feed.append((order_index, term, body[FEED_HEAD.size :]))

        return fed

    def _subscribe(self) -> None:
        """Take the feed from the own host's node 0, or from another's while that is down (H13)."""
        own = self.settings.common.member_id
        link = self._feed_link
        if link is not None and link.alive:
            return
        self._feed.clear()
        self._next_feed = self._order_index + 1
        candidates = [own, *(p.member_id for p in self.settings.common.peers if p.member_id != own)]
        if link is not None and not link.alive:  # the one that failed comes last
            candidates.remove(link.member_id)
            candidates.append(link.member_id)
        link = self._feed_link = self.links.get(candidates[0], 0)
        link.request(Method.FEED, FEED_BODY.pack(self.settings.shard, self._next_feed), self._fed(link))

    def _acknowledge(self) -> None:
        self._acked = self._order_index
        if self._feed_link is not None and self._feed_link.alive:
            self._feed_link.request(
                Method.FEED_ACK, FEED_ACK_BODY.pack(self._order_index, self.store.durable_position.order_index))

    def _report(self, *, force: bool) -> None:
        """Tell the sequencer what is committed: at once when it moves, and every heartbeat."""
        if self.leading is None:
            return
        feed = self._feed_link
        report = self.leading.report(self.raft.commit_index)
        if report is None or feed is None or not feed.leader:
            return
        state = (report.term, report.index, feed.leader)
        if state == self._reported and not force:
            return
        self._reported = state
        link = feed if feed.leader == feed.member_id else self.links.get(feed.leader, 0)
        link.request(Method.REPORT, REPORT.pack(report.shard, report.index, report.term, report.count,
                                                report.applied_order))

    def _query_locks(self) -> None:
        """Ask the sequencer about locks that have been held for long (report, hole 3)."""
        leading, feed = self.leading, self._feed_link
        if leading is None or feed is None or not feed.leader:
            self._held_since.clear()
            return
        now = self.loop.time()
        held = leading.undecided()
        self._held_since = {a: self._held_since.get(a, now) for a in held}
        limit = self.settings.common.heartbeat_interval_ms * 10 / 1000
        for attempt, since in self._held_since.items():
            if now - since >= limit:
                link = self.links.get(feed.leader, 0)
                link.request(Method.QUERY, encode_attempt(attempt), self._fate(attempt))

    def _fate(self, attempt: Attempt) -> Callable[[int, bytes], None]:
        def told(status: int, body: bytes) -> None:
            leading = self.leading
            if status == Status.OK and leading is not None and FATE.unpack(body)[0] <= self._order_index:
                leading.release(attempt)

        return told

    # -- the tick

    def _finish_tick(self) -> None:
        self._follow()
        leading = self.leading
        if leading is not None:
            self._drain(leading)
            self._report(force=False)
        self.links.flush()

    def _heartbeat(self) -> None:
        self.links.sweep()
        self._subscribe()
        self._report(force=True)
        self._acknowledge()
        self._query_locks()
        if self.leading is not None:
            self.leading.forget(lambda token: not token[0].alive)

    def state_replaced(self) -> None:
        self.fold = load_fold(self)
        self._order_index = self.store.position.order_index
        self._count_at_applied = self.fold.cut(self.settings.shard).count
        super().state_replaced()
        if self._feed_link is not None:
            self._feed_link.drop("a snapshot was installed")
        self._subscribe()
