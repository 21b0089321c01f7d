"""The sequencer's part in transactions over several shards: admit, prepare, evaluate, append (section 5).

1. Admission is first come, first served: a transaction is admitted when it overlaps nothing that is under way
   and nothing that was queued before it.
2. Each attempt gets a fresh id. ``prepare`` goes to the leader of every touched shard but shard 0, those only
   read included (H4); shard 0's part is read when the record is made (C4). It is sent only when every
   participant has a leader of the latest term in O (H19).
3. With all grants, if every participant's term is still that of ``C_s`` in this sequencer's own log tail
   (C2), the transaction is evaluated and its multi appended in the same step. Otherwise everything is
   released and a fresh attempt begins.
4. A refusal names another attempt. If that one is still undecided, this one lets go of everything and starts
   over behind it; if it is dead its release is sent again, if it was appended the shard is told where
   (report, hole 2).
5. An id that was released is dead: it is never appended (H5). One that was appended is never released. A
   leader that asks about a lock is told "release once you have applied order index i" (hole 3).

Pure: time is passed in, messages to leaders come out of :meth:`Coordinator.take_messages`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeAlias, TypeVar

from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.footprint import Footprint, footprint, plain_footprint
from cluster.evaluate.replica import Ahead, NotYet, Overlay
from cluster.evaluate.spans import Span, merged
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns.draft import large
from cluster.evaluate.txns.range_compares import RangeCompares, add_compares
from cluster.evaluate.txns.transactions import Turn, Unlooked
from cluster.evaluate.validate import parse
from cluster.evaluate.view import Outcome, Version
from cluster.faults import answered
from cluster.features.auth.judge import judge
from cluster.features.auth.principal import NOBODY, Kind, Principal
from cluster.features.auth.state import AuthState
from cluster.order.leading.verdicts import Verdicts, are_many
from cluster.order.log import Attempt, Fold, Multi, Part, encode_multi
from cluster.order.overlaps import Overlaps
from cluster.order.prepare import Grant, Prepare, Touch, encode_attempt
from cluster.order.sequencing.drafts import Survey, WideDraft
from cluster.order.sequencing.expiries import Expiries
from cluster.order.sequencing.granted import GrantedView, Uncounted, Unread, shown_ranges, shows_deleted
from cluster.order.sequencing.parts import parts_of
from cluster.order.sequencing.wide import NEVER
from cluster.order.sequencing.wide import Outgoing as Outgoing
from cluster.order.sequencing.wide import Wide as Wide
from cluster.pacing.pace import MAX_ENTRY_BYTES
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method

T = TypeVar("T")
Look: TypeAlias = "Ahead | Survey"

MAX_WAITING = 10_000  # transactions at one sequencer; beyond it TooManyRequests
_FATES_KEPT = 100_000  # of the attempts that were appended last
_MOST_PATIENCE = 6  # an attempt is given up after ten heartbeats, and at most so many times doubled


class Coordinator(Generic[T]):
    """All transactions over several shards of one sequencer's term."""

    def __init__(
        self, term: int, placement: Placement, view: Overlay, fold: Fold, *, max_txn_ops: int,
        heartbeat_ms: int,
        max_waiting: int = MAX_WAITING, gone: Callable[[T], bool] = lambda token: False,
        users: AuthState | None = None,
    ) -> None:
        """``gone``: whether whoever asked, by its token, cannot be answered; ``users``: as logged."""
        self.term = term
        self.fold = fold  # of this sequencer's whole log tail (H15); the owner folds what it appends
        self._placement = placement
        self._view = view
        self._max_txn_ops = max_txn_ops
        self._resend_ms = 5 * heartbeat_ms
        self._give_up_ms = 10 * heartbeat_ms
        self._max_waiting = max_waiting
        self._gone = gone
        self._users = users or AuthState()
        self._number = 0
        self._queue: deque[Wide[T]] = deque()
        self._running: dict[Attempt, Wide[T]] = {}  # by number: an attempt begins under the next one
        self._expiries = Expiries()
        self._overlaps = Overlaps()  # of those that run
        self._appended: dict[Attempt, int] = {}  # attempt -> order index of its multi
        self._not_kept = (0, 0)  # of those appended before: the highest number, the last order index
        self._appending: list[Attempt] = []  # those whose multis are in the record that is being made
        self._room = 0  # bytes that may still be appended in this run
        self._messages: list[Outgoing] = []
        self._unlooked: list[tuple[Wide[T], Look]] = []
        # shard -> newest term that its leader was heard of, since it last failed to grant in time
        self._has_leader: dict[int, int] = {}
        self.completed = self.restarted = 0

    # -- what comes in

    def submit(
        self, token: T | None, method: int, body: bytes, leases: list[int] | None = None,
        deadline_ms: int = NEVER,
        who: Principal = NOBODY,
    ) -> bool:
        """A transaction of a client, or an expiry of leases. What is not logged by its deadline is dropped
        without a word, as its front has answered it then. False: too many wait. EtcdError: malformed."""
        if len(self._queue) + len(self._running) >= self._max_waiting:
            return False
        revoked = leases or []
        if (request := large(body) if method == Method.TXN else None) is not None:
            wide = Wide(token, method, body, Footprint(), revoked, deadline_ms=deadline_ms, who=who)
            self._queue.append(wide)
            self._look(wide, Survey(request, self._placement))
            return True
        if revoked:  # the lessor names what is due again and again, until it is gone
            coming = {lease for wide in (*self._queue, *self._running.values()) for lease in wide.leases}
            revoked = [lease for lease in revoked if lease not in coming]
            if not revoked:
                return True
        if method == Method.LEASE_REVOKE and not revoked:
            revoked = [parse(pb.LeaseRevokeRequest.FromString, body).ID]
        plain = plain_txn.read(body) if method == Method.TXN else None
        if plain is not None and (plain.ops() > self._max_txn_ops or plain.of_the_past):
            plain = None
        if plain is not None:
            wanted = plain_footprint(plain)
        else:
            wanted = Footprint(leases=set(revoked)) if revoked else footprint(method, body)
        wide = Wide(token, method, body, wanted, revoked, plain=plain, deadline_ms=deadline_ms, who=who)
        if method == Method.TXN and plain is None:
            found: dict[bytes, pb.Compare] = {}
            finish(add_compares(found, pb.TxnRequest.FromString(body)))
            wide.compares = list(found.values())
        self._queue.append(wide)
        return True

    def free_for(self, method: int, body: bytes, shard: int) -> bool:
        """Whether a write of one shard would begin at once. EtcdError: malformed."""
        if self._queue or not self._leads(shard):
            return False
        wanted = footprint(method, body)
        return not self._overlaps.meets(wanted)

    def _leads(self, shard: int) -> bool:
        """H19: a participant without a leader of the latest term in O would only hold up the others' keys."""
        term = self.fold.cut(shard).term
        return 0 < term <= self._has_leader.get(shard, -1)

    def leader_of(self, shard: int, term: int) -> None:
        """A leader of this shard was heard of (a report, an answer)."""
        self._has_leader[shard] = max(term, self._has_leader.get(shard, 0))

    def granted(self, attempt: Attempt, shard: int, grant: Grant) -> None:
        """A participant holds the lock and says what is there."""
        self.leader_of(shard, grant.term)
        wide = self._running.get(attempt)
        if wide is None:
            self._answer_unknown(attempt, shard)
        elif shard in wide.participants:
            if wide.draft is not None and wide.grants[shard].term != grant.term:
                self._restart(wide)  # it is evaluated on what another leader granted, before this one locked
            else:
                wide.grants[shard] = grant

    def refused(self, attempt: Attempt, shard: int, holder: Attempt, now_ms: int) -> None:
        """A participant would have to wait for another attempt's undecided lock."""
        wide = self._running.get(attempt)
        other = self._running.get(holder)
        if wide is None:
            return
        if other is not None and other is not wide:
            self._restart(wide)
            wide.behind = holder
        elif index := self._fate(holder):  # its multi ends the lock: ask again for when that is applied there
            prepare = Prepare.decode(wide.prepares[shard])
            if index <= prepare.order_index:
                # a late prepare locked it after its multi: the shard asks about it, and this is sent when it
                # is due
                return
            wide.prepares[shard] = replace(prepare, order_index=index).encode()
            if holder in self._appended:  # else it may be dead, and the shard has to ask about it first
                self._messages.append(Outgoing(shard, Method.PREPARE, wide.prepares[shard]))
        else:  # dead, or being appended now: tell the shard, and ask again
            self._answer_unknown(holder, shard)
            wide.sent_ms = min(wide.sent_ms, now_ms - self._resend_ms + 1)

    def _answer_unknown(self, attempt: Attempt, shard: int) -> None:
        """A lock that this sequencer does not wait for: dead ones are released again. An appended one ends by
        its multi, which the shard's feed brings."""
        if attempt not in self._appending and not self._fate(attempt):
            self._messages.append(Outgoing(shard, Method.RELEASE, encode_attempt(attempt)))

    def fate(self, attempt: Attempt) -> int | None:
        """"Release once you have applied order index i" (0: at once); None: undecided, keep it."""
        if attempt in self._running or attempt in self._appending:
            return None
        # of an older term: its multi may stand in the log before this term's first record, which ends the
        # lock
        return self._fate(attempt) if attempt.term == self.term else None

    def _fate(self, attempt: Attempt) -> int:
        """I11: the order index of the multi of one that is not under way, 0 if it has none. If it is so old
        that this is not kept, that of a later multi, whether it has one or not."""
        index = self._appended.get(attempt)
        if index is None:
            number, index = self._not_kept
            return index if attempt.number <= number else 0
        return index

    def _is_appended(self, attempt: Attempt) -> bool:
        return attempt in self._appended or attempt in self._appending

    # -- progress

    def run(self, now_ms: int, append: Callable[[bytes, Outcome, Wide[T]], None]) -> None:
        """Append what is complete, as far as a record has room, start what may be, repeat what was not
        answered.

        ``append(item, outcome, wide)`` logs the multi in the sequencer's open batch. A refusal (EtcdError)
        has no item: it is answered with that batch, for it may rest on what is logged there (I7).
        """
        self._room = MAX_ENTRY_BYTES
        for wide in list(self._running.values()):
            if self._over(wide, now_ms):
                self._release(wide)
            elif len(wide.grants) == len(wide.participants):
                if not wide.looking:
                    self._complete(wide, append)
            elif now_ms - wide.started_ms >= self._patience_ms(wide):
                self._give_up(wide)
            elif now_ms - wide.sent_ms >= self._resend_ms:
                self._send(wide, now_ms)
        self._admit(now_ms, append)

    def _admit(self, now_ms: int, append: Callable[[bytes, Outcome, Wide[T]], None]) -> None:
        if not self._queue:
            return
        waiting: list[Wide[T]] = []
        before = Overlaps()  # of those that wait
        queue, self._queue = self._queue, deque()
        for wide in queue:
            if self._over(wide, now_ms):
                continue
            if wide.behind is not None and wide.behind not in self._running:
                wide.behind = None
            if rest := self._expiries.cut(wide):
                wide.footprint = Footprint(leases=set(wide.leases))
            blocked = (wide.looking or wide.behind is not None or self._overlaps.meets(wide.footprint)
                       or before.meets(wide.footprint) or self._expiries.full(wide))
            if blocked or not self._start(wide, now_ms):
                waiting.append(wide)
                before.add(wide.footprint)
            elif not wide.participants:
                self._complete(wide, append)
            if rest:
                later = Wide[T](None, wide.method, wide.body, Footprint(leases=set(rest)), rest)
                waiting.append(later)
                before.add(later.footprint)
        self._queue.extend(waiting)  # behind whoever had to start over meanwhile

    def _start(self, wide: Wide[T], now_ms: int) -> bool:
        if wide.leaderless and not self._leads(wide.leaderless):
            return False  # asked for each that waits, in each run
        touches, looks_at = self._touches(wide), self._looks_at(wide)
        if looks_at:
            touches = self._in_all_shards(touches)
        wide.leaderless = next((shard for shard in touches if not self._leads(shard)), 0)
        if wide.leaderless:
            return False
        if wide.looked is None and are_many(wide.compares, self._view):
            self._look(wide, RangeCompares.of(wide.body))
            return False
        self._number += 1
        wide.attempt = Attempt(self.term, self._number)
        wide.grants = {}
        wide.touches, wide.looks_at = touches, looks_at
        wide.participants = tuple(sorted(touches))
        wide.started_ms = now_ms
        self._running[wide.attempt] = wide
        self._expiries.begun(wide)
        self._overlaps.add(wide.footprint)
        floor = next(iter(self._running)).number - 1
        # everything this sequencer logged up to its own first record is applied there by then; overlapping
        # multis before this one are in the order log already, and the lock there ends only with them
        named = sorted(wide.footprint.leases.difference(looks_at))
        shards_of = self._placement.shards_of
        wide.asked = {
            shard: [compare for compare in wide.compares
                    if shard in shards_of(compare.key, compare.range_end)]
            for shard in wide.participants
        }
        wide.prepares = {
            shard: Prepare(
                wide.attempt, floor, 0, touches[shard], looks_at, named, wide.asked[shard]).encode()
            for shard in wide.participants
        }
        self._send(wide, now_ms)
        return True

    def _in_all_shards(self, touches: dict[int, list[Touch]]) -> dict[int, list[Touch]]:
        """The keys of a lease may hang in any shard (H6)."""
        return {shard: touches.get(shard, []) for shard in range(1, self._placement.shards)}

    def _looks_at(self, wide: Wide[T]) -> list[int]:
        """The leases whose keys decide what it does, or whether its client may."""
        users, who = self._users, wide.who
        if wide.leases or not users.enabled or who.kind == Kind.FRONT:
            return wide.leases
        user = users.users.get(who.user)
        return [] if user is not None and users.is_root(user) else sorted(wide.footprint.leases)

    def _touches(self, wide: Wide[T]) -> dict[int, list[Touch]]:
        """What is locked and read in each shard other than 0."""
        found: dict[int, list[Touch]] = {}
        if wide.surveyed is not None:
            return wide.surveyed
        if wide.leases:
            return found
        if wide.plain is not None:
            written = {key for key, _ in wide.footprint.writes}
            for key in dict.fromkeys(wide.plain.keys()):
                if shard := self._placement.shard_of(key):
                    found.setdefault(shard, []).append(Touch(key, b"", key in written))
            return found
        brief = not wide.rows
        shown_too = brief and not wide.footprint.single and shows_deleted(wide.method, wide.body)
        shards_of = self._placement.shards_of

        def ask(touch: Touch) -> None:
            for shard in shards_of(touch.key, touch.range_end):
                if shard:
                    found.setdefault(shard, []).append(touch)

        for key, end in dict.fromkeys(wide.footprint.writes):
            ask(Touch(key, end, True, 0, brief and not shown_too and bool(end), shown_too and bool(end)))
        shown: dict[tuple[bytes, bytes, int], None] = {}
        if wide.method == Method.TXN and wide.footprint.reads:
            ranges = shown_ranges(wide.large or pb.TxnRequest.FromString(wide.body))
            shown = dict.fromkeys((r.key, r.range_end, r.revision) for r in ranges)
        needed = {(key, end) for key, end, _ in shown}
        reads: dict[int, list[Span]] = {}
        for span in wide.footprint.reads:
            for shard in shards_of(*span):
                rows = reads.setdefault(shard, [])
                if not span[1] or span in needed:  # of other ranges the shard's verdicts are all that counts
                    rows.append(span)
        for shard, spans in reads.items():
            if shard:
                # a key that is named by itself may decide something, whatever range shows it
                found.setdefault(shard, []).extend([Touch(key, b"") for key, end in spans if not end])
                whole = merged(span for span in spans if span[1])
                found[shard].extend([Touch(key, end, shown=True) for key, end in whole])
        low, high = max(self._view.compact_revision, 1), self._view.revision
        for key, end, revision in shown:
            if low <= revision <= high:  # outside of these bounds the evaluation refuses it
                ask(Touch(key, end, False, revision, shown=bool(end)))
        wide.ahead = min((revision for _, _, revision in shown if revision > high), default=NEVER)
        return found

    def _send(self, wide: Wide[T], now_ms: int) -> None:
        wide.sent_ms = now_ms
        for shard in wide.participants:
            if shard not in wide.grants:
                self._messages.append(Outgoing(shard, Method.PREPARE, wide.prepares[shard]))

    def _release(self, wide: Wide[T]) -> None:
        """The attempt is dead from here on, and never appended (H5)."""
        assert wide.attempt is not None
        assert not self._is_appended(wide.attempt), "H5: an attempt is released or appended, never both"
        del self._running[wide.attempt]
        self._expiries.ended(wide)
        self._overlaps.remove(wide.footprint)
        for shard in wide.participants:
            self._messages.append(Outgoing(shard, Method.RELEASE, encode_attempt(wide.attempt)))
        wide.attempt = None
        if wide.draft is not None:  # of what was granted to this attempt
            wide.draft, wide.looking = None, False

    def _restart(self, wide: Wide[T]) -> None:
        """Let go of everything and start over, in the same place at admission."""
        self._release(wide)
        self._queue.appendleft(wide)
        self.restarted += 1

    def _over(self, wide: Wide[T], now_ms: int) -> bool:
        """Whether nobody waits for it any more: nothing of it is logged (review (b), Multi)."""
        return wide.deadline_ms <= now_ms or (wide.token is not None and self._gone(wide.token))

    def _patience_ms(self, wide: Wide[T]) -> int:
        """How long its prepares may take. Ten heartbeats, as without a leader (H19); then four times as long
        with each attempt, for what is only slow, as one that reads very many rows, would be slow again, and
        never be done. An end of leases, which reads no rows and has no deadline, has four times ten at most:
        whom it waits for may only look alive."""
        return self._give_up_ms << min(2 * wide.given_up, 2 if wide.leases else _MOST_PATIENCE)

    def _give_up(self, wide: Wide[T]) -> None:
        """Some participants have not granted in time: nothing is locked for their sake until their leaders
        are heard of again (H19)."""
        wide.given_up += 1
        for shard in wide.participants:
            if shard not in wide.grants:
                self._has_leader.pop(shard, None)
        self._restart(wide)

    def _complete(self, wide: Wide[T], append: Callable[[bytes, Outcome, Wide[T]], None]) -> None:
        if self._room <= 0:
            return  # with the next record
        attempt = wide.attempt
        assert attempt is not None
        for shard, grant in wide.grants.items():
            if self.fold.cut(shard).term != grant.term:  # C2, I10: decided here, once and for all
                self._restart(wide)
                return
        if not set(wide.looks_at).issuperset(self._looks_at(wide)):  # who may what has changed meanwhile
            self._restart(wide)
            return
        participants = {shard: grant.term for shard, grant in wide.grants.items()}
        view = GrantedView(self._view, self._placement, wide.touches, wide.grants, wide.looks_at)
        if wide.large is not None and wide.draft is None:
            wide.draft = WideDraft(self._view, wide.large, self._max_txn_ops, view, self._placement)
            self._look(wide, wide.draft)
            return
        try:
            if self._users.enabled and wide.token is not None:
                judge(self._users, wide.who, wide.method, wide.body, view)
            item, outcome = self._evaluate(view, wide, attempt, participants)
        except NotYet:  # it reads shard 0 at a revision that is logged and not applied: again at the next run
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
            # under its locks, which go now: nothing of it is logged, and no lease counts as revoked (I15)
            self.completed += 1
            self._release(wide)
            append(b"", Outcome(b"", False, e.encode(), [], -1), wide)
            return
        del self._running[attempt]
        self._expiries.ended(wide, len(outcome.writes))
        self._overlaps.remove(wide.footprint)
        self._appending.append(attempt)
        self.completed += 1
        self._room -= len(item)
        append(item, outcome, wide)

    @answered
    def _evaluate(self, view: GrantedView, wide: Wide[T], attempt: Attempt,
                  participants: dict[int, int]) -> tuple[bytes, Outcome]:
        if wide.leases:
            return self._revoke(view, wide, attempt, participants)
        if wide.plain is not None:
            outcome, answer = plain_txn.run(view, wide.plain)
            outcome.tail = answer(view.revision)
        elif wide.method == Method.PUT:
            outcome = evaluate.put(view, wide.body)
        elif wide.method == Method.DELETE_RANGE:
            outcome = evaluate.delete_range(view, wide.body, view.weigh)
        elif wide.method == Method.TXN:
            outcome = self._txn(view, wide)
        else:
            raise ValueError(f"method {wide.method} is no transaction over several shards")
        if outcome.late is not None:
            if wide.ahead <= view.revision:
                raise Unread
            outcome.late, wide.fetched = view.behind(outcome.late)
        parts = wide.draft.parts if isinstance(wide.draft, WideDraft) else None
        if parts is None:
            parts = parts_of(view, self._placement, 0, outcome.items)
        return encode_multi(Multi(attempt, int(outcome.changed), participants, parts)), outcome

    def _txn(self, view: GrantedView, wide: Wide[T]) -> Outcome:
        if wide.draft is not None:
            if (outcome := wide.draft.outcome()) is not None:
                return outcome
            if wide.draft.fit:
                raise Unlooked
        if wide.looked is not None:
            wide.looked.look_again(self._view, self._view.applied)
        verdicts = Verdicts(self._view, self._placement, wide.asked, wide.grants, wide.looked)
        return evaluate.txn(view, wide.body, self._max_txn_ops, view.weigh, Turn(verdicts))

    def _look(self, wide: Wide[T], ahead: Look) -> None:
        wide.looking = True
        self._unlooked.append((wide, ahead))

    def _revoke(
        self, view: GrantedView, wide: Wide[T], attempt: Attempt, participants: dict[int, int]
    ) -> tuple[bytes, Outcome]:
        """One revision per lease that has keys, as etcd; the leases go with it."""
        parts: list[Part] = []
        writes: list[tuple[bytes, Version | None]] = []
        gone: list[bytes] = []
        revoked: list[int] = []
        done: set[bytes] = set()
        groups = 0
        for lease in wide.leases:
            if not view.lease_exists(lease):
                if wide.token is not None:
                    evaluate.lease_revoke(view, wide.body)  # says LeaseNotFound
                continue
            keys = [key for key in view.lease_keys(lease) if key not in done]
            if keys:
                done.update(keys)
                deletes = b"".join(records.delete(key) for key in keys)
                parts += parts_of(view, self._placement, groups, deletes)
                writes += [(key, None) for key in keys]
                groups += 1
            gone.append(records.lease_revoke(lease, ()))
            revoked.append(lease)
        item = encode_multi(Multi(attempt, groups, participants, parts)) + b"".join(gone)
        return item, Outcome(item, groups > 0, b"", writes, view.revision + groups, revoked=revoked)

    def logged(self, index: int) -> None:
        """What was appended since the last call is the order record ``index``."""
        for attempt in self._appending:
            self._appended[attempt] = index
        self._appending.clear()
        while len(self._appended) > _FATES_KEPT:
            oldest = next(iter(self._appended))
            self._not_kept = max(oldest.number, self._not_kept[0]), self._appended.pop(oldest)

    # -- what comes out

    def take_messages(self) -> list[Outgoing]:
        """Messages to leaders, in order."""
        messages, self._messages = self._messages, []
        return messages

    def take_unlooked(self) -> list[tuple[Wide[T], Look]]:
        """Transactions whose range compares are to be looked at in shard 0 ahead, or that are surveyed, or
        evaluated ahead; then :meth:`looked_at` each."""
        unlooked, self._unlooked = self._unlooked, []
        return unlooked

    def looks(self, wide: Wide[T], ahead: Look) -> bool:
        """Whether this look for :meth:`looked_at` is still wanted. One of an ended attempt is not."""
        return wide.looking and (wide.draft is ahead or not isinstance(ahead, WideDraft))

    def looked_at(self, wide: Wide[T], looked: Look | None) -> None:
        """That was done; None: it was given up, since nobody waits for it any more."""
        if isinstance(looked, RangeCompares):
            wide.looked = looked
        elif isinstance(looked, Survey):
            looked.tell(wide)
        elif wide.large is not None and (wide.draft is None or looked not in (None, wide.draft)):
            return  # of an attempt that has ended
        wide.looking = False
        if looked is None:
            wide.deadline_ms = 0

    def resign(self) -> list[T]:
        """The term is lost: whoever waits here has certainly not been logged."""
        waiting = [*self._queue, *self._running.values()]
        self._queue.clear()
        self._running.clear()
        self._expiries = Expiries()
        self._overlaps = Overlaps()
        return [w.token for w in waiting if w.token is not None]

    @property
    def busy(self) -> bool:
        """Whether anything is queued or under way."""
        return bool(self._queue or self._running)

    @property
    def awaited(self) -> bool:
        """Whether a client waits for one of them."""
        return any(wide.token is not None for wide in (*self._queue, *self._running.values()))

    def statistics(self) -> dict[str, int]:
        """Counts for metrics."""
        return {
            "queued": len(self._queue), "running": len(self._running),
            "completed": self.completed, "restarted": self.restarted,
        }  # fmt: skip
