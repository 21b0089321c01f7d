"""What records of the order mean for one shard: which of its own entries come next, and at which revisions.

A cut counts only where the own entry at its index has its term (H3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cluster.effects.later_puts import LaterPuts
from cluster.order.following.feed_queue import Run
from cluster.order.log import ENTRY_ITEMS, Attempt, Change, Control, Entries, Fold, entry_count
from cluster.order.sound import Place, sound
from cluster.raft import Entry, EntryKind


class Evaluated(Protocol):
    """The own leader, if this replica leads: what it logged in its term need not be read again."""

    @property
    def term(self) -> int: ...
    def evaluated(self, index: int) -> LaterPuts | None: ...


@dataclass(slots=True)
class Placed:
    """What a run of records puts in order; it is applied together, or not at all."""

    index: int  # the shard's last entry in order, and its term
    term: int
    control: bool = False  # whether a control record is among it, which every leader confirms
    changes: list[tuple[int, bytes, int, int]] = field(default_factory=list)
    evaluated: dict[int, LaterPuts] = field(default_factory=dict)  # by places in ``changes``
    # what leaders must hear, in order: cuts; of each record, order index and term, and attempts
    cuts: list[Entries] = field(default_factory=list)
    records: list[tuple[int, int, list[Attempt]]] = field(default_factory=list)
    before: dict[int, int] = field(default_factory=dict)  # entry -> revision before it


class Placing:
    def __init__(self, shard: int, fold: Fold, entries: Callable[[int, int], Iterable[Entry]]) -> None:
        self.fold = fold
        self._shard = shard
        self._entries = entries
        self._count = fold.cut(shard).count

    def take(self, run: Run, index: int, term: int, leading: Evaluated | None) -> Placed:
        """Fold a run of records, where the entries up to ``index``, of ``term``, are in order already."""
        shard, take = self._shard, self.fold.take
        placed = Placed(index, term)
        changes = placed.changes
        for order_index, order_term, projection in run:
            attempts: list[Attempt] = []
            for step in take(projection, shard):
                if isinstance(step, Entries):
                    placed.cuts.append(step)
                    self._place(step, placed, leading)
                elif isinstance(step, Change):
                    if step.items:
                        changes.append((step.revision, step.items, 0, step.sub))
                    if step.attempt is not None:
                        attempts.append(step.attempt)
                else:
                    assert isinstance(step, Control)
                    changes.append((step.revision, step.item, 0, -1))
                    placed.control = True
            placed.records.append((order_index, order_term, attempts))
        return placed

    def _place(self, step: Entries, placed: Placed, leading: Evaluated | None) -> None:
        changes, before, cut = placed.changes, placed.before, step.cut
        revision, count, index, term = step.revision, self._count, placed.index, cut.term
        while index < cut.index:
            for entry in self._entries(index + 1, min(cut.index, index + 256)):
                before[entry.index] = revision
                if entry.kind == EntryKind.RECORD and len(entry.data) >= ENTRY_ITEMS:  # else nothing
                    if len(entry.data) > ENTRY_ITEMS:
                        data = sound(entry.data, Place.ENTRY, ENTRY_ITEMS)
                        if data is entry.data and leading is not None and entry.term == leading.term and (
                                puts := leading.evaluated(entry.index)) is not None:
                            placed.evaluated[len(changes)] = puts
                        changes.append((revision, data, ENTRY_ITEMS, -1))
                    grown = entry_count(entry.data)
                    revision += grown - count
                    count = grown
                index, term = entry.index, entry.term
        # H3, I6: the entry at the cut's index has the cut's term, which proves the whole prefix
        assert term == cut.term, f"I6: entry {index} has term {term}, the cut {cut.term}"
        assert count == cut.count, f"I3: entry {index} carries count {count}, the cut {cut.count}"
        self._count, placed.index, placed.term = count, index, term

    def inherited_count(self, last: int, applied: int) -> int:
        """The cumulative count that the log's last record carries, or else the cut."""
        for index in range(last, applied, -1):
            for entry in self._entries(index, index):
                if entry.kind == EntryKind.RECORD and len(entry.data) >= ENTRY_ITEMS:
                    return entry_count(entry.data)
        return self.fold.cut(self._shard).count
