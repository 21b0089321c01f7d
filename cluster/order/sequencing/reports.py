"""The newest reports of the other shards' leaders, the cut that follows from them, and control records that
wait until every leader has applied them (H11, I20)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator
from typing import Generic, TypeVar

from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold
from cluster.placement.table import State, Table

T = TypeVar("T")
_ALL = 1 << 62  # more than any order index


class Reports:
    """Of one node 0. They outlast terms, for a report is state, not an event."""

    def __init__(self) -> None:
        self.by_shard: dict[int, Report] = {}
        self.reporters: dict[int, int] = {}  # shard -> member that reported last
        self.uncut = False  # some have come since the last cut
        # shards in the order; None: all that report. Of others reports wait, or never count (G12, G13)
        self._in_order: frozenset[int] | None = None
        self.early: dict[int, tuple[Report, int]] = {}

    def follow(self, in_order: Collection[int]) -> None:
        """The table of placement has changed, or is about to."""
        self._in_order = frozenset(in_order)
        for shard in self.by_shard.keys() - self._in_order:
            del self.by_shard[shard]
            self.reporters.pop(shard, None)
        for shard in self.early.keys() & self._in_order:
            self.take(*self.early.pop(shard))

    def forget_early(self, forming: Container[int]) -> None:
        """Only of these shards may early reports count later."""
        for shard in [shard for shard in self.early if shard not in forming]:
            del self.early[shard]

    def take(self, report: Report, member_id: int) -> bool:
        """Whether the shard is in the order. An older report may come later, and is passed over."""
        if self._in_order is not None and report.shard not in self._in_order:
            self.early[report.shard] = report, member_id
            return False
        known = self.by_shard.get(report.shard)
        if known is None or (report.term, report.index, report.applied_order) >= (
                known.term, known.index, known.applied_order):
            self.by_shard[report.shard] = report
            self.reporters[report.shard] = member_id
            self.uncut = True
        return True

    def cut(self, fold: Fold) -> tuple[dict[int, Cut], dict[int, int]]:
        """The cut of every shard that has committed more than is in order, and its growth in revisions."""
        cuts: dict[int, Cut] = {}
        grown: dict[int, int] = {}
        self.uncut = False
        for report, growth in self._news(fold):
            cuts[report.shard] = Cut(report.index, report.term, report.count)
            grown[report.shard] = growth
        return cuts, grown

    def changes(self, fold: Fold) -> int:
        """Revisions that :meth:`cut` would put in order."""
        return sum([growth for _, growth in self._news(fold)])

    def _news(self, fold: Fold) -> Iterator[tuple[Report, int]]:
        for shard, report in self.by_shard.items():
            old = fold.cut(shard)
            # I3: only committed entries of the reporting leader's own term are reported; I4: never backwards
            if report.term >= old.term and report.index > old.index:
                yield report, report.count - old.count

    def applied_by(self, shard: int, fold: Fold) -> int:
        """The order index that a shard's latest leader has said it has applied; -1: not known."""
        report = self.by_shard.get(shard)
        if report is None or report.term < fold.cut(shard).term:
            return -1
        return report.applied_order

    def applied_by_all(self, shards: Iterable[int], fold: Fold) -> int:
        return min((self.applied_by(shard, fold) for shard in shards), default=_ALL)


class Askable:
    """The shards whose leaders control records wait for (I20), of one node 0: those that may show or accept
    anything.

    A shard that never had keys may not. One that has lost its last key, of the past too, may until its leader
    has applied the record of that. A later leader of it stands behind that record (I8). So a shard without
    keys holds up no answer for long, even where it has no leader.
    """

    def __init__(self) -> None:
        self._table: Table | None = None
        self._asked: frozenset[int] = frozenset()
        self._ceased: dict[int, int] = {}  # shard without keys -> order record that says so, or a later one

    def follow(self, table: Table, index: int, *, anew: bool = False) -> None:
        """A table is applied here, with the order up to ``index``. ``anew``: others may have been there since
        the last one, which this node has not seen."""
        before, self._table = self._table, table
        serving = {shard for shard, (state, *_) in table.shards.items()
                   if shard and state in (State.SERVING, State.RETIRING)}
        asked = frozenset(filter(table.may_be_asked_of, serving))
        lapsed = self._asked
        if before is None or anew:
            lapsed = frozenset(serving if table.last_move else ())
        elif table.last_move - before.last_move + (before.move is not None) > 1:
            lapsed = frozenset(serving)  # one may have got keys and lost them within this run
        self._ceased.update(dict.fromkeys(lapsed - asked, index))
        self._ceased = {shard: at for shard, at in self._ceased.items() if shard in serving - asked}
        self._asked = asked

    def applied(self, reports: Reports, fold: Fold) -> int:
        """The order record that the leader of each of them has applied."""
        for shard, index in list(self._ceased.items()):
            if reports.applied_by(shard, fold) >= index:
                del self._ceased[shard]
        return reports.applied_by_all((*self._asked, *self._ceased), fold)


class Controls(Generic[T]):
    """Of one node 0. ``T`` names a waiter. Its users bound their number (I23)."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, T]] = []  # order index of the record, waiter

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, index: int, waiter: T) -> None:
        self._waiting.append((index, waiter))

    def done(self, applied_by_all: int) -> list[T]:
        due = [waiter for index, waiter in self._waiting if index <= applied_by_all]
        if due:
            self._waiting = [(index, waiter) for index, waiter in self._waiting if index > applied_by_all]
        return due

    def all(self) -> list[T]:
        """Take out all waiters: what the leaders have applied is not known any more."""
        waiting, self._waiting = self._waiting, []
        return [waiter for _, waiter in waiting]

    def keep(self, awaited: Callable[[T], bool]) -> None:
        self._waiting = [(index, waiter) for index, waiter in self._waiting if awaited(waiter)]
