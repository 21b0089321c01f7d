"""The fold over the order log: revisions, cuts, projections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.effects import records
from cluster.features.rows import RowsOf, encode
from cluster.order.log import (
    Attempt,
    Change,
    Control,
    Cut,
    Entries,
    Fold,
    Multi,
    Part,
    decode_multi,
    encode_cut,
    encode_multi,
    project,
)
from cluster.wire.protobuf import key_value
from tests.unit.odd_records import count_revisions

PUT = records.put(b"a", 0, 1, b"v", 0)


def test_a_cut_gives_each_shard_its_growth_in_ascending_shard_order() -> None:
    fold = Fold(10)
    record = PUT + encode_cut({2: Cut(5, 1, 3), 1: Cut(7, 1, 4)}) + PUT
    steps = {shard: Fold(10).take(project(record, shard), shard) for shard in (1, 2, 3)}
    assert steps == {1: [Entries(Cut(7, 1, 4), 11)], 2: [Entries(Cut(5, 1, 3), 15)], 3: []}
    assert fold.take(record, 0) == [Change(PUT, 10, None), Change(PUT, 18, None)]
    assert fold.revision == 19


def test_puts_in_one_item_take_a_revision_each() -> None:
    keys = [b"a", b"b", b"a"]
    puts = records.puts(
        11, keys, [key_value(key, 11, 11, 1, b"v", 0) for key in keys], [True, True, False])
    record = puts + encode_cut({1: Cut(7, 1, 4)}) + PUT
    fold = Fold(10)
    assert fold.take(record, 0) == [Change(puts, 10, None), Change(PUT, 17, None)]
    assert Fold(10).take(project(record, 1), 1) == [Entries(Cut(7, 1, 4), 13)]
    assert fold.revision == 18
    assert count_revisions(record) == 4


def test_a_multi_takes_a_revision_per_group_and_is_met_by_those_who_only_read() -> None:
    multi = Multi(Attempt(3, 9), 1, {1: 4, 2: 5}, [Part(0, 0, 0, PUT), Part(0, 2, 1, PUT)])
    cut = encode_cut({1: Cut(1, 4, 0), 2: Cut(1, 5, 0)})
    record = cut + encode_multi(multi)
    steps = [Fold(1).take(project(record, s) if s else record, s) for s in range(4)]
    assert steps[0] == [Change(PUT, 1, Attempt(3, 9))]
    assert steps[1] == [Entries(Cut(1, 4, 0), 1), Change(b"", 1, Attempt(3, 9))]
    assert steps[2] == [Entries(Cut(1, 5, 0), 1), Change(PUT, 1, Attempt(3, 9), 1)]
    assert steps[3] == []


def test_i10_a_multi_that_rests_on_another_term_is_an_assertion() -> None:
    record = encode_cut({1: Cut(1, 4, 0)}) + encode_multi(Multi(Attempt(3, 9), 1, {1: 3}, []))
    with pytest.raises(AssertionError, match="I10"):
        Fold().take(record, 0)


@pytest.mark.parametrize("cut", [Cut(4, 2, 3), Cut(5, 2, 3), Cut(6, 1, 3), Cut(6, 2, 2)])
def test_i4_a_cut_never_goes_back(cut: Cut) -> None:
    fold = Fold(1, {1: Cut(5, 2, 3)})
    with pytest.raises(AssertionError, match="I4"):
        fold.take(encode_cut({1: cut}), 0)


def test_control_items_reach_every_shard_and_a_grant_takes_no_revision() -> None:
    grant, compact, incarnation = records.lease_grant(7, 60), records.compact(3), records.incarnation(1, 2)
    record = PUT + grant + compact + records.publish(b"\x08\x01") + incarnation
    fold = Fold(5)
    assert fold.take(project(record, 4), 4) == [
        Control(grant, 6), Control(compact, 6), Control(incarnation, 6)]
    assert fold.revision == 6


def test_rows_of_the_v2_tree_reach_no_other_shard_and_wake_none() -> None:
    tree, users = (records.rows(encode(feature, [(b"c", b"1")])) for feature in (RowsOf.V2, RowsOf.AUTH))
    assert project(PUT + tree + PUT, 4) == project(PUT + PUT, 4)
    fold = Fold(5)
    assert fold.take(tree, 0) == [Control(tree, 5)]
    assert not fold.concerns_all
    fold.take(users, 0)
    assert fold.concerns_all
    assert project(users, 4) == users


def test_a_run_of_shard_0s_own_effects_is_one_step() -> None:
    fold = Fold(5)
    cut = encode_cut({1: Cut(4, 2, 3)})
    assert fold.take(PUT + PUT + cut + PUT, 0) == [Change(PUT + PUT, 5, None), Change(PUT, 10, None)]
    assert fold.revision == 11


_own = st.sampled_from([
    PUT, records.delete(b"k"), records.txn([PUT, records.delete(b"z")]), records.lease_grant(1, 2)])


@given(st.lists(st.tuples(st.lists(_own, max_size=4), st.dictionaries(st.integers(1, 4), st.tuples(
    st.integers(1, 3), st.integers(0, 1), st.integers(0, 5)), max_size=4)), max_size=8))
def test_every_shard_folds_its_projections_to_what_shard_0_folds(
    plan: list[tuple[list[bytes], dict[int, tuple[int, int, int]]]],
) -> None:
    folds = {shard: Fold() for shard in range(5)}
    taken: list[tuple[int, int]] = []  # revision ranges given out to shards' entries
    for own, growth in plan:
        fold = folds[0]
        cuts = {}
        for shard, (entries, term, count) in growth.items():
            old = fold.cut(shard)
            cuts[shard] = Cut(old.index + entries, old.term + term, old.count + count)
        record = b"".join(own) + (encode_cut(cuts) if cuts else b"")
        for shard in range(5):
            before = folds[shard].copy()
            for step in folds[shard].take(record if shard == 0 else project(record, shard), shard):
                if isinstance(step, Entries):
                    taken.append((step.revision, step.cut.count - before.cut(shard).count))
                elif isinstance(step, Change):
                    taken.append((step.revision, count_revisions(step.items)))
    assert all(fold == folds[0] for fold in folds.values())
    assert Fold.decode(folds[0].encode()) == folds[0]
    # I5: each revision in 2..rev belongs to exactly one change
    given_out = sorted(revision + i for revision, count in taken for i in range(1, count + 1))
    assert given_out == list(range(2, folds[0].revision + 1))


def test_a_multi_survives_its_encoding() -> None:
    multi = Multi(
        Attempt(3, 9), 2, {1: 4, 3: 5},
        [Part(0, 1, 0, PUT), Part(1, 0, 1, b""), Part(1, 1, 2, PUT + PUT)])
    data = encode_multi(multi)
    assert decode_multi(data, records.ITEM.size, len(data)) == multi
    for cut in range(records.ITEM.size, len(data)):
        if cut not in (len(data),):
            try:
                short = decode_multi(data, records.ITEM.size, cut)
            except ValueError:
                continue
            assert short.parts != multi.parts
