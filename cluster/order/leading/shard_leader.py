"""The leader of a shard other than 0: it evaluates at once, and learns revisions later.

What is logged here gets its revision when a cut of the order log covers it. Until then its revision is
*pending*: larger than any applied one, and otherwise unknown (D6). So requests are of three kinds:

* most are decided at once; their answers are bound to revisions when their entry is applied;
* those that must compare a pending revision wait in the lock table until it is applied (H14);
* those that need the whole store (an unknown lease, a revision above the applied one, a put under a lease
  where users are enabled) go to the sequencer (review (b), Negative knowledge), and come back by ``prepare``.

Nothing is evaluated before :meth:`ShardLeader.serve` (I8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster import errors
from cluster.effects.later_puts import LaterPuts
from cluster.effects.records import PENDING_REVISION
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.footprint import Footprint, footprint, shows_the_past
from cluster.evaluate.overlay import AppliedState
from cluster.evaluate.plain_put import key_end, pending
from cluster.evaluate.replica import Ahead, look_of
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns.compares import Turn, Unlooked
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.evaluate.view import Outcome, View
from cluster.faults import answered, whole
from cluster.features.auth.principal import SAID, Principal, named
from cluster.features.auth.state import AuthState
from cluster.grain import GRAIN
from cluster.order.leading.attempts import Attempts, Reading, Unlooking
from cluster.order.leading.bound import Bound
from cluster.order.leading.drafts import ShardDraft, draft_of
from cluster.order.leading.own_keys import OwnKeys
from cluster.order.leading.pending import (
    Blocked,
    Elsewhere,
    PendingOverlay,
    Recorder,
    Rows,
    ShowsPending,
    check_plain,
    check_undecidable,
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
from cluster.pipeline.intake import Intake
from cluster.pipeline.under_way import UnderWay
from cluster.placement import Table
from cluster.wire.messages import LEADER, OF_KEYS, Method, Status

T = TypeVar("T")

# logged entries without a place in the order; Raft drops proposals beyond 64 MiB
_MAX_UNORDERED, _MAX_UNORDERED_BYTES = 64, 32 << 20
_PUT = int(Method.PUT)
_NOTHING = Outcome(b"", False, b"", [], 0)
PutAnswers = tuple[list[PendingPut], int]  # in order, the revision before the first


@dataclass(slots=True, frozen=True)
class Start:
    index: int  # of the first entry
    count: int  # the cumulative count that is inherited
    order_index: int = 0  # applied


class ShardLeader(Generic[T]):
    """Evaluates one shard's writes at one term. ``T``: what names a request to the driver (its way back)."""

    def __init__(
        self, store: AppliedState, shard: int, term: int, start: Start, *, max_txn_ops: int,
        pace: Pace | None = None, shown: ShownRows | None = None,
        users: Callable[[], AuthState] | None = None,
    ) -> None:
        self.term = term
        self.shard = shard
        self.serving = False
        self._store = store
        self._max_txn_ops = max_txn_ops
        self._intake: Intake[tuple[T, int, bytes]] = Intake(pace or Pace())
        self.shown = ShownRows() if shown is None else shown
        self._table: LockTable[Waiting[T] | Preparing[T]] = LockTable()
        self._held_up = False  # requests of the table that may go on found the entry full, or no room to log
        self.view: PendingOverlay
        self._bound = Bound(_MAX_UNORDERED + 2)
        self._open = ShardBatch(1, PENDING_REVISION, self._bound)
        self._most_read = MAX_ENTRY_BYTES  # of ``view.read`` in this turn: what is read holds it
        self._applied_batch = 0
        # logged, and without a place in the order
        self._sealed: UnderWay[ShardBatch] = UnderWay(_MAX_UNORDERED, _MAX_UNORDERED_BYTES)
        self._count = start.count
        self._counts: deque[tuple[int, int]] = deque([(start.index, start.count)])  # not cut yet
        self._answers: list[Answer] = []
        self._put_answers: list[PutAnswers] = []
        self._unlooked: list[Unlooking] = []
        self.aside: Aside[T, tuple[bytes, Principal | None]] = Aside()  # transactions that are looked at
        self.rights = Rights(users)
        self._own: OwnKeys | None = None  # None: no key has ever moved, or is about to
        self.attempts: Attempts[T] = Attempts(
            store, term, self._table, self.shown, self._answers, self._unlooked, start.order_index)

    def serve(self) -> None:
        """A cut of this term has been applied: everything inherited is in the store (I8)."""
        assert not self.serving
        self.view = PendingOverlay(self._store)
        self.rights.serve()
        self.attempts.serve(self.view)
        self.serving = True

    def submit(self, token: T, method: int, body: bytes) -> None:
        """Take in one write; :meth:`take_answers` has its answer, now or later."""
        if method & ~SAID not in OF_KEYS:  # not from a front: leases and the like go to the sequencer
            self._refuse(token, EtcdError(errors.UNKNOWN_METHOD))
        elif self._own is not None and self._own.lacks(method, body):
            self._elsewhere(token)
        elif not self._intake.take((token, method, body), len(self._table) + len(self.aside)):
            self._refuse(token, EtcdError(errors.TOO_MANY_REQUESTS))

    def placed(self, table: Table) -> None:
        """A table is applied here: what is queued goes where its keys are now (G7)."""
        if table.settled:
            self._own = None
            return
        self._own = own = OwnKeys(self.shard, table)
        for token, method, body in self._intake.queue:
            if own.lacks(method, body):
                self._elsewhere(token)
        self._intake.forget(lambda request: own.lacks(*request[1:]))
        for held in list(self._table):
            payload = held.payload
            if isinstance(payload, Waiting) and own.lacks(payload.method, payload.body):
                self._elsewhere(payload.token)
                self._table.remove(held)

    def _elsewhere(self, token: T) -> None:
        """Certainly not logged: the sequencer knows whose the keys are."""
        self._answers.append((token, Status.ELSEWHERE, LEADER.pack(0, 0)))

    def resume(self, token: T, looked: Ahead | None) -> None:
        """Evaluate a transaction of :meth:`take_unlooked` after its look; None: given up, no answer."""
        asked = self.aside.back(token)
        if asked is None or looked is None:
            return
        body, who = asked
        if self._own is not None and self._own.lacks(Method.TXN, body):
            self._elsewhere(token)
            return
        full = (not self._may_log or self._open.size >= MAX_ENTRY_BYTES
                or self.view.read >= self._most_read)
        if full or len(self._table):
            wanted = footprint(Method.TXN, body)
            if full or self._table.conflicts(wanted):
                held = self._table.wait(wanted, Waiting(token, Method.TXN, body, 0, looked, who), active=True)
                self._held_up = self._held_up or held.active
                return
        self._evaluate(token, Method.TXN, body, None, looked, who)

    def run(self) -> None:
        """Evaluate what may go on in the lock table, then what is queued, as far as entries may be logged."""
        if not self.runnable:
            return
        view = self.view
        self._most_read = most_read = view.read + MAX_ENTRY_BYTES
        if self._held_up:
            self._advance()
        intake, table, judged = self._intake, self._table, self.rights.enabled
        queue = intake.queue
        while queue and self._open.size < MAX_ENTRY_BYTES and view.read < most_read:
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
        """Evaluate the plain puts at the queue's head. Hot path: 1.1 us a put; :meth:`_evaluate` takes 4."""
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
        return self.serving and self._sealed.has_room

    @property
    def runnable(self) -> bool:
        """Whether requests may be evaluated: those of the lock table at once, queued ones when due."""
        return self._may_log and (self._held_up or self._intake.due(len(self._sealed)))

    @property
    def ready(self) -> bool:
        """Whether an entry can be made now: call :meth:`run` and, if that leaves anything, :meth:`seal`."""
        return self.dirty or ((self._held_up or bool(self._intake.queue)) and self.runnable)

    @property
    def alone(self) -> bool:
        sealed = self._sealed.entries
        return not (self._intake.queue or len(self._table) or self.dirty) and (
            not sealed or (len(sealed) == 1 and sealed[0].waiting <= 1))

    @property
    def busy(self) -> bool:
        return bool(self._intake.queue or self._sealed.entries or len(self._table)) or self.dirty

    @property
    def queued(self) -> int:
        return len(self._intake.queue)

    def _evaluate(
        self, token: T, method: int, body: bytes, queued: Queued[Waiting[T] | Preparing[T]] | None,
        looked: Ahead | None = None, who: Principal | None = None,
    ) -> None:
        view, batch = self.view, self._open
        late: Callable[[int], bytes] | None = None
        error: bytes | None = None
        try:
            self.rights.judge(who, method, body)
            if method == Method.PUT:
                outcome, late = self._shown(lambda shown: evaluate.put(shown, body))
            elif method == Method.DELETE_RANGE:
                outcome, late = self._shown(
                    lambda shown: evaluate.delete_range(shown, body, self._store.live_count))
            elif looked is None and (looked := draft_of(view, body, self._max_txn_ops)) is not None:
                raise Unlooked
            else:
                outcome, late = self._txn(body, looked)
        except EtcdError as e:
            outcome, error = _NOTHING, e.encode()
        except (Blocked, Unlooked, Elsewhere) as e:
            self._not_now(e, Waiting(token, method, body, 0, looked, who), queued)
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

    def _not_now(
        self, why: Exception, request: Waiting[T], queued: Queued[Waiting[T] | Preparing[T]] | None,
    ) -> None:
        if isinstance(why, Blocked):
            if queued is None:
                queued = self._table.wait(footprint(request.method, request.body), request, active=True)
            assert isinstance(queued.payload, Waiting)
            batch = self._open
            queued.payload.batch = batch.number if batch.items or batch.puts else batch.number - 1
            return
        if isinstance(why, Unlooked):
            body = request.body
            looked = look_of(
                why, body, request.looked, lambda txn: ShardDraft(self.view, txn, self._max_txn_ops))
            self._unlooked.append((request.token, body, looked))
            self.aside.put(request.token, (body, request.who))
        else:
            self._elsewhere(request.token)
        if queued is not None:
            self._table.remove(queued)

    def _shown(self, run: Callable[[View], Outcome]) -> tuple[Outcome, Callable[[int], bytes] | None]:
        with suppress(ShowsPending):
            return run(self.view), None
        recorder, bound = Recorder(self.view), self._bound
        return run(recorder), lambda revision: run(recorder.replay(revision, bound)).tail

    @answered
    def _txn(self, body: bytes, looked: Ahead | None = None) -> tuple[Outcome, Callable[[int], bytes] | None]:
        drafts = looked is None
        if isinstance(looked, Draft):
            if (outcome := looked.outcome()) is not None:
                return outcome, None
            if looked.fit:
                raise Unlooked
            looked = None
        plain = plain_txn.read(body)
        if plain is not None and plain.ops() <= self._max_txn_ops:
            shows = check_plain(self.view, plain)
            with suppress(plain_txn.Large):
                if not shows:
                    with suppress(ShowsPending):
                        return plain_txn.run(self.view, plain, GRAIN.late_bytes)
                return plain_txn.run(Rows(self.view), plain, GRAIN.late_bytes, self._bound.row)
        request = pb.TxnRequest.FromString(body)
        check_undecidable(self.view, request)
        if looked is not None:
            looked.look_again(self.view, self._store)
        # what it shows of the past is read now: a compaction may come before it in the order
        past = finish(shows_the_past(request))
        turn, recorder = Turn(looked, drafts and not past), Recorder(self.view)
        outcome = evaluate.txn(recorder, body, self._max_txn_ops, self.view.weigh, turn)
        if outcome.late is not None:
            if past:
                raise Elsewhere  # that much is read in no turn: the sequencer has it pinned
            return outcome, None
        ops, bound, again = self._max_txn_ops, self._bound, None if looked is None else Turn(looked)
        return outcome, lambda revision: evaluate.txn(
            recorder.replay(revision, bound), body, ops, None, again).tail

    def _refuse(self, token: T, error: EtcdError) -> None:
        self._answers.append((token, Status.ERROR, error.encode()))

    @whole
    def prepare(self, token: T, prepare: Prepare) -> None:
        if self.attempts.prepare(token, prepare, self._begun):
            self.let_go()

    def looks(self, attempt: Attempt) -> bool:
        return self.attempts.looks(attempt)

    @whole
    def looked_at(self, attempt: Attempt, looked: RangeCompares | Reading | None) -> None:
        if self.attempts.looked_at(attempt, looked, self._begun):
            self.let_go()

    def let_go(self) -> None:
        """Grant what may be granted: more is applied, or pinned rows are released."""
        self.attempts.grant(self._applied_batch)

    @whole
    def release(self, attempt: Attempt) -> None:
        if self.attempts.release(attempt):
            self._advance()

    def undecided(self) -> list[Attempt]:
        """Attempts that hold locks: the driver asks the sequencer about old ones."""
        return self.attempts.undecided()

    def _advance(self) -> None:
        """Something left the table, or was applied: evaluate what may go on, as far as the entry has room."""
        self._held_up = False
        for held, fresh in self._table.in_order():
            payload = held.payload
            if isinstance(payload, Preparing):
                if fresh:
                    self.attempts.activated(held, payload, self._begun)
                continue
            if fresh:
                payload.batch = 0
            if payload.batch > self._applied_batch:
                continue
            if (not self._may_log or self._open.size >= MAX_ENTRY_BYTES
                    or self.view.read >= self._most_read):
                self._held_up = True  # :meth:`run` goes on with it
            else:
                self._evaluate(
                    payload.token, payload.method, payload.body, held, payload.looked, payload.who)
        self.let_go()

    @property
    def dirty(self) -> bool:
        return bool(self._open.puts or self._open.replies)

    @property
    def _begun(self) -> int:
        return self._open.number - (not self.dirty)

    def seal(self) -> bytes:
        """The entry's data for everything evaluated since the last call; :meth:`logged` takes its index."""
        self._count += self._open.grown
        return entry(self._count, self._open.seal())

    def logged(self, index: int) -> None:
        self._sealed.logged(index, self.term, self._open)
        self._counts.append((index, self._count))
        self.view.batch += 1
        self._open = ShardBatch(self.view.batch, self.view.revision, self._bound)

    def evaluated(self, index: int) -> LaterPuts | None:
        """What the entry there puts, if it is this leader's, not applied, and only lacks revisions."""
        batch = self._sealed.at(index, self.term)
        return None if batch is None else batch.later

    def report(self, commit_index: int) -> Report | None:
        """What is committed of this term and not known to be in order; None: nothing."""
        counts = self._counts
        while len(counts) > 1 and counts[1][0] <= commit_index:
            counts.popleft()
        if not counts or counts[0][0] > commit_index:
            return None
        (index, count), said = counts[0], self.rights.said(self._applied_batch, self.attempts.order_index)
        return Report(self.shard, index, self.term, count, *said)

    def applied_entries(self, last_index: int, base: int) -> None:
        """A cut of this term was applied; ``base``: the revision before its first entry of this leader."""
        for batch, done in self._sealed.applied(last_index, self.term):
            assert done, "Raft: a leader's log holds all that it logged up to there"
            self._bound.bind(batch.pending, base)
            self.view.applied_batch(batch.number, batch.written(), batch.pending + batch.grown, self._bound)
            self._applied_batch = batch.number
            if batch.puts is not None:
                self._put_answers.append((batch.puts, base))
            else:
                self._answers += batch.answers(base, self.term)
            base += batch.grown

    def applied_records(self, records: Iterable[tuple[int, int, list[Attempt]]]) -> None:
        """Records were applied together, and :meth:`applied_entries` has told of all their cuts. What waits
        goes on only now: before, the store showed revisions that were still pending here (D6)."""
        for order_index, order_term, attempts in records:
            self.rights.applied(self._begun, self._applied_batch, self.attempts.order_index)
            self.attempts.applied_record(order_index, order_term, attempts)
        if self.serving:
            self.view.compact_revision = self._store.compact_revision
        if len(self._table):
            self._advance()
        for token, prepare in self.attempts.take_early():
            self.prepare(token, prepare)

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
        """Looks to be taken ahead; then :meth:`resume` a transaction, :meth:`looked_at` a prepare."""
        unlooked = self._unlooked[:]
        self._unlooked.clear()
        return unlooked

    def resign(self) -> tuple[list[T], list[tuple[int, ShardBatch]]]:
        """The term is lost: requests certainly not logged, and logged batches of unknown fate."""
        lost = [token for token, _, _ in self._intake.queue]
        lost += [h.payload.token for h in self._table if isinstance(h.payload, Waiting)]
        lost += [token for token, what, _ in self._unlooked if isinstance(what, Attempt)]
        lost += self.aside.drain() + self._open.owed()
        return lost, [(batch.index, batch) for batch in self._sealed.entries]

    def forget(self, gone: Callable[[T], bool]) -> None:
        self._intake.forget(lambda request: gone(request[0]))
        self.aside.forget(gone)
        for held in [h for h in self._table if isinstance(h.payload, Waiting) and gone(h.payload.token)]:
            self._table.remove(held)
        if self.serving:
            self._advance()

    def statistics(self) -> dict[str, int]:
        return {
            "queued": len(self._intake), "locks": len(self._table), "unordered_entries": len(self._sealed)}
