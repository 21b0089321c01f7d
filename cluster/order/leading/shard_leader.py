"""The leader of a shard other than 0: it evaluates at once, and learns revisions later.

What is logged here gets its revision when a cut of the order log covers it. Until then its revision is
*pending*: larger than any applied one, and otherwise unknown (D6). So requests fall into three kinds:

* most are decided at once: blind puts, deletes, compares of values, versions, leases, and of revisions that
  are applied; their answers are bound to revisions when their entry is applied;
* those that must show or compare a pending revision wait until it is applied, in the lock table (H14);
* those that only the whole store can answer (an unknown lease, a revision above the applied one, a put under
  a lease where users are enabled) go to the sequencer, as transactions over several shards (review (b),
  Negative knowledge). These lock their keys here by ``prepare`` (``cluster.order.leading.attempts``), and
  come back in the feed.

The driver feeds in requests and what was applied, and takes out a record to propose and answers. Nothing is
evaluated before :meth:`ShardLeader.serve` (I8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from cluster import errors
from cluster.effects.later_puts import LaterPuts
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.footprint import Footprint, footprint, shows_the_past
from cluster.evaluate.plain_put import key_end, pending
from cluster.evaluate.replica import Ahead, AppliedState
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.evaluate.txns.transactions import Turn, Unlooked
from cluster.evaluate.view import Outcome
from cluster.faults import answered, whole
from cluster.features.auth.principal import SAID, Principal, named
from cluster.features.auth.state import AuthState
from cluster.order.leading.attempts import Attempts, Reading, Unlooking
from cluster.order.leading.drafts import draft_of
from cluster.order.leading.pending import (
    Blocked,
    Elsewhere,
    PendingOverlay,
    Recorder,
    check_plain,
    check_undecidable,
    shows_rows,
)
from cluster.order.leading.queued import Preparing, Report, Waiting
from cluster.order.leading.rights import Rights
from cluster.order.leading.shard_batch import Answer, PendingPut, Reply, ShardBatch
from cluster.order.locks import LockTable, Queued
from cluster.order.log import Attempt, entry
from cluster.order.prepare import Prepare
from cluster.order.shown import ShownRows
from cluster.pacing.pace import MAX_ENTRY_BYTES, Pace
from cluster.pb import rpc_pb2 as pb
from cluster.pipeline.aside import Aside
from cluster.pipeline.intake import MOST, Intake
from cluster.pipeline.under_way import UnderWay
from cluster.wire.messages import LEADER, Method, Status

T = TypeVar("T")

# of logged entries without a place in the order; Raft drops proposals beyond 64 MiB
_MAX_UNORDERED_BYTES = 32 << 20
_METHODS, _PUT = frozenset((Method.PUT, Method.DELETE_RANGE, Method.TXN)), int(Method.PUT)
_NOTHING = Outcome(b"", False, b"", [], 0)
PutAnswers = tuple[list[PendingPut], int]  # in order, the revision before the first


class ShardLeader(Generic[T]):
    """Evaluates one shard's writes at one term. ``T``: what names a request to the driver (its way back)."""

    def __init__(
        self, store: AppliedState, shard: int, term: int, *, first_index: int, inherited_count: int,
        max_txn_ops: int, max_queued: int = MOST, max_unordered: int = 64, pace: Pace | None = None,
        shown: ShownRows | None = None, users: Callable[[], AuthState] | None = None, order_index: int = 0,
    ) -> None:
        """``shown``: where it keeps the rows of its grants that are fetched later; ``users``,
        ``order_index``: as applied."""
        self.term = term
        self.shard = shard
        self.serving = False
        self._store = store
        self._max_txn_ops = max_txn_ops
        self._intake: Intake[tuple[T, int, bytes]] = Intake(pace or Pace(), max_queued)
        self.shown = ShownRows() if shown is None else shown
        self._table: LockTable[Waiting[T] | Preparing[T]] = LockTable()
        # requests of the table that may go on found the entry full, or too much ahead of the order
        self._held_up = False
        self.view: PendingOverlay
        self._open = ShardBatch(1)
        self._applied_batch = 0
        # logged, and without a place in the order
        self._sealed: UnderWay[ShardBatch] = UnderWay(max_unordered, _MAX_UNORDERED_BYTES)
        self._count = inherited_count
        self._counts: deque[tuple[int, int]] = deque([(first_index, inherited_count)])  # not cut yet
        self._answers: list[Answer] = []
        self._put_answers: list[PutAnswers] = []
        self._unlooked: list[Unlooking] = []
        self._aside: Aside[T, tuple[bytes, Principal | None]] = Aside()  # transactions that are looked at
        self._rights = Rights(users)
        self._attempts: Attempts[T] = Attempts(
            store, term, self._table, self.shown, self._answers, self._unlooked, order_index)

    # -- requests

    def serve(self) -> None:
        """A cut of this term has been applied: everything inherited is in the store (I8)."""
        assert not self.serving
        self.view = PendingOverlay(self._store)
        self._rights.serve()
        self._attempts.serve(self.view)
        self.serving = True

    def submit(self, token: T, method: int, body: bytes) -> None:
        """Take in one write; its answer comes with :meth:`take_answers`, now or later."""
        if method & ~SAID not in _METHODS:  # a front that is none: leases and the like are the sequencer's
            self._refuse(token, EtcdError(errors.UNKNOWN_METHOD))
        elif not self._intake.take((token, method, body), len(self._table) + len(self._aside)):
            self._refuse(token, EtcdError(errors.TOO_MANY_REQUESTS))

    def awaits(self, token: T) -> bool:
        """Whether a look for :meth:`resume` is still wanted."""
        return token in self._aside

    def resume(self, token: T, looked: Ahead | None) -> None:
        """Evaluate a transaction of :meth:`take_unlooked`, now that what it asked for was done ahead; None:
        that was given up, and nobody is answered here."""
        asked = self._aside.back(token)
        if asked is None or looked is None:
            return
        body, who = asked
        if (full := not self._may_log or self._open.size >= MAX_ENTRY_BYTES) or len(self._table):
            wanted = footprint(Method.TXN, body)
            if full or self._table.conflicts(wanted):
                held = self._table.wait(wanted, Waiting(token, Method.TXN, body, 0, looked, who), active=True)
                self._held_up = self._held_up or held.active
                return
        self._evaluate(token, Method.TXN, body, None, looked, who)

    def run(self) -> None:
        """Evaluate what is queued, as far as entries may still be logged ahead of the order; first what has
        waited in the lock table and may go on."""
        if not self.runnable:
            return
        if self._held_up:
            self._advance()
        intake, table, judged = self._intake, self._table, self._rights.enabled
        queue = intake.queue
        while queue and self._open.size < MAX_ENTRY_BYTES:
            if not (len(table) or judged):
                self._puts()
                if not queue or self._open.size >= MAX_ENTRY_BYTES:
                    return
            token, method, body = queue.popleft()
            intake.bytes -= len(body)
            who, method, body = named(method, body)
            if len(table):
                try:
                    wanted = footprint(method, body)
                except EtcdError as e:
                    self._refuse(token, e)
                    continue
                if table.conflicts(wanted):
                    table.wait(wanted, Waiting(token, method, body, who=who))
                    continue
            self._evaluate(token, method, body, None, None, who)

    def _puts(self) -> None:
        """Evaluate the plain puts that stand first, as most are, where nothing is locked. Hot path: 1.1 us a
        put, where :meth:`_evaluate` takes 4."""
        queue, view, batch = self._intake.queue, self.view, self._open
        current, take = view.current, view.take_put
        puts: list[PendingPut] = []
        room = MAX_ENTRY_BYTES - batch.size
        size = 0
        while queue and size < room:
            token, method, body = queue[0]
            if method != _PUT or not (end := key_end(body)) or len(body) == end:
                break
            queue.popleft()
            size += len(body)
            key = body[2:end]
            version, kind, head, tail = pending(body, end, current(key), view.revision + 1)
            take(key, version)
            puts.append((token, key, kind, head, tail))
        self._intake.bytes -= size
        batch.size += size
        batch.take(puts)

    @property
    def _may_log(self) -> bool:
        """Whether one more entry may be logged ahead of the order."""
        return self.serving and self._sealed.has_room

    @property
    def runnable(self) -> bool:
        """Whether requests may be evaluated now: what has waited in the lock table at once, what is queued
        when due."""
        return self._may_log and (self._held_up or self._intake.due(len(self._sealed)))

    @property
    def ready(self) -> bool:
        """Whether an entry can be made now: call :meth:`run` and, if that leaves anything, :meth:`seal`."""
        return self.dirty or ((self._held_up or bool(self._intake.queue)) and self.runnable)

    @property
    def alone(self) -> bool:
        """Whether at most one request is on its way here, and none waits."""
        sealed = self._sealed.entries
        return not (self._intake.queue or len(self._table) or self.dirty) and (
            not sealed or (len(sealed) == 1 and sealed[0].waiting <= 1))

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer of this leader."""
        return bool(self._intake.queue or self._sealed.entries or len(self._table)) or self.dirty

    @property
    def queued(self) -> int:
        """Requests that wait to be evaluated."""
        return len(self._intake.queue)

    @property
    def aside(self) -> int:
        """Transactions that are looked at before they are evaluated."""
        return len(self._aside)

    def _evaluate(self, token: T, method: int, body: bytes, queued: Queued[Waiting[T] | Preparing[T]] | None,
                  looked: Ahead | None = None, who: Principal | None = None) -> None:
        view, batch = self.view, self._open
        late: Callable[[int], bytes] | None = None
        error: bytes | None = None
        try:
            self._rights.judge(who, method, body)
            if method == Method.PUT:
                outcome = evaluate.put(view, body)
            elif method == Method.DELETE_RANGE:
                outcome = evaluate.delete_range(view, body, self._store.live_count)
            elif looked is None and (looked := draft_of(view, body, self._max_txn_ops)) is not None:
                raise Unlooked
            else:
                outcome, late = self._txn(body, looked)
        except EtcdError as e:
            outcome, error = _NOTHING, e.encode()
        except Blocked:
            if queued is None:
                waiting = Waiting(token, method, body, 0, looked, who)
                queued = self._table.wait(footprint(method, body), waiting, active=True)
            assert isinstance(queued.payload, Waiting)
            queued.payload.batch = batch.number if batch.items or batch.puts else batch.number - 1
            return
        except Unlooked:
            ahead = looked if looked is not None and looked.fit else RangeCompares.of(body)
            self._unlooked.append((token, body, ahead))
            self._aside.put(token, (body, who))
            if queued is not None:
                self._table.remove(queued)
            return
        except Elsewhere:
            self._answers.append((token, Status.ELSEWHERE, LEADER.pack(0, 0)))
            if queued is not None:
                self._table.remove(queued)
            return
        if queued is not None:
            self._table.remove(queued)
        if len(self._table) and outcome.items:
            written = Footprint([], [*((key, b"") for key, _ in outcome.writes), *outcome.ranges])
            assert not self._table.locks(written), "I9: nothing is logged under an attempt's lock"
        batch.mix()
        tail = outcome.late or outcome.tail
        batch.replies.append(Reply(token, batch.changes, outcome.changed, tail, late, error))
        if outcome.items:
            batch.items.append(outcome.items)
            batch.size += len(outcome.items)
        if outcome.writes:
            batch.keys.extend([key for key, _ in outcome.writes])
        if outcome.changed:
            batch.changes += 1
        view.take(outcome)

    @answered
    def _txn(self, body: bytes, looked: Ahead | None = None) -> tuple[Outcome, Callable[[int], bytes] | None]:
        if isinstance(looked, Draft):
            if (outcome := looked.outcome()) is not None:
                return outcome, None
            if looked.fit:
                raise Unlooked
            looked = None
        plain = plain_txn.read(body)
        if plain is not None and plain.ops() <= self._max_txn_ops:
            check_plain(self.view, plain)
            return plain_txn.run(self.view, plain)
        request = pb.TxnRequest.FromString(body)
        check_undecidable(self.view, request, shows_rows(request))
        if looked is not None:
            looked.look_again(self.view, self._store)
        turn, recorder = Turn(looked), Recorder(self.view)
        # A compaction may come before it in the order of all shards, and remove what it shows of the past:
        # that is read now
        weigh = None if finish(shows_the_past(request)) else self._store.live_count
        outcome = evaluate.txn(recorder, body, self._max_txn_ops, weigh, turn)
        if outcome.late is not None:
            return outcome, None
        ops = self._max_txn_ops
        again = Turn(looked) if looked is not None else None
        return outcome, lambda revision: evaluate.txn(recorder.replay(revision), body, ops, None, again).tail

    def _refuse(self, token: T, error: EtcdError) -> None:
        self._answers.append((token, Status.ERROR, error.encode()))

    # -- transactions over several shards

    @whole
    def prepare(self, token: T, prepare: Prepare) -> None:
        """The sequencer asks for a lock."""
        if self._attempts.prepare(token, prepare, self._begun):
            self.let_go()

    def looks(self, attempt: Attempt) -> bool:
        """Whether a look for :meth:`looked_at` is still wanted."""
        return self._attempts.looks(attempt)

    @whole
    def looked_at(self, attempt: Attempt, looked: RangeCompares | Reading | None) -> None:
        """The range compares of a prepare of :meth:`take_unlooked` were looked at, or its rows were read;
        None: that was given up."""
        if self._attempts.looked_at(attempt, looked, self._begun):
            self.let_go()

    def let_go(self) -> None:
        """Grant what may be granted: more is applied, or rows that were pinned are not any more."""
        self._attempts.grant(self._applied_batch)

    @whole
    def release(self, attempt: Attempt) -> None:
        """The attempt is given up."""
        if self._attempts.release(attempt):
            self._advance()

    def undecided(self) -> list[Attempt]:
        """Locks held now: the driver asks the sequencer about those that it has seen for long."""
        return self._attempts.undecided()

    def _advance(self) -> None:
        """Something left the table, or was applied: let go on whoever can, as far as the entry has room."""
        self._held_up = False
        progress = True
        while progress:
            progress = False
            for held in self._table.activate():
                payload = held.payload
                if isinstance(payload, Preparing):
                    self._attempts.activated(held, payload, self._begun)
                else:
                    payload.batch = 0
            for held in list(self._table) if self._table.requests else ():
                payload = held.payload
                if held.active and isinstance(payload, Waiting) and payload.batch <= self._applied_batch:
                    if self._open.size >= MAX_ENTRY_BYTES or not self._may_log:
                        self._held_up = True  # :meth:`run` goes on with it, before what is queued
                        break
                    before, p = len(self._table), payload
                    self._evaluate(p.token, p.method, p.body, held, p.looked, p.who)
                    progress = progress or len(self._table) < before
        self.let_go()

    # -- the log and the order

    @property
    def dirty(self) -> bool:
        """Whether anything was evaluated since the last :meth:`seal`."""
        return bool(self._open.puts or self._open.replies)

    @property
    def _begun(self) -> int:
        """The last batch that anything is in."""
        return self._open.number - (not self.dirty)

    def seal(self) -> bytes:
        """The data of the entry for everything evaluated since the last call; call :meth:`logged` with its
        index."""
        self._count += self._open.grown
        return entry(self._count, self._open.seal())

    def logged(self, index: int) -> None:
        """The sealed batch was proposed as entry ``index``."""
        self._sealed.logged(index, self.term, self._open)
        self._counts.append((index, self._count))
        self.view.batch += 1
        self._open = ShardBatch(self.view.batch)

    def evaluated(self, index: int) -> LaterPuts | None:
        """What the entry there puts, if it is one of this leader's that is not applied yet, and of which only
        the revisions are missing."""
        batch = self._sealed.at(index, self.term)
        return None if batch is None else batch.later

    def report(self, commit_index: int) -> Report | None:
        """What is committed of this term and not known to be in order; None if there is nothing to tell."""
        counts = self._counts
        while len(counts) > 1 and counts[1][0] <= commit_index:
            counts.popleft()
        if not counts or counts[0][0] > commit_index:
            return None
        (index, count), said = counts[0], self._rights.said(self._applied_batch, self._attempts.order_index)
        return Report(self.shard, index, self.term, count, *said)

    def applied_entries(self, last_index: int, base: int) -> None:
        """A cut of this term was applied: entries up to ``last_index``; ``base`` is the revision before the
        first of them that is this leader's own."""
        for batch, done in self._sealed.applied(last_index, self.term):
            assert done, "Raft: a leader's log holds all that it logged up to there"
            self.view.forget(batch.number, batch.written(), [])
            self._applied_batch = batch.number
            if batch.puts is not None:
                self._put_answers.append((batch.puts, base))
            else:
                self._answers += batch.answers(base, self.term)
            base += batch.grown

    def applied_record(self, order_index: int, order_term: int, attempts: list[Attempt]) -> None:
        """A whole order record was applied here: ``attempts`` are the multis it held."""
        self._rights.applied(self._begun, self._applied_batch, self._attempts.order_index)
        if self.serving:
            self.view.compact_revision = self._store.compact_revision
        self._attempts.applied_record(order_index, order_term, attempts)
        if len(self._table):
            self._advance()
        for token, prepare in self._attempts.take_early():
            self.prepare(token, prepare)

    # -- what comes out

    def take_answers(self) -> list[Answer]:
        """Answers that are due, but those of :meth:`take_puts`."""
        answers = self._answers[:]
        self._answers.clear()
        return answers

    def take_puts(self) -> list[PutAnswers]:
        """Plain puts whose answers are due, and the revision before them: each takes the next one."""
        puts, self._put_answers = self._put_answers, []
        return puts

    def take_unlooked(self) -> list[Unlooking]:
        """Whose range compares are to be looked at: then :meth:`resume` a transaction, or forget it;
        :meth:`looked_at` a prepare."""
        unlooked = self._unlooked[:]
        self._unlooked.clear()
        return unlooked

    def resign(self) -> tuple[list[T], list[tuple[int, ShardBatch]]]:
        """The term is lost: requests that were not logged (NOT_LEADER), and logged batches whose fate is
        open."""
        lost = [token for token, _, _ in self._intake.queue]
        lost += [h.payload.token for h in self._table if isinstance(h.payload, Waiting)]
        lost += [token for token, what, _ in self._unlooked if isinstance(what, Attempt)]
        lost += self._aside.drain() + self._open.owed()
        return lost, [(batch.index, batch) for batch in self._sealed.entries]

    def forget(self, gone: Callable[[T], bool]) -> None:
        """Drop waiting requests whose asker is gone or whose time is over."""
        self._intake.forget(lambda request: gone(request[0]))
        self._aside.forget(gone)
        for held in [h for h in self._table if isinstance(h.payload, Waiting) and gone(h.payload.token)]:
            self._table.remove(held)
        if self.serving:
            self._advance()

    def statistics(self) -> dict[str, int]:
        """Sizes, for metrics."""
        return {
            "queued": len(self._intake), "locks": len(self._table), "unordered_entries": len(self._sealed)}
