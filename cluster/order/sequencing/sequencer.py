"""The sequencer at one term: what it puts into the order log, besides shard 0's own writes.

Three states stand at the end of its log: the cuts up to there (the fold), shard 0's speculative state (the
overlay), and the entry that is being filled. :class:`Tail` puts an item into all or into none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from cluster.effects.records import Item, items
from cluster.evaluate.replica import Leader
from cluster.evaluate.spans import Span
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.view import Outcome, Version
from cluster.order.log import Attempt, Fold, encode_cut
from cluster.order.sequencing.coordinator import Coordinator, Wide
from cluster.order.sequencing.fetching import Fetched, Fetching
from cluster.order.sequencing.reports import Reports
from cluster.placement import Placement
from cluster.placement.changes import read_moved
from cluster.wire.messages import HEAD, Status

T = TypeVar("T")
Token = TypeVar("Token", contravariant=True)
# attempt, members that have pinned its rows by shard, where they go, token, called when they are there
Fetch = Callable[[Attempt, Mapping[int, int], Fetched, T, Callable[[bool], None]], None]


class OpenEntry(Protocol[Token]):
    def weigh(self, size: int) -> None: ...
    def stage(self, token: Token, status: int, body: bytes) -> None: ...
    def stage_late(self, token: Token, due: DueAnswer) -> None: ...


class Tail:
    """The end of this sequencer's log: what is logged, and what the open entry holds."""

    def __init__(self, leader: Leader, fold: Fold) -> None:
        """``fold``: of the whole log (H15), for its cuts; shard 0's own writes move the overlay's
        revision."""
        self.leader = leader
        self.fold = fold

    def append(
        self, item: bytes, writes: list[tuple[bytes, Version | None]], revoked: Sequence[int],
        ranges: Sequence[Span] = (),
    ) -> None:
        fold = self.fold
        before = fold.revision
        fold.take(item, 0)
        self.leader.append_ordered(item, fold.revision - before, writes, revoked, ranges)

    def append_plain(
        self, item: bytes, writes: list[tuple[bytes, Version | None]], wide: Wide[Any], revisions: int,
    ) -> None:
        """The multi of a transaction of single keys, made by this sequencer."""
        self.fold.take_own({shard: grant.term for shard, grant in wide.grants.items()}, revisions)
        self.leader.append_ordered(item, revisions, writes, ())


class Sequencer(Generic[T]):
    """``T``: what names a request to the driver (its way back)."""

    def __init__(
        self, tail: Tail, coordinator: Coordinator[T], placement: Placement, reports: Reports,
        entry: OpenEntry[T], fetching: Fetching, fetch: Fetch[T],
    ) -> None:
        """``reports``, ``fetching``: the node's, they outlast terms. ``fetch``: begins a fetch."""
        assert coordinator.fold is tail.fold, "H15: what is admitted and what is logged rest on one fold"
        self.tail = tail
        self.coordinator = coordinator
        self._placement = placement
        self._reports = reports
        self._entry = entry
        self._fetching = fetching
        self._fetch = fetch
        for report in reports.by_shard.values():
            coordinator.leader_of(report.shard, report.term)

    def run(self, now_ms: int, *, due: bool) -> Mapping[int, int]:
        """Put into the open entry what is complete. Returns the growth of each shard that is cut. ``due``:
        whether shard 0's own writes may leave; cuts gather as these do, except while a lock waits."""
        coordinator = self.coordinator
        grown = self._cut() if due or coordinator.busy else {}
        coordinator.run(now_ms, self._append)
        return grown

    def _cut(self) -> Mapping[int, int]:
        cuts, grown = self._reports.cut(self.tail.fold)
        if cuts:
            self.tail.append(encode_cut(cuts), [], [])
        return grown

    def _switched(self, item: bytes) -> None:
        """The next change of placement is judged by the table behind this one."""
        for kind, pos, _ in items(item):
            if kind == Item.MOVED:
                self.tail.leader.log_moved(read_moved(item, pos))

    def _append(self, item: bytes, outcome: Outcome, wide: Wide[T]) -> None:
        entry, shard_of = self._entry, self._placement.shard_of
        if wide.switch is not None:
            self._switched(item)
        if item:
            if homes := wide.homes:
                self.tail.append_plain(
                    item, [write for write in outcome.writes if not homes[write[0]]], wide, outcome.changed)
            else:
                own = [(key, version) for key, version in outcome.writes if shard_of(key) == 0]
                self.tail.append(item, own, outcome.revoked, outcome.ranges)
            entry.weigh(len(item))
        late, pinned, attempt, token = outcome.late, wide.pinned, wide.attempt, wide.token
        if late is None and pinned and attempt is not None:
            self._fetching.enough(attempt, pinned)
        if token is None or wide.left:
            return
        if late is not None:
            if pinned and attempt is not None and wide.fetched is not None:
                late.fetch = partial(self._fetch, attempt, pinned, wide.fetched, token)
            entry.stage_late(token, DueAnswer(late, outcome.revision - outcome.changed, outcome.revision))
        elif not item:  # a refusal, answered with the entry: it may rest on what that holds (I7)
            entry.stage(token, Status.ERROR, outcome.tail)
        else:
            entry.stage(token, Status.OK, HEAD.pack(outcome.revision, self.tail.leader.term) + outcome.tail)
