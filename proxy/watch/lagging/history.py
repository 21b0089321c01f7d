"""Reading the past of a range in slices, a bounded number at once, clients in turn (decision 82). Ranges of
other shards have turns of their own: a shard may give no answer for long. A slice over several shards asks
each from the same revision. It is complete up to where the slowest got; what others brought beyond that is
asked again. Where keys move meanwhile, the whole slice is asked again (G7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.pacing.turns import Turns
from cluster.placement import Placement
from cluster.wire.messages import HISTORY_ANSWER, HISTORY_HEAD, SIGNS, Status
from proxy.routing.router import Router, Waiting
from proxy.watch.encode import Batch, batch_of_history, merged

_OPEN = 4  # slices of the same shards that are under way at once; the rest wait their turn
_IN_ALL = 16  # where that is reached, a set of shards still has one: hung ones leave others something
# A client's next slice is read after one of each other client's. In bytes a slice has what a message may have
_EVENTS = 200  # of a slice: its reading holds the loop
# questions of clients that have gone which are given up in a turn, under 1 ms. The one behind them is asked:
# once it is answered, the next ones are given up
_DROPPED = 200


@dataclass(slots=True)
class Slice:
    batch: Batch | None
    next_revision: int  # complete below it
    applied: int  # revision applied by the slowest replica
    compacted: int = 0  # the compaction's revision, if the start is compacted
    failed: bool = False  # time limit, lost link, or replica behind a known compaction: ask again later


class Watched(Protocol):
    key: bytes
    range_end: bytes
    prev_kv: bool


@dataclass(slots=True)
class _Question:
    watched: Watched
    client: Hashable
    shards: tuple[int, ...]  # empty: all that have owned a part of the range since
    from_revision: int
    then: Callable[[Slice], None]
    wanted: Callable[[], bool]
    owners: tuple[int, ...] = ()  # that are asked, and have turns of their own
    open: int = 0
    next_revision: int = 1 << 62
    applied: int = 1 << 62
    compacted: int = 0
    failed: bool = False
    batches: list[Batch] = field(default_factory=list)


class History:
    def __init__(self, router: Router, placement: Placement, most_bytes: int) -> None:
        self._router = router
        self._placement = placement
        self._most_bytes = most_bytes  # of a slice
        self.slice_events = _EVENTS
        # by owners, while there are questions to them
        self._turns: defaultdict[tuple[int, ...], Turns[_Question]] = defaultdict(
            lambda: Turns(_OPEN, room=lambda: self._under_way < _IN_ALL))
        self._under_way = 0
        self._going_on = False
        self.slices = 0

    def ask(self, watched: Watched, client: Hashable, shards: tuple[int, ...], from_revision: int,
            then: Callable[[Slice], None], wanted: Callable[[], bool]) -> None:
        """``wanted``: whether anybody still waits for it, as its turn comes. If not, it has failed."""
        question = _Question(watched, client, shards, from_revision, then, wanted)
        question.owners = shards or self._owners(question)
        if self._turns[question.owners].enter(client, 1, question):
            self._start(question)

    def _start(self, question: _Question) -> None:
        self.slices += 1
        self._under_way += 1
        question.open = len(question.owners)
        # below a known compaction no event is wanted, but the compaction's name
        events = 1 if question.from_revision < self._router.compacted else self.slice_events
        watched = question.watched
        head = HISTORY_HEAD.pack(
            question.from_revision, events, self._most_bytes, watched.prev_kv | SIGNS, len(watched.key))
        for shard in question.owners:
            self._router.history(head + watched.key + watched.range_end, shard, self._answer, question)

    def _owners(self, question: _Question) -> tuple[int, ...]:
        """By the newest table. Below its pruning a node may answer for the wrong owner: it only tells how far
        compaction is by now."""
        table, revision = self._placement.table, question.from_revision
        key, range_end = question.watched.key, question.watched.range_end
        if revision < table.pruned:
            question.compacted = max(question.compacted, table.pruned)
            revision = table.pruned
        if not table.past:
            return self._placement.shards_of(key, range_end)
        return table.owners_since(key, range_end, revision)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status == Status.PARTIAL:  # it goes on
            if body:
                waiting.pieces = [*(waiting.pieces or ()), body]
            return
        question: _Question = waiting.context
        question.open -= 1
        if status == Status.OK:
            if waiting.pieces:
                body = b"".join((*waiting.pieces, body))
            next_revision, applied, _, count = HISTORY_ANSWER.unpack_from(body)
            question.next_revision = min(question.next_revision, next_revision)
            question.applied = min(question.applied, applied)
            if (batch := batch_of_history(body, HISTORY_ANSWER.size, count)) is not None:
                question.batches.append(batch)
        else:
            error = EtcdError.decode(body)
            if error.kind is errors.COMPACTED and error.text.isdigit():
                question.compacted = max(question.compacted, int(error.text))
            else:
                question.failed = True
        if not question.open:
            self._end(question)

    def _end(self, question: _Question) -> None:
        if not question.shards and question.owners != self._owners(question):
            question.failed = True  # what has moved meanwhile is another's now
        self._turns[question.owners].leave(question.client, 1)
        self._under_way -= 1
        try:
            question.then(self._finish(question))
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """A question that fails at once makes room for the next one: this loop takes it, without
        recursion."""
        if self._going_on:
            return
        self._going_on, left = True, _DROPPED
        try:
            while (question := self._next()) is not None:
                if left and not question.wanted():
                    left -= 1
                    self._turns[question.owners].leave(question.client, 1)
                    question.then(Slice(None, 0, 0, failed=True))
                else:
                    self._start(question)
        finally:
            self._going_on = False
            for owners in [owners for owners, turns in self._turns.items() if not turns.used]:
                del self._turns[owners]

    def _next(self) -> _Question | None:
        for owners, turns in self._turns.items():
            if (found := turns.next()) is not None:
                self._turns[owners] = self._turns.pop(owners)  # behind the others
                return found[2]
        return None

    def _finish(self, question: _Question) -> Slice:
        known = self._router.compacted  # or more is: of one that was refused it is not known how much
        if question.from_revision < known > question.compacted:
            question.failed = True  # a replica is behind: it names the compaction once it has applied it
            question.compacted = 0
        if question.compacted:
            return Slice(None, 0, 0, question.compacted)
        if question.failed:
            return Slice(None, 0, 0, failed=True)
        found = [
            b for batch in question.batches if (b := batch.between(0, question.next_revision - 1)) is not None
        ]
        batch = merged(found) if len(found) > 1 else found[0] if found else None
        return Slice(batch, question.next_revision, question.applied)
