"""Counts of the v2 tree: 2^32 sets are 50 days at 1,000 a second."""

from __future__ import annotations

import random
import struct

import pytest

from cluster.faults import faults
from cluster.features.rows import Row
from cluster.features.v2.changes import answered, evaluate, expire
from cluster.features.v2.plain import plain_set
from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import SetRows, Tree
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_write

MOST = (1 << 32) - 1
OLD = struct.Struct("<Q13I")  # what versions before read of the row ``c``
SET = Write(Op.SET, b"/1/a", b"v", now_ns=NOW_NS)


def old_row(index: int, *counts: int) -> Row:
    """As a leader of a version before writes it."""
    return b"c", OLD.pack(index, *counts, *[0] * (13 - len(counts)))


def test_a_count_grows_above_32_bits_the_same_everywhere() -> None:
    rng, kept = random.Random(7), dict([old_row(3, *[MOST - 20] * 13)])
    leader, replica = Tree(kept.items(), keep_events=False), Tree(kept.items())
    began = list(leader.counts)
    for step in range(1000):
        now_ns = NOW_NS + step * S
        try:
            rows = evaluate(leader, random_write(rng, leader, now_ns)).rows
        except V2Error:
            rows = leader.counters()  # refusals are logged soon
        else:
            leader.take(rows)
        rows = [*rows, *expire(leader, now_ns)]
        replica.take(rows)
        kept |= rows
        assert replica.counts == leader.counts
        assert OLD.unpack(kept[b"c"] or b"")[0] == replica.index, "a version before reads the index"
        began = [max(pair) for pair in zip(began, replica.counts, strict=True)]
        assert began == replica.counts, "none goes back"
    assert sum(count > MOST for count in leader.counts) > 5
    kept = {name: value for name, value in kept.items() if value is not None}
    assert Tree(sorted(kept.items())).counts == leader.copy().counts == leader.counts


def test_rows_are_those_of_before_while_no_count_needs_more() -> None:
    tree = Tree([old_row(10, MOST - 1)])
    assert evaluate(tree, SET).rows[-1] == old_row(11, MOST)
    assert [name[:1] for name, _ in evaluate(tree, SET).rows] == [b"n", b"h", b"c"]


def test_plain_sets_of_one_turn_count_above_32_bits_and_are_taken_as_files() -> None:
    rows, tree, replica = SetRows(), Tree([old_row(10, MOST)], keep_events=False), Tree([old_row(10, MOST)])
    for one in tree, replica:
        one.take(answered(one, Write(Op.SET, b"/1/d/b", b"v").encode())[0])
    for _ in range(3):
        assert plain_set(tree, SET.encode(), rows) is not None
    rows += tree.counters()
    replica.take(rows)
    assert replica.counted() == tree.counted()
    assert replica.counted()["setsSuccess"] == MOST + 4
    assert replica.find(SET.path) is rows.files[-1]


def test_a_count_goes_not_back_while_a_version_before_leads() -> None:
    """It knows the low halves alone, and writes no others."""
    kept = dict(evaluate(Tree([old_row(10, MOST)]), SET).rows)
    tree = Tree(kept.items())
    row = old_row(12, 1)
    tree.take([row])
    kept |= [row]
    for one in tree, Tree(kept.items()):
        assert (one.index, one.counted()["setsSuccess"]) == (12, (1 << 32) + 1)


@pytest.mark.parametrize("name", [b"c", b"C"])
def test_counts_that_cannot_be_read_change_nothing(name: bytes) -> None:
    tree = Tree([old_row(10, MOST)])
    before = faults.count
    tree.take([(name, b"short"), (name, b"l" * 500), (name, None)])
    assert (tree.index, tree.counted()["setsSuccess"], tree.counted()["expireCount"]) == (10, MOST, 0)
    assert faults.count == before + 2
    faults.take()
