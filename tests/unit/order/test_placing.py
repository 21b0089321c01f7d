"""Records of the order say which entries of a shard come next, and at which revisions."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.effects import records
from cluster.order.following.placing import Placing
from cluster.order.log import ENTRY_ITEMS, Attempt, Cut, Fold, Multi, Part, encode_cut, encode_multi, entry
from cluster.raft import Entry, EntryKind

SHARD = 1


def put(key: bytes) -> bytes:
    return records.put(key, 0, 1, b"v", 0)


class Group:
    """A shard's log: empty entries that begin terms, and puts of one key each."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.reads: list[tuple[int, int]] = []

    def add(self, term: int, count: int, *keys: bytes) -> None:
        data = entry(count, b"".join(map(put, keys))) if term else b""
        self.log.append(Entry(len(self.log) + 1, term or 1, EntryKind.RECORD, data))

    def entries(self, first: int, last: int) -> list[Entry]:
        self.reads.append((first, last))
        return self.log[first - 1 : last]


@pytest.fixture
def group() -> Group:
    found = Group()
    found.add(0, 0)
    found.add(1, 1, b"a")
    found.add(1, 3, b"b", b"c")
    found.add(2, 3)
    found.add(2, 4, b"d")
    return found


def cut(index: int, term: int, count: int) -> bytes:
    return encode_cut({SHARD: Cut(index, term, count)})


def test_a_cut_puts_entries_in_order_behind_what_is_in_order(group: Group) -> None:
    placing = Placing(SHARD, Fold(), group.entries)
    placed = placing.take([(7, 1, cut(2, 1, 1)), (8, 1, cut(3, 1, 3))], 0, 0, None)
    assert [(before, data[at:]) for before, data, at, _ in placed.changes] == [
        (1, put(b"a")), (2, put(b"b") + put(b"c"))]
    assert (placed.index, placed.term, placing.fold.revision) == (3, 1, 4)
    assert placed.before == {1: 1, 2: 1, 3: 2}
    assert [step.cut.index for step in placed.cuts] == [2, 3]
    assert placed.records == [(7, 1, []), (8, 1, [])]
    placed = placing.take([(9, 1, cut(5, 2, 4))], placed.index, placed.term, None)
    assert [(before, data[at:]) for before, data, at, _ in placed.changes] == [(4, put(b"d"))]
    assert (placed.index, placed.term) == (5, 2)


def test_what_is_in_order_already_is_not_read_again(group: Group) -> None:
    placing = Placing(SHARD, Fold(4, {SHARD: Cut(3, 1, 3)}), group.entries)
    placing.take([(9, 1, cut(5, 2, 4))], 3, 1, None)
    assert group.reads == [(4, 5)]


def test_a_multi_stands_between_entries_and_is_heard_of(group: Group) -> None:
    attempt = Attempt(1, 5)
    multi = encode_multi(Multi(attempt, 1, {SHARD: 1}, [Part(0, SHARD, 0, put(b"m"))]))
    placing = Placing(SHARD, Fold(), group.entries)
    placed = placing.take([(7, 1, cut(2, 1, 1) + multi)], 0, 0, None)
    assert [before for before, *_ in placed.changes] == [1, 2]
    assert placed.records == [(7, 1, [attempt])]
    assert not placed.control


class Leading:
    """The own leader, of a term, which knows what it evaluated for every entry."""

    def __init__(self, term: int) -> None:
        self.term = term

    def evaluated(self, index: int) -> Any:
        return index


@pytest.mark.parametrize(("term", "known"), [(1, {0: 2, 1: 3}), (2, {2: 5})])
def test_a_leader_knows_the_entries_of_its_own_term(group: Group, term: int, known: dict[int, Any]) -> None:
    placed = Placing(SHARD, Fold(), group.entries).take([(7, 1, cut(5, 2, 4))], 0, 0, Leading(term))
    assert placed.evaluated == known


@pytest.mark.parametrize(("wrong", "rule"), [(cut(3, 2, 3), "I6"), (cut(3, 1, 4), "I3")])
def test_a_cut_of_another_term_or_count_is_not_of_this_log(group: Group, wrong: bytes, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        Placing(SHARD, Fold(), group.entries).take([(7, 1, wrong)], 0, 0, None)


def test_a_leader_inherits_the_count_of_the_last_entry_or_of_the_cut(group: Group) -> None:
    placing = Placing(SHARD, Fold(4, {SHARD: Cut(3, 1, 3)}), group.entries)
    assert placing.inherited_count(5, 3) == 4
    assert placing.inherited_count(3, 3) == 3
    group.log[4] = Entry(5, 2, EntryKind.RECORD, bytes(ENTRY_ITEMS - 1))
    assert placing.inherited_count(5, 4) == 3, "it is of nobody"
