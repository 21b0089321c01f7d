"""G6: ranges that begin before a switch and go on behind it. A switch takes no revision, and a base shard's
range is one part both before the move and behind its switch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.evaluate.reading.ranges import RowSource
from node.storage import StateStore
from tests.unit.storage.moved.cluster import Cluster

START, END = b"\0", b"\0"  # of all keys
TARGET = 1
MOVED = [b"d/%d" % number for number in range(5)]  # shard 0's; the target's own keys lie on both sides
OWN = [directory + b"%03d" % number for directory in (b"a/", b"g/") for number in range(300)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 1, hosts=1)
    for key in (*MOVED, *OWN):
        made.put(key)
    assert {made.table.owner(key) for key in OWN} == {TARGET}
    assert {made.table.owner(key) for key in MOVED} == {0}
    yield made
    made.close()


def switch(cluster: Cluster) -> StateStore:
    """The whole move, at one revision; its target."""
    revision = cluster.model.revision
    cluster.move(b"d/", b"d0", TARGET)
    assert cluster.model.revision == revision
    return cluster.stores[0, TARGET]


def rest(rows: RowSource, parts: list[bytes]) -> bytes:
    while not rows.more(parts, 256, 1 << 20)[2]:
        pass
    return b"".join(parts)


def begun(store: StateStore) -> tuple[RowSource, list[bytes]]:
    rows, parts = store.reader().rows(START, END, 1000), list[bytes]()
    while not (count := rows.more(parts, 256, 1 << 20)[0]):
        pass  # it looks through changes first
    assert count == 256
    return rows, parts


def shown(store: StateStore) -> list[bytes]:
    told = rest(store.reader().rows(START, END, 1000), [])
    return [key for key in OWN + MOVED if key in told]


@pytest.mark.parametrize("another", [False, True])
def test_a_range_from_before_a_switch_shares_no_rows_with_those_behind_it(
    cluster: Cluster, another: bool
) -> None:
    rows, parts = begun(cluster.stores[0, TARGET])
    target = switch(cluster)
    if another:  # behind the switch, and before the first one goes on
        assert shown(target) == OWN + MOVED
    told = rest(rows, parts)
    assert not any(key in told for key in MOVED), "they are another shard's at its moment"
    assert all(key in told for key in OWN)
    assert shown(target) == OWN + MOVED
    cluster.put(OWN[-1])
    assert shown(target) == OWN + MOVED


def test_a_range_that_goes_on_behind_a_switch_reads_on_behind_the_rows_that_it_took(cluster: Cluster) -> None:
    store = cluster.stores[0, TARGET]
    rest(store.reader().rows(START, END, 1000), [])
    taken = store.blocks.taken_rows
    rows, parts = begun(store)
    assert store.blocks.taken_rows == taken + 256
    switch(cluster)
    told = rest(rows, parts)
    assert [told.count(key) for key in OWN] == [1] * len(OWN)
    assert not any(key in told for key in MOVED)


def test_ranges_behind_a_switch_leave_rows_for_others(cluster: Cluster) -> None:
    """Also if nothing is written any more."""
    target = switch(cluster)
    rest(target.reader().rows(START, END, 1000), [])
    taken = target.blocks.taken_rows
    rest(target.reader().rows(START, END, 1000), [])
    assert target.blocks.taken_rows == taken + len(OWN) + len(MOVED)
