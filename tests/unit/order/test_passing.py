"""What is kept of the order for one shard does there what the order would have done."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from cluster.effects import records
from cluster.order.following.feed_queue import FeedQueue
from cluster.order.log import (
    Attempt,
    Cut,
    Fold,
    Multi,
    Part,
    Step,
    cut_of,
    encode_cut,
    encode_multi,
    project,
)
from cluster.order.passing import Passing, Piece, behind, own_part
from cluster.order.salvage import Kept, common_with_files
from cluster.order.sound import Place, sound

SHARD, SHARDS, COUNT = 1, 4, 200


def an_order(seed: int) -> list[bytes]:
    """Records 1 and on: cuts, transactions, leases and puts of shard 0, few of them of any matter to one
    shard."""
    random, made = Random(seed), list[bytes]()
    cuts = dict.fromkeys(range(1, SHARDS), Cut(1, 1, 0))
    made.append(encode_cut(cuts))
    for number in range(2, COUNT + 1):
        items = []
        for _ in range(random.randint(0, 2)):
            kind = random.choice(("put", "cut", "cut", "multi", "lease"))
            shard = SHARD if random.random() < 0.05 else random.randint(2, SHARDS - 1)
            before = cuts[shard]
            if kind == "put":
                items.append(records.put(b"k%d" % number, 0, 1, b"v", 0))
            elif kind == "cut":
                cuts[shard] = Cut(before.index + 1, before.term, before.count + random.randint(0, 2))
                items.append(encode_cut({shard: cuts[shard]}))
            elif kind == "multi":
                part = Part(0, shard, 0, records.put(b"m", 0, 1, b"v", 0))
                parts = [part] if random.random() < 0.7 else []
                items.append(encode_multi(Multi(Attempt(1, number), 1, {0: 1, shard: before.term}, parts)))
            elif random.random() < 0.2:
                items.append(records.lease_grant(number, 10))
        made.append(b"".join(items))
    return made


def folds(order: list[bytes]) -> list[Fold]:
    """By records: the fold behind each."""
    fold, found = Fold(1, {0: Cut(0, 1, 0)}), [Fold(1, {0: Cut(0, 1, 0)})]
    for data in order:
        fold.take(data, 0)
        found.append(fold.copy())
    return found


def kept(order: list[bytes], first: int, known: int, ends: list[int]) -> list[Piece]:
    """Pieces that end at these records, of which each begins with all that the one before has; the fold is
    known behind a record."""
    fold_at, pieces = folds(order), list[Piece]()
    begins = first
    for end in ends:
        before = pieces[-1] if pieces else None
        fold = Fold.decode(before.fold) if before is not None and before.fold else None
        passing = Passing(SHARD, begins, fold)
        if before is not None:
            passing.again(before)
        for index in range(begins, end + 1):
            if index == known + 1:
                passing.known(fold_at[known].copy())
            passing.take(index, 1, 100, order[index - 1])
        pieces.append(passing.finished())
        begins = end + 1
    return pieces


def steps_of(fold: Fold, projections: list[bytes]) -> list[Step]:
    return [step for projection in projections for step in fold.take(sound(projection, Place.FED), SHARD)]


@pytest.mark.parametrize("seed", range(8))
def test_from_every_place_it_leads_where_the_order_leads(seed: int) -> None:
    order = an_order(seed)
    fold_at = folds(order)
    piece = kept(order, 1, 20, [60, 61, 130, 190])[-1]
    assert (piece.first, piece.last) == (1, 190)
    assert len(piece.records) < 100
    for at in range(1, 190):
        records_left = [record for record in piece.records if record.last > at]
        assert records_left[0].first <= at + 1
        mine, theirs = fold_at[at].copy(), fold_at[at].copy()
        queue = FeedQueue(at)
        for record in records_left:
            queue.add((record.last, 1, record.items, cut_of(record.items, SHARD), 0))
        assert steps_of(mine, [r.items for r in records_left]) == steps_of(
            theirs, [project(data, SHARD) for data in order[at:190]])
        assert mine == theirs == fold_at[190]


def test_what_is_passed_over_takes_little_room_however_long_it_goes_on() -> None:
    order = [encode_cut({2: Cut(n, 1, n)}) for n in range(1, 2001)]
    sizes = [sum(len(r.items) for r in piece.records) for piece in kept(order, 1, 0, [100, 1000, 2000])]
    assert max(sizes) < 100


def test_another_record_than_the_next_is_taken_only_where_it_says_what_it_passes_over() -> None:
    order = [encode_cut({2: Cut(n, 1, n)}) for n in range(1, 11)]
    (record,) = kept(order, 3, 2, [10])[0].records
    assert (record.first, record.last) == (3, 10)
    for taken, due in ((1, False), (2, True), (9, True), (10, False)):
        assert FeedQueue(taken).due(10, record.items) == due
    assert not FeedQueue(5).due(7, project(order[6], SHARD))


def test_what_is_kept_without_a_gap_is_found() -> None:
    pieces = [kept(an_order(1), first, 0, [last])[0] for first, last in ((1, 50), (51, 90), (101, 150))]
    found = behind(pieces, 10, 90)
    assert found is not None
    assert found[-1].last == 90
    assert behind(pieces, 10, 91) is None
    assert behind(pieces, 92, 120) is None
    assert behind(pieces, 100, 120) is not None


def order_of(order: list[bytes]) -> list[bytes]:
    """What files must hold in the next test."""
    return order[30:100]


def test_the_order_goes_on_by_files_and_then_by_the_log() -> None:
    """H18: with entries that match, up to the log's end; with a gap in them, where the shard stands."""
    order = next(o for o in map(an_order, range(20)) if any(cut_of(data, SHARD) for data in order_of(o)))
    pieces = [kept(order, 11, 10, [120])[-1]]
    cut = next(cut for data in order_of(order) if (cut := cut_of(data, SHARD)) is not None)

    def records_from(first: int) -> list[tuple[int, bytes]]:
        return [(index, data) for index, data in enumerate(order, 1) if index >= max(first, 101)]

    def at_place(term: int, have: list[Piece]) -> Kept:
        return common_with_files(
            records_from, 100, dict.fromkeys(range(SHARDS), 1), {0: 110, 1: 30, 2: 105},
            lambda shard, index: term if shard == SHARD else 1, lambda shard: have if shard == SHARD else [])

    assert at_place(1, pieces) == Kept(COUNT)
    assert at_place(2, pieces) == Kept(30, SHARD, cut)
    assert at_place(1, []) == Kept(30)


def a_run_across_the_beginning() -> tuple[list[bytes], Piece]:
    """Records 2 to 9 are passed over, and record 10 concerns the shard: one kept record."""
    order = [encode_cut({1: Cut(5, 1, 5)}), *(encode_cut({2: Cut(n, 1, n)}) for n in range(2, 10)),
             encode_cut({1: Cut(8, 1, 8)}), encode_cut({2: Cut(20, 1, 20)})]
    return order, kept(order, 2, 1, [11])[0]


def test_a_run_that_goes_on_behind_the_logs_beginning_ends_where_the_log_goes_on() -> None:
    order, piece = a_run_across_the_beginning()
    assert [(r.first, r.last) for r in piece.records] == [(2, 10), (11, 11)]
    (record,) = behind([piece], 1, 6) or ()
    assert (record.first, record.last, own_part(record, SHARD)) == (2, 9, b"")
    fold = folds(order)[1]
    assert fold.take(sound(record.items, Place.FED), SHARD) == []
    assert fold == folds(order)[9]
    assert [(r.first, r.last) for r in behind([piece], 1, 11) or ()] == [(2, 10), (11, 11)]


@pytest.mark.parametrize(("term", "reached"), [(1, Kept(11)), (None, Kept(9, SHARD, Cut(8, 1, 8)))])
def test_without_the_entries_of_its_end_it_takes_a_shard_to_before_them(
    term: int | None, reached: Kept
) -> None:
    order, piece = a_run_across_the_beginning()
    assert common_with_files(
        lambda first: list(enumerate(order, 1))[max(first, 7) - 1 :], 6, {0: 7, 1: 5, 2: 9},
        {0: 8, 1: 1, 2: 8}, lambda shard, index: term if shard == SHARD else 1,
        lambda shard: [piece] if shard == SHARD else []) == reached


def test_of_other_shards_nothing_is_said() -> None:
    order = [encode_cut({1: Cut(5, 1, 5), 2: Cut(7, 1, 7)})]
    (record,) = kept(order, 1, 0, [1])[0].records
    own = partial(cut_of, own_part(record, SHARD))
    assert (own(1), own(2)) == (Cut(5, 1, 5), None)
