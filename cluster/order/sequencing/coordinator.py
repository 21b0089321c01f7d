"""The sequencer's part in transactions over several shards: admit, prepare, evaluate, append (section 5).

1. A transaction that its client may ask for is admitted when it overlaps nothing under way or queued before.
2. Each attempt has a fresh id. ``prepare`` goes to the leader of every touched shard, also of those only read
   (H4), once each has a leader of the latest term in O (H19); shard 0's part is read when the record is made
   (C4).
3. With all grants, if every participant's term is still that of ``C_s`` in this sequencer's log tail (C2),
   the transaction is evaluated and its multi appended in the same step. Otherwise a fresh attempt begins.
4. A refusal names another attempt. While that is undecided, this one starts over behind it; if it is dead it
   is released again, if it was appended the shard is told where (report, hole 2).
5. An id that was released is dead: it is never appended (H5). One that was appended is never released. A
   leader that asks about a lock is told "release once you have applied order index i" (hole 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeAlias, TypeVar

from cluster.errors import EtcdError
from cluster.evaluate.footprint import Footprint, footprint
from cluster.evaluate.overlay import NotYet, Overlay
from cluster.evaluate.replica import Ahead
from cluster.evaluate.txns.compares import Unlooked
from cluster.evaluate.txns.draft import large
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.evaluate.validate import parse
from cluster.evaluate.view import Outcome
from cluster.features.auth.judge import judge
from cluster.features.auth.principal import NOBODY, Principal
from cluster.features.auth.state import AuthState
from cluster.order.leading.verdicts import are_many
from cluster.order.log import Attempt, Fold
from cluster.order.moving.generations import Generations
from cluster.order.moving.hold import Hold
from cluster.order.moving.switch import Switch
from cluster.order.overlaps import Overlaps
from cluster.order.prepare import Grant, Prepare, encode_attempt
from cluster.order.sequencing.drafts import Survey, WideDraft
from cluster.order.sequencing.evaluator import Evaluator
from cluster.order.sequencing.expiries import Expiries
from cluster.order.sequencing.fates import Fates
from cluster.order.sequencing.granted import GrantedView, Uncounted, Unread
from cluster.order.sequencing.touches import in_all_shards, leases_looked_at, touches_of
from cluster.order.sequencing.wide import NEVER, Looks, wide_of
from cluster.order.sequencing.wide import Outgoing as Outgoing
from cluster.order.sequencing.wide import Wide as Wide
from cluster.pacing.pace import MAX_ENTRY_BYTES
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method

T = TypeVar("T")
Look: TypeAlias = "Ahead | Survey"
Append: TypeAlias = Callable[[bytes, Outcome, Wide[T]], None]  # an item, and who is answered

MAX_WAITING = 10_000  # transactions at one sequencer; beyond it TooManyRequests
MOST_LOOKED_AT = 256  # blocked ones in each run, 2 us each; all in a tenth of the time, or once a heartbeat


class Coordinator(Generic[T]):
    def __init__(
        self, term: int, placement: Placement, view: Overlay, fold: Fold, *, max_txn_ops: int,
        heartbeat_ms: int, gone: Callable[[T], bool] = lambda token: False, users: AuthState | None = None,
    ) -> None:
        """``gone``: whether the asker behind a token cannot be answered any more; ``users``: as logged."""
        self.term = term
        self.fold = fold  # of this sequencer's whole log tail (H15); the owner folds what it appends
        self._placement = placement
        self._view = view
        self._max_txn_ops = max_txn_ops
        self._resend_ms, self._give_up_ms = 5 * heartbeat_ms, 10 * heartbeat_ms
        self._heartbeat_ms = heartbeat_ms
        self._gone = gone
        self._users = users or AuthState()
        self.generations = Generations()
        self.hold: Hold | None = None  # of a switch whose source is shard 0
        self._number = 0
        self._queue: deque[Wide[T]] = deque()
        self._whole_ms = 0  # when all that wait are looked at next
        self._running: dict[Attempt, Wide[T]] = {}  # by number: an attempt begins under the next one
        self._looks = Looks[T](heartbeat_ms, self._due_of)
        self._expiries = Expiries()
        self._overlaps = Overlaps()  # of those that run
        self._fates = Fates()
        self.evaluator = Evaluator(view, placement, max_txn_ops)
        self._room = 0  # bytes that may still be appended in this run, or read, over what was read before
        self._messages: list[Outgoing] = []
        self._unlooked: list[tuple[Wide[T], Look]] = []
        # shard -> newest term that its leader was heard of, since it last failed to grant in time
        self._has_leader: dict[int, int] = {}
        self.completed = self.restarted = 0

    def submit(
        self, token: T | None, method: int, body: bytes, leases: list[int] | None = None,
        deadline_ms: int = NEVER, who: Principal = NOBODY,
    ) -> bool:
        """A transaction of a client, or an expiry of leases. What is not logged by its deadline is dropped
        silently: its front has answered it. False: too many wait. EtcdError: malformed."""
        if len(self._queue) + len(self._running) >= MAX_WAITING:
            return False
        revoked = leases or []
        if (request := large(body) if method == Method.TXN else None) is not None:
            wide = Wide(token, method, body, Footprint(), revoked, deadline_ms=deadline_ms, who=who)
            self._queue.append(wide)
            self._look(wide, Survey(request, self._placement))
            return True
        if revoked and not (revoked := self._expiries.fresh(revoked, self._queue, self._running.values())):
            return True
        if method == Method.LEASE_REVOKE and not revoked:
            revoked = [parse(pb.LeaseRevokeRequest.FromString, body).ID]
        wide = wide_of(token, method, body, revoked, self._max_txn_ops)
        wide.deadline_ms, wide.who = deadline_ms, who
        self._queue.append(wide)
        return True

    def switch(self, switch: Switch, now_ms: int) -> None:
        """The end of a move: admitted like a transaction that writes all that moves."""
        self._queue.append(Wide[T](None, Method.TXN, b"", Footprint(writes=[switch.span]), [], switch=switch,
                                   deadline_ms=now_ms + switch.limit_ms))  # G15

    def end_switch(self) -> None:
        """Give up the switch that is under way, or waits. Nothing of it is logged."""
        for wide in [wide for wide in self._running.values() if wide.switch is not None]:
            self._release(wide)
        for wide in [wide for wide in self._queue if wide.switch is not None]:
            self._queue.remove(wide)
            assert wide.switch is not None
            wide.switch.ended(False)

    def free_for(self, method: int, body: bytes, shard: int) -> bool:
        """Whether a write of one shard would begin at once. EtcdError: malformed."""
        return not self._queue and self._leads(shard) and not self._overlaps.meets(footprint(method, body))

    def _leads(self, shard: int) -> bool:
        """H19: a participant without a leader of the latest term in O would only hold up the others' keys."""
        return 0 < self.fold.cut(shard).term <= self._has_leader.get(shard, -1)

    def leader_of(self, shard: int, term: int) -> None:
        self._has_leader[shard] = max(term, self._has_leader.get(shard, 0))

    def granted(self, attempt: Attempt, shard: int, grant: Grant) -> None:
        self.leader_of(shard, grant.term)
        wide = self._running.get(attempt)
        if wide is None:
            self._answer_unknown(attempt, shard)
        elif shard in wide.participants:
            if wide.draft is not None and wide.grants[shard].term != grant.term:
                self._restart(wide)  # its draft rests on what another leader granted
            else:
                wide.take(shard, grant)
                self._looks.granted(wide)

    def refused(self, attempt: Attempt, shard: int, holder: Attempt, now_ms: int) -> None:
        """A participant would have to wait for ``holder``'s undecided lock."""
        wide = self._running.get(attempt)
        other = self._running.get(holder)
        if wide is None:
            return
        if other is wide:  # it was sent before that leader's term
            self._messages.append(Outgoing(shard, Method.PREPARE, wide.prepares[shard]))
        elif other is not None:
            self._restart(wide)
            wide.behind = holder
        elif index := self._fates.of(holder):  # its multi ends the lock: ask again for after that
            prepare = Prepare.decode(wide.prepares[shard])
            if index <= prepare.order_index:
                # a late prepare, over a link of version 8, locked it after its multi: the shard asks, and
                # this is sent when it is due
                return
            wide.prepares[shard] = replace(prepare, order_index=index).encode()
            if holder in self._fates.appended:  # else it may be dead, and the shard has to ask about it first
                self._messages.append(Outgoing(shard, Method.PREPARE, wide.prepares[shard]))
        else:  # dead, or being appended now: tell the shard, and ask again
            self._answer_unknown(holder, shard)
            wide.sent_ms = min(wide.sent_ms, now_ms - self._resend_ms + 1)
            self._looks.by(now_ms + 1)

    def cannot_grant(self, attempt: Attempt, error: EtcdError) -> None:
        """A participant's: what this asks for is too large, in any attempt."""
        if (wide := self._running.get(attempt)) is not None:
            wide.error = error
            self._looks.by(0)

    def _answer_unknown(self, attempt: Attempt, shard: int) -> None:
        """A lock that nothing here waits for: release it again unless it was appended: its multi ends it."""
        if attempt not in self._fates and not self._fates.of(attempt):
            self._messages.append(Outgoing(shard, Method.RELEASE, encode_attempt(attempt)))

    def fate(self, attempt: Attempt) -> int | None:
        """"Release once you have applied order index i" (0: at once); None: undecided, keep it."""
        if attempt in self._running or attempt in self._fates.appending:
            return None
        # one of an older term: its multi may be in the log before this term's first record, which ends it
        return self._fates.of(attempt) if attempt.term == self.term else None

    def run(self, now_ms: int, append: Append[T]) -> None:
        """Append what is complete and has room in a record, start what may be, repeat unanswered prepares.

        ``append(item, outcome, wide)`` logs the multi in the open batch. A refusal (EtcdError) has no item:
        it is answered with that batch, for it may rest on what is logged there (I7).
        """
        self._room = self._view.read + MAX_ENTRY_BYTES
        for wide in self._looks.at(self._running, now_ms):
            if self._over(wide, now_ms):
                self._release(wide)
            elif wide.error is not None:
                self._release(wide)
                self._refuse(wide, wide.error, append)
            elif wide.switch is not None and wide.switch.ask_target(
                    wide, self.generations.last, self._view):
                self._send(wide, now_ms)
            elif len(wide.grants) == len(wide.participants):
                if not wide.looking:
                    self._complete(wide, append)
            elif now_ms - wide.started_ms >= wide.patience_ms(self._give_up_ms):
                self._give_up(wide)
            elif now_ms - wide.sent_ms >= self._resend_ms:
                self._send(wide, now_ms)
        self._looks.done(self._running, now_ms)
        self._admit(now_ms, append)

    def sweep(self, now_ms: int) -> None:
        """While nothing can be logged: what is over keeps no other one out (I23)."""
        self._queue = deque(w for w in self._queue if w.switch is not None or not self._over(w, now_ms))

    def _due_of(self, wide: Wide[T]) -> int:
        patience_ms = wide.patience_ms(self._give_up_ms)
        return min(wide.deadline_ms, wide.started_ms + patience_ms, wide.sent_ms + self._resend_ms)

    def _admit(self, now_ms: int, append: Append[T]) -> None:
        if not self._queue:
            return
        waiting: list[Wide[T]] = []
        before = Overlaps()  # of those that wait
        queue, self._queue = self._queue, deque()
        if whole := now_ms >= self._whole_ms:
            self._whole_ms = now_ms + min(self._heartbeat_ms, (len(queue) - MOST_LOOKED_AT) // 50)
        while queue and (whole or len(waiting) < MOST_LOOKED_AT):
            wide = queue.popleft()
            if self._over(wide, now_ms):
                if wide.switch is not None:
                    wide.switch.ended(False)
                continue
            if (error := wide.refusal(self._users)) is not None:
                self._refuse(wide, error, append)
                continue
            if wide.behind is not None and wide.behind not in self._running:
                wide.behind = None
            later = self._expiries.cut(wide)
            if self._blocked(wide, before) or not self._start(wide, now_ms):
                waiting.append(wide)
                before.add(wide.footprint)
            elif not wide.participants:
                self._complete(wide, append)
                if wide.left and wide.attempt:  # it is appended: nothing overtakes the rest of it
                    before.add(self._queue[0].footprint)
            if later is not None:
                waiting.append(later)
                before.add(later.footprint)
        queue.extendleft(reversed(waiting))
        queue.extendleft(reversed(self._queue))  # those that had to start over meanwhile
        self._queue = queue

    def _blocked(self, wide: Wide[T], before: Overlaps) -> bool:
        lacked = wide.leaderless if wide.placed is self._placement.table else 0  # of each, in each run
        return (wide.looking or wide.behind is not None or bool(lacked and not self._leads(lacked))
                or self._overlaps.meets(wide.footprint) or before.meets(wide.footprint)
                or self._expiries.full(wide))

    def _start(self, wide: Wide[T], now_ms: int) -> bool:
        if not self.generations.settled:
            return False  # G8
        touches = touches_of(wide, self._placement, self._view)
        if looks_at := leases_looked_at(wide, self._users):
            touches = in_all_shards(touches, self._placement)
        wide.leaderless = next((shard for shard in touches if not self._leads(shard)), 0)
        if wide.leaderless:
            wide.placed = self._placement.table
            return False
        if wide.looked is None and are_many(wide.compares, self._view):
            self._look(wide, RangeCompares.of(wide.body))
            return False
        self._number += 1
        wide.attempt = Attempt(self.term, self._number)
        wide.grants, wide.asked, wide.prepares, wide.error = {}, {}, {}, None
        wide.touches, wide.looks_at = touches, looks_at
        wide.generation = self.generations.number
        wide.participants = tuple(sorted(touches))
        wide.started_ms = now_ms
        self._running[wide.attempt] = wide
        self._looks.begun(wide, now_ms)
        self._expiries.begun(wide)
        self._overlaps.add(wide.footprint)
        floor = next(iter(self._running)).number - 1
        # Order index 0: what was logged up to this sequencer's first record is applied there by then. The
        # lock of an overlapping multi ends only with it. Else that of the last change of placement (G8).
        named = sorted(wide.footprint.leases.difference(looks_at)) if wide.footprint.leases else []
        shards_of = self._placement.shards_of
        for shard in wide.participants:
            asked = wide.compares and [c for c in wide.compares if shard in shards_of(c.key, c.range_end)]
            prepare = Prepare(
                wide.attempt, floor, self.generations.last, touches[shard], looks_at, named, asked)
            wide.asked[shard] = asked
            if wide.switch is None:
                wide.prepares[shard] = prepare.encode()
            elif (body := wide.switch.first(shard, prepare)) is not None:
                wide.prepares[shard] = body
        if wide.switch is not None:
            wide.switch.begin(self._view.revision)
            self.hold = wide.switch.hold
        self._send(wide, now_ms)
        return True

    def _send(self, wide: Wide[T], now_ms: int) -> None:
        wide.sent_ms = now_ms
        for shard in wide.participants:
            if shard not in wide.grants and shard in wide.prepares:
                self._messages.append(Outgoing(shard, Method.PREPARE, wide.prepares[shard]))

    def _release(self, wide: Wide[T]) -> None:
        """The attempt is dead from here on, and never appended (H5)."""
        assert wide.attempt is not None
        assert wide.attempt not in self._fates, "H5: an attempt is released or appended, never both"
        del self._running[wide.attempt]
        self._looks.ended(wide.attempt)
        self._expiries.ended(wide)
        self._overlaps.remove(wide.footprint)
        for shard in wide.participants:
            self._messages.append(Outgoing(shard, Method.RELEASE, encode_attempt(wide.attempt)))
        wide.attempt = None
        if wide.switch is not None:
            self.hold = None
            wide.switch.ended(False)
        if wide.draft is not None:  # of what was granted to this attempt
            wide.draft, wide.looking = None, False

    def _restart(self, wide: Wide[T]) -> None:
        """Release everything and start over, in the same place at admission."""
        self._release(wide)
        self.restarted += 1
        if wide.switch is None:  # the mover tries again, after a pause
            self._queue.appendleft(wide)

    def _over(self, wide: Wide[T], now_ms: int) -> bool:
        """Whether its client waits no more: nothing of it is logged (review (b), Multi)."""
        return wide.deadline_ms <= now_ms or (wide.token is not None and self._gone(wide.token))

    def _give_up(self, wide: Wide[T]) -> None:
        """Nothing is locked for participants that were too slow until their leaders are heard again (H19)."""
        wide.given_up += 1
        for shard in wide.participants:
            if shard not in wide.grants:
                self._has_leader.pop(shard, None)
        self._restart(wide)

    def _complete(self, wide: Wide[T], append: Append[T]) -> None:
        if self._room <= self._view.read:
            return  # with the next record
        attempt = wide.attempt
        assert attempt is not None
        if not self._counts(wide):
            self._restart(wide)
            return
        if wide.switch is not None:
            self._complete_switch(wide, wide.switch, append)
            return
        participants = {shard: grant.term for shard, grant in wide.grants.items()}
        view = GrantedView(
            self._view, self._placement, wide.touches, wide.grants, wide.looks_at, wide.homes)
        if wide.large is not None and wide.draft is None:
            wide.draft = WideDraft(self._view, wide.large, self._max_txn_ops, view, self._placement)
            self._look(wide, wide.draft)
            return
        try:
            if self._users.enabled and wide.token is not None:
                judge(self._users, wide.who, wide.method, wide.body, view)
            item, outcome = self.evaluator.multi(view, wide, attempt, participants)
        except NotYet:  # it reads shard 0 at a revision that is not applied: again at the next run
            return
        except Unlooked:
            self._look(wide, wide.draft or wide.looked or RangeCompares.of(wide.body))
            return
        except Unread:
            self._restart(wide)
            return
        except Uncounted:
            wide.rows = True
            self._restart(wide)
            return
        except EtcdError as e:
            self._release(wide)  # judged under its locks, which go now
            self._refuse(wide, e, append)
            return
        if self.hold is not None:
            self.hold.written(key for key, _ in outcome.writes)
        self._append(wide, item, outcome, append)

    def _refuse(self, wide: Wide[T], error: EtcdError, append: Append[T]) -> None:
        """Nothing of it is logged, and no lease counts as revoked (I15)."""
        self.completed += 1
        append(b"", Outcome(b"", False, wide.told(error).encode(), [], -1), wide)

    def _counts(self, wide: Wide[T]) -> bool:
        """Whether what was granted to an attempt still counts."""
        cut = self.fold.cut
        if any(cut(shard).term != grant.term for shard, grant in wide.grants.items()):
            return False  # C2, I10: decided here, once and for all
        if wide.generation != self.generations.number:
            return False  # G8
        # or rights have changed meanwhile
        return set(wide.looks_at).issuperset(leases_looked_at(wide, self._users))

    def _complete_switch(self, wide: Wide[T], switch: Switch, append: Append[T]) -> None:
        assert wide.attempt is not None
        if switch.hold is not None and switch.hold.broken:  # G4
            self._restart(wide)
            return
        terms = {shard: grant.term for shard, grant in wide.grants.items()}
        item = switch.item(wide.attempt, terms, wide.grants, self._view)
        if item is None:
            return
        self._append(wide, item, Outcome(item, False, b"", [], 0), append)
        self.generations.appended()
        switch.ended(True)

    def _append(self, wide: Wide[T], item: bytes, outcome: Outcome, append: Append[T]) -> None:
        assert wide.attempt is not None
        del self._running[wide.attempt]
        self._looks.ended(wide.attempt)
        self._expiries.ended(wide, len(outcome.writes))
        self._overlaps.remove(wide.footprint)
        self._fates.appending.append(wide.attempt)
        self.completed += 1
        self._room -= len(item)
        append(item, outcome, wide)
        if wide.left:
            self._queue.appendleft(wide.rest())

    def _look(self, wide: Wide[T], ahead: Look) -> None:
        wide.looking = True
        self._unlooked.append((wide, ahead))

    def logged(self, index: int) -> None:
        self._fates.logged(index)
        self.generations.logged(index)

    def take_messages(self) -> list[Outgoing]:
        messages, self._messages = self._messages, []
        return messages

    def take_unlooked(self) -> list[tuple[Wide[T], Look]]:
        """Transactions that are surveyed, looked at or evaluated ahead; then :meth:`looked_at` each."""
        unlooked, self._unlooked = self._unlooked, []
        return [(wide, ahead) for wide, ahead in unlooked if wide.looking]

    def looks(self, wide: Wide[T], ahead: Look) -> bool:
        return wide.looking and (wide.draft is ahead or not isinstance(ahead, WideDraft))

    def looked_at(self, wide: Wide[T], looked: Look | None) -> None:
        """The look is done; None: given up, as its client waits no more."""
        if isinstance(looked, RangeCompares):
            wide.looked = looked
        elif isinstance(looked, Survey):
            looked.tell(wide)
        elif wide.large is not None and (wide.draft is None or looked not in (None, wide.draft)):
            return  # of an attempt that has ended
        wide.looking = False
        if looked is None:
            wide.deadline_ms = 0
            self._looks.by(0)

    def resign(self) -> list[T]:
        """The term is lost: nothing that waits here has been logged."""
        waiting = [*self._queue, *self._running.values()]
        self.hold = None
        self._queue.clear()
        self._running.clear()
        self._looks.clear()
        self._expiries = Expiries()
        self._overlaps = Overlaps()
        return [w.token for w in waiting if w.token is not None]

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._running)

    @property
    def ends_enough(self) -> bool:
        return self._expiries.enough(self._queue)

    @property
    def awaited(self) -> bool:
        return any(wide.token is not None for wide in (*self._queue, *self._running.values()))

    def statistics(self) -> dict[str, int]:
        return {"queued": len(self._queue), "running": len(self._running),
                "completed": self.completed, "restarted": self.restarted}
