"""What a watch has missed, gathered into one answer. An etcd sends up to 1000 revisions at once; here it is
as many events (more only of one revision), and :data:`MOST_BYTES`: room for ten values of the largest size
(1.5 MiB). The slices count as their client's memory (``proxy.routing.pieces``), and are sent without a
copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.watch.cohort import Cohort
from proxy.watch.encode import Batch
from proxy.watch.lagging.history import History, Slice
from proxy.watch.subscription import Subscription

MOST_BYTES = 16 << 20
MOST_EVENTS = 1000


@dataclass(slots=True, eq=False)
class Gathered:
    call: Any
    next_revision: int  # complete below it
    slice_bytes: int  # that a slice brings, about, at most
    applied: int = 0  # the revision that the slowest replica had applied
    batches: list[Batch] = field(default_factory=list)
    _size_bytes: int = 0
    _events: int = 0

    def add(self, found: Slice) -> bool:
        """Returns whether there is more, and room for it."""
        went_on = found.next_revision > self.next_revision
        self.next_revision, self.applied = found.next_revision, found.applied
        batch, room = found.batch, MOST_EVENTS - self._events
        full = batch is not None and batch.count > room
        if batch is not None and full:
            upto = batch.entries()[room][0] - 1  # whole revisions
            if not self._events:
                upto = max(upto, batch.first)
            batch, self.next_revision = batch.between(0, upto), upto + 1
        if batch is not None:
            self.batches.append(batch)
            self._events += batch.count
            self._size_bytes += batch.size_bytes
            self.call.gather(batch.size_bytes)
        return (
            went_on
            and not full
            and self.next_revision <= self.applied
            and self.call.large_answers
            and self._events < MOST_EVENTS
            and self._size_bytes + self.slice_bytes <= MOST_BYTES
            and self.call.room_to_gather
        )

    def release(self) -> None:
        self.call.gather(-self._size_bytes)
        self._size_bytes = 0


class CatchingUp:
    """Slice after slice of what a cohort has missed. Nothing in here refers to it: what it has gathered is
    freed when it ends, not when the garbage collector comes."""

    __slots__ = ("_cohort", "_gathered", "_history", "_subscription", "_then")

    def __init__(
        self, history: History, subscription: Subscription, cohort: Cohort,
        then: Callable[[Subscription, Cohort, Gathered, Slice], None], slice_bytes: int,
    ) -> None:
        """``then`` gets all of it and the last slice, if the cohort has not ended."""
        self._history = history
        self._subscription = subscription
        self._cohort = cohort
        self._then = then
        self._gathered = Gathered(cohort.stream.call, cohort.cursor + 1, slice_bytes)

    def ask(self) -> None:
        self._history.ask(self._subscription, self._cohort.client, (), self._gathered.next_revision,
                          self._answer, self._wanted)

    def _wanted(self) -> bool:
        return not self._cohort.synced  # it has not ended

    def _answer(self, found: Slice) -> None:
        cohort, gathered = self._cohort, self._gathered
        wanted = self._wanted()
        if found.batch is not None:
            found.batch.encoded(cohort.filters)  # in steps
        more = not (found.compacted or found.failed) and gathered.add(found)
        if more and wanted and not cohort.blocked:
            self.ask()
            return
        gathered.release()
        cohort.asking = False
        if wanted:
            self._then(self._subscription, cohort, gathered, found)
