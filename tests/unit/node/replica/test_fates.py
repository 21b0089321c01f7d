"""What becomes of batches of a lost term is told when it is certain (I23)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.effects import records
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.view import Late
from cluster.order.leading.bound import Bound
from cluster.order.leading.shard_batch import Reply, ShardBatch
from cluster.order.log import Cut
from cluster.placement.base import Base
from cluster.placement.owned import Owned, Shown
from cluster.placement.table import BASE, Piece, Table
from cluster.raft import Role
from cluster.wire.messages import Status
from node.replica.shards.fates import Fates

OLD, OWN, NEW = 2, 4, 5  # terms: this replica led in the first two of them


class Link:
    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self.told.append((rid, status))


def batch_of(link: Link, rid: int) -> ShardBatch:
    batch = ShardBatch(1, records.PENDING_REVISION, Bound(1))
    batch.take([((link, rid), b"k%d" % rid, records.Item.PUT_NEW, b"", b"")])
    return batch


class FakeNode:
    """Its log has the entry of ``term`` at every place."""

    def __init__(self, term: int) -> None:
        self.log = SimpleNamespace(term=lambda index: term)
        self.raft = SimpleNamespace(role=Role.FOLLOWER, is_leader=False, leader_id=2, term=term)
        self.past: Any = SimpleNamespace(
            deliver=lambda link, rid, status, body, term: link.answer(rid, status, body),
            shown=lambda: Shown(None),
        )

    def mark_dirty(self, link: Link) -> None:
        pass


def decided(term: int, cut: Cut) -> list[tuple[int, int]]:
    """Entry 8 was logged here in two terms, one after the other; ``term``: the one that was applied in the
    end."""
    link, node = Link(), FakeNode(term)
    fates = Fates(node)  # type: ignore[arg-type]
    fates.keep(8, OLD, batch_of(link, 1))
    fates.keep(8, OWN, batch_of(link, 2))
    assert link.told == [], "nothing is certain yet"
    fates.decide(cut, {index: index for index in range(cut.index + 1)})
    assert len(fates) == 0
    return sorted(link.told)


def test_an_entry_that_this_log_has_lost_may_be_committed_by_others() -> None:
    """Five hosts, figure 8. The entry of the old term is on this host and on B. Another leader, which C and D
    follow, takes it from this host's log, this host leads once more and logs its own there; then B is elected
    by C, D and itself."""
    assert decided(OLD, Cut(9, NEW, 9)) == [(1, Status.OK), (2, Status.NOT_LEADER)]


def test_the_later_one_may_be_committed() -> None:
    assert decided(OWN, Cut(9, NEW, 9)) == [(1, Status.NOT_LEADER), (2, Status.OK)]


def test_neither_is_there_once_a_later_term_goes_on_without_them() -> None:
    assert decided(NEW, Cut(7, NEW, 7)) == [(1, Status.NOT_LEADER), (2, Status.NOT_LEADER)]


def test_g6_a_late_answer_shows_what_a_switch_that_is_applied_with_it_takes() -> None:
    """This replica lagged: the order's records up to the switch came at once. Its request wrote nothing, so
    the switch is at its revision."""
    switched = Owned(Table(
        Base(1), {}, (Piece(b"k", b"l", 1, 21),), (Piece(b"k", b"l", BASE, 0, 20),)), 0)
    link, node = Link(), FakeNode(OWN)
    due: list[DueAnswer] = []
    node.past.deliver = lambda link, rid, status, body, term: due.append(body)
    batch = ShardBatch(1, records.PENDING_REVISION, Bound(1))
    batch.mix()
    batch.replies.append(Reply((link, 1), 0, False, Late(lambda view: iter(())), None, None))  # type: ignore[arg-type, return-value]
    fates = Fates(node)  # type: ignore[arg-type]
    fates.keep(8, OWN, batch)
    node.past.shown = lambda: Shown(switched)
    fates.decide(Cut(9, NEW, 9), {8: 20})
    assert switched.shows(b"k", 20)
    assert not switched.shows(b"k", 21)
    assert [(one.before, one.revision, one.shown) for one in due] == [(20, 20, Shown(None))]


def test_what_later_ones_show_of_skipped_ones_stays_unknown() -> None:
    """A snapshot does not tell at which revisions it put what it skips: later answers showed wrong ones."""
    link, node, bound = Link(), FakeNode(OWN), Bound(3)
    batches = [ShardBatch(number, records.PENDING_REVISION + number, bound) for number in range(2)]
    batches[0].take([((link, 1), b"k", records.Item.PUT_NEW, b"", b"")])
    batches[1].mix()
    batches[1].replies.append(Reply((link, 2), 0, False, b"", lambda before: b"", None))
    fates = Fates(node)  # type: ignore[arg-type]
    for index, batch in enumerate([*batches, batch_of(link, 3)], 8):
        fates.keep(index, OWN, batch)
    fates.skipped_to(8)
    assert link.told == [(1, Status.UNKNOWN), (2, Status.UNKNOWN)]
    fates.decide(Cut(10, NEW, 9), dict.fromkeys(range(11), 40))
    assert link.told[2:] == [(3, Status.OK)]
