"""What a shard's leader locks and grants for transactions over several shards.

Each attempt's *prepare* is in the leader's lock table among its own requests. It is granted once it locks,
and everything evaluated before is applied (H1). It ends by its multi, its release or a record of a later
sequencer (I11). ``begun`` is the last batch that anything is in, ``applied`` the last one in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.footprint import Footprint
from cluster.evaluate.overlay import AppliedState
from cluster.evaluate.replica import Ahead
from cluster.evaluate.spans import Span
from cluster.evaluate.steps import Steps
from cluster.evaluate.txns.compares import Turn, Unlooked
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.faults import whole
from cluster.order.leading.pending import PendingOverlay
from cluster.order.leading.queued import Preparing, Waiting
from cluster.order.leading.shard_batch import Answer
from cluster.order.leading.verdicts import are_many, decide
from cluster.order.locks import LockTable, Queued, Refused
from cluster.order.log import Attempt
from cluster.order.overlaps import Overlaps
from cluster.order.prepare import Base, Grant, Prepare, Row, encode_attempt
from cluster.order.sequencing.granted import RowsOf, TooLarge, rows_in_steps
from cluster.order.shown import ShownRows
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Status

T = TypeVar("T")

_MAX_EARLY = 1000  # prepares that may not lock yet
_FEW_ENDED = 64  # attempts: to pass over all that ended at each new floor takes 30 us with 1000 under way
_STEPS_AT_ONCE = 32  # of 512 keys, 2048 rows of ranges, 8 MiB, or 32,000 rows passed over


class Reading:
    """The rows of a grant, read in steps under its lock."""

    def __init__(self, store: AppliedState, prepare: Prepare) -> None:
        self._reading = rows_in_steps(store, prepare)
        self.rows: RowsOf | None = None  # once they are read
        self.too_large = False  # they are

    def at_once(self) -> bool:
        """Whether a few steps are enough; otherwise :meth:`steps` goes on."""
        return any(self._step() for _ in range(_STEPS_AT_ONCE))

    def steps(self) -> Steps[None]:
        while not self._step():
            yield

    def _step(self) -> bool:
        """Whether it was the last one."""
        try:
            next(self._reading)
        except StopIteration as end:
            self.rows = end.value
        except TooLarge:  # kept, the error would keep the rows
            self.too_large = True
        else:
            return False
        return True


# token, TxnRequest or whose prepare it is
Unlooking = tuple[Any, bytes | Attempt, "Ahead | Reading"]


class Attempts(Generic[T]):
    def __init__(
        self, store: AppliedState, term: int, table: LockTable[Waiting[T] | Preparing[T]], shown: ShownRows,
        answers: list[Answer], unlooked: list[Unlooking], order_index: int,
    ) -> None:
        """``table``, ``answers``, ``unlooked``: the leader's. ``order_index``: applied."""
        self._store = store
        self._term = term
        self._table = table
        self._shown = shown
        self._answers = answers
        self._unlooked = unlooked
        self._view: PendingOverlay | None = None
        self._early: list[tuple[T, Prepare]] = []
        self._ahead: dict[Attempt, tuple[T, Prepare]] = {}  # looked at before they lock
        self._ungranted: dict[Attempt, Queued[Waiting[T] | Preparing[T]]] = {}  # with their locks, or soon
        self._ended: set[Attempt] = set()  # released or applied here: never locked again (H5)
        self._most_ended = _FEW_ENDED  # then those below the floor are forgotten
        self._floor = Attempt(0, 0)
        # whether this replica's copy of a move is so far
        self.copied: Callable[[Base], bool] = lambda base: False
        # whether to count the keys of these spans is to walk very many, as after a start
        self.uncounted: Callable[[list[Span]], bool] = lambda spans: False
        self.sequencer_term = 0  # newest term of an order record applied here
        self.order_index = order_index  # applied
        self._since = order_index  # multis up to there are not known here

    def serve(self, view: PendingOverlay) -> None:
        self._view = view

    def prepare(self, token: T, prepare: Prepare, begun: int, looked: RangeCompares | None = None) -> bool:
        """The sequencer asks for a lock (H5: stale attempts are ignored). True: call :meth:`grant`."""
        attempt, view = prepare.attempt, self._view
        if attempt.term < self.sequencer_term or attempt in self._ended or attempt <= self._floor:
            return False
        if attempt.term > self.sequencer_term or view is None or prepare.order_index > self.order_index:
            if len(self._early) < _MAX_EARLY:
                self._early.append((token, prepare))
            return False
        self._raise_floor(Attempt(attempt.term, prepare.floor))
        held = self._table.find(attempt)
        if held is not None:
            assert isinstance(held.payload, Preparing)
            held.payload.token = token
            if held.payload.answer is not None:
                self._answers.append((token, Status.OK, held.payload.answer))
            elif held.payload.too_large:
                self._refuse(held.payload)
            return False
        if self._may_have_ended(prepare):
            self._answers.append((token, Status.LOCKED, encode_attempt(attempt)))
            return False
        looks = attempt in self._ahead
        if looks or (looked is None and len(self._ahead) < _MAX_EARLY and are_many(prepare.compares, view)):
            if not looks:
                ahead = RangeCompares(pb.TxnRequest(compare=prepare.compares))
                self._unlooked.append((token, attempt, ahead))
            self._ahead[attempt] = token, prepare
            return False
        try:
            held = self._table.prepare(
                attempt, self._wanted(prepare), Preparing(token, prepare, looked=looked))
        except Refused as e:
            self._answers.append((token, Status.LOCKED, encode_attempt(e.holder)))
            return False
        if held.active:
            self._lock(held, begun)
            self._ungranted[attempt] = held
        return held.active

    def _may_have_ended(self, prepare: Prepare) -> bool:
        """It was sent before this leader began, and may come after its multi (H5)."""
        return prepare.sent_at is not None and prepare.sent_at < self._since

    def looks(self, attempt: Attempt) -> bool:
        return attempt in self._ahead or self._table.find(attempt) is not None

    def looked_at(self, attempt: Attempt, looked: RangeCompares | Reading | None, begun: int) -> bool:
        """The look for a prepare is done; None: given up. As :meth:`prepare`."""
        ahead, held = self._ahead.pop(attempt, None), self._table.find(attempt)
        if held is not None and isinstance(held.payload, Preparing):
            if isinstance(looked, Reading):
                if looked.too_large:
                    self._refuse(held.payload)
                    return False
                held.payload.rows, self._ungranted[attempt] = looked.rows, held
                return True
            held.payload.looked, self._ungranted[attempt] = looked, held
            return looked is not None
        return (ahead is not None and isinstance(looked, RangeCompares)
                and self.prepare(*ahead, begun, looked))

    @whole
    def release(self, attempt: Attempt) -> bool:
        """The attempt is given up, or its multi was applied. True: it had a lock."""
        if attempt > self._floor:
            self._ended.add(attempt)
        self._ahead.pop(attempt, None)
        held = self._table.find(attempt)
        if held is not None:
            self._table.unlock(held)
        return held is not None

    def undecided(self) -> list[Attempt]:
        return [held.attempt for held in self._table if held.attempt is not None]

    def _raise_floor(self, floor: Attempt) -> None:
        if floor > self._floor:
            self._floor = floor
            if len(self._ended) > self._most_ended:
                self._ended = {a for a in self._ended if a > floor}
                self._most_ended = 2 * len(self._ended) + _FEW_ENDED

    def _wanted(self, prepare: Prepare) -> Footprint:
        wanted = prepare.footprint()
        for lease in prepare.leases:
            assert self._view is not None
            wanted.writes.extend((key, b"") for key in self._view.lease_keys(lease))
        return wanted

    def _lock(self, held: Queued[Waiting[T] | Preparing[T]], begun: int) -> None:
        """Nothing before it conflicts: from now on nothing conflicting is logged here (I9)."""
        assert isinstance(held.payload, Preparing)
        # H1: everything evaluated by now is applied before it is answered, whatever it touches (C3). Also
        # what changed nothing: its answer shows the state before the lock, not a later revision.
        held.payload.batch = begun
        held.payload.rows = None

    def activated(self, held: Queued[Waiting[T] | Preparing[T]], payload: Preparing[T], begun: int) -> None:
        if payload.prepare.leases:  # what ran before it may have hung more keys on the lease
            self._table.widen(held, self._wanted(payload.prepare))
            own = Overlaps()  # a lease may have very many keys
            own.add(held.footprint)
            behind = False
            for other in self._table:
                if other is held:
                    behind = True
                    continue
                if not own.meets(other.footprint):
                    continue
                if behind and other.attempt is None:
                    self._table.suspend(other)  # it came later: it waits for this lock now
                else:  # I12: nor may it wait for, or overlap, an undecided one that came later
                    self._table.suspend(held)
                    if other.attempt is not None:
                        self._answers.append((payload.token, Status.LOCKED, encode_attempt(other.attempt)))
                        assert payload.answer is None, (
                            f"I11: {payload.prepare.attempt} was granted, and is undecided")
                        self._table.unlock(held)
                    return
        self._lock(held, begun)
        self._ungranted[payload.prepare.attempt] = held

    def grant(self, applied: int) -> None:
        """Answer the prepares that lock, and for which all is applied that must be."""
        for attempt, held in list(self._ungranted.items()):
            payload = held.payload
            assert isinstance(payload, Preparing)
            if self._table.find(attempt) is not held:  # released meanwhile
                del self._ungranted[attempt]
                continue
            if not held.active or payload.batch > applied:
                continue
            prepare, store = payload.prepare, self._store
            if prepare.base is not None:
                if self._grant_switch(prepare, payload):
                    del self._ungranted[attempt]
                continue
            if self._waits(payload):
                continue
            assert self._view is not None
            del self._ungranted[attempt]
            try:
                if payload.looked is not None:
                    payload.looked.look_again(self._view, store)
                verdicts = decide(prepare.compares, self._view, Turn(payload.looked))
            except Unlooked:
                looked = payload.looked or RangeCompares(pb.TxnRequest(compare=prepare.compares))
                self._unlooked.append((payload.token, attempt, looked))
                continue
            if payload.rows is None:
                reading = Reading(store, prepare)
                if not reading.at_once():
                    self._unlooked.append((payload.token, attempt, reading))
                    continue
                if reading.too_large:
                    self._refuse(payload)
                    continue
                payload.rows = reading.rows
            assert payload.rows is not None
            rows, counts, pinned = payload.rows
            if self._waits(payload):
                self._ungranted[attempt] = held
                continue
            payload.rows = None
            if pinned:
                self._shown.keep(attempt, store, prepare.touches, pinned)
            keys = [store.lease_keys(lease) for lease in prepare.leases]
            payload.answer = Grant(self._term, rows, keys, counts, verdicts).encode()
            self._answers.append((payload.token, Status.OK, payload.answer))

    def _refuse(self, payload: Preparing[T]) -> None:
        """Its lock stays until the sequencer lets it go."""
        payload.too_large = True
        self._answers.append((payload.token, Status.ERROR, EtcdError(errors.REQUEST_TOO_LARGE).encode()))

    def _waits(self, payload: Preparing[T]) -> bool:
        """For what is not applied yet, or, with rows to pin, for others' to be let go."""
        revision = self._store.revision
        if any(touch.revision > revision for touch in payload.prepare.touches):
            return True
        return payload.rows is not None and bool(payload.rows[2]) and self._shown.full

    def _grant_switch(self, prepare: Prepare, payload: Preparing[T]) -> bool:
        """A source's revision and its number of live keys, or a target's promise (G4)."""
        base, store = prepare.base, self._store
        assert base is not None
        if base.revision and not self.copied(base):
            return False
        if self.uncounted([(touch.key, touch.range_end) for touch in prepare.touches]):
            return False
        counts = {at: store.live_count(t.key, t.range_end) for at, t in enumerate(prepare.touches)}
        rows: list[list[Row]] = [[] for _ in counts]
        payload.answer = Grant(self._term, rows, [], counts, revision=store.revision).encode()
        self._answers.append((payload.token, Status.OK, payload.answer))
        return True

    def promises(self, move: int) -> bool:
        """Whether a switch of this move that was promised its base is undecided."""
        return any(
            isinstance(payload := held.payload, Preparing) and payload.answer is not None
            and payload.prepare.base is not None and payload.prepare.base.revision > 0
            and payload.prepare.base.move == move for held in self._table)

    def applied_record(self, order_index: int, order_term: int, attempts: list[Attempt]) -> None:
        """A whole order record was applied here: ``attempts`` are the multis it held."""
        self.order_index = order_index
        if order_term > self.sequencer_term:
            self.sequencer_term = order_term
            # I11: what an older sequencer left undecided will never be appended
            for held in [h for h in self._table if h.attempt is not None and h.attempt.term < order_term]:
                self._table.unlock(held)
        for attempt in attempts:
            self.release(attempt)

    def take_early(self) -> list[tuple[T, Prepare]]:
        """Prepares that came too early: :meth:`prepare` each of them again."""
        if self._view is None or not self._early:
            return []
        early, self._early = self._early, []
        return early
