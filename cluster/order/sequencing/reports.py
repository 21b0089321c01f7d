"""What the leaders of the other shards have said of themselves, and the cut that follows from it."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold

_ALL = 1 << 62  # more than any order index


class Reports:
    """Of one node 0: the newest of each shard. They outlast terms, for a report is state, not an event."""

    def __init__(self) -> None:
        self.by_shard: dict[int, Report] = {}
        self.reporters: dict[int, int] = {}  # shard -> member that reported last
        self.uncut = False  # some have come since the last cut

    def take(self, report: Report, member_id: int) -> None:
        """One has come; older ones than the known one may come later."""
        known = self.by_shard.get(report.shard)
        if known is None or (report.term, report.index, report.applied_order) >= (
            known.term, known.index, known.applied_order,
        ):
            self.by_shard[report.shard] = report
            self.reporters[report.shard] = member_id
            self.uncut = True

    def cut(self, fold: Fold) -> tuple[dict[int, Cut], dict[int, int]]:
        """The cut of every shard that has committed more than is in order, and by how many revisions each has
        grown."""
        cuts: dict[int, Cut] = {}
        grown: dict[int, int] = {}
        self.uncut = False
        for shard, report in self.by_shard.items():
            old = fold.cut(shard)
            # I3: only committed entries of the reporting leader's own term are reported; I4: never backwards
            if report.term >= old.term and report.index > old.index:
                cuts[shard] = Cut(report.index, report.term, report.count)
                grown[shard] = report.count - old.count
        return cuts, grown

    def applied_by(self, shard: int, fold: Fold) -> int:
        """The order index that a shard's leader has applied, as far as it has said; -1: nothing is known of
        the latest one."""
        report = self.by_shard.get(shard)
        if report is None or report.term < fold.cut(shard).term:
            return -1
        return report.applied_order

    def applied_by_all(self, shards: Iterable[int], fold: Fold) -> int:
        """What all of these shards' leaders have applied."""
        return min((self.applied_by(shard, fold) for shard in shards), default=_ALL)
