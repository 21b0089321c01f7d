"""Counting without walking."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator

import pytest

from cluster.effects import records
from node.storage.state import counts
from node.storage.state.counts import KeyCounts
from tests.unit.storage.conftest import OpenStore


class Model:
    """Sorted keys in a list."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.walked = 0

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        first = bisect_left(self.keys, start)
        return self.keys[first:] if end == b"\0" else self.keys[first : bisect_left(self.keys, end)]

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, b"") for key in self.between(start, end)])

    def count(self, start: bytes, end: bytes, revision: int = 0) -> int:
        found = len(self.between(start, end))
        self.walked += found
        return found


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_right_while_they_are_built_and_after(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_BLOCK", 8)
    rng = random.Random(seed)
    model = Model()
    model.keys = sorted({b"%04d" % rng.randrange(10_000) for _ in range(rng.randrange(400))})
    quick = KeyCounts(model)
    for step in range(600):
        if step % 3 == 0:
            quick.build_step()
        created, deleted = [], []
        for _ in range(rng.randrange(6)):
            key = b"%04d" % rng.randrange(10_000)
            if key in model.keys:
                if key not in created:
                    model.keys.remove(key)
                    deleted.append(key)
            elif key not in deleted:
                model.keys.insert(bisect_left(model.keys, key), key)
                created.append(key)
        quick.changed(created, deleted)
        start, end = sorted(b"%04d" % rng.randrange(10_000) for _ in range(2))
        if rng.random() < 0.2:
            end = b"\0"
        if end == b"\0" or start < end:
            found = quick.count(start, end)
            assert found is None or found == len(model.between(start, end))
            bound = quick.at_most(start, end)
            assert (bound is None) == (found is None)
            assert bound is None or found is None or found <= bound <= found + 4 * counts._BLOCK
    assert quick.ready
    assert quick.keys() == len(model.keys)


def test_the_cost_does_not_grow_with_the_range() -> None:
    model = Model()
    model.keys = [b"%07d" % i for i in range(100_000)]
    quick = KeyCounts(model)
    while not quick.build_step():
        pass
    model.walked = 0
    assert quick.count(b"0000100", b"0099900") == 99_800
    assert model.walked <= 4 * counts._BLOCK


def test_keys_that_come_in_few_applies_do_not_leave_large_blocks() -> None:
    model = Model()
    quick = KeyCounts(model)
    assert quick.build_step()
    for first in range(0, 20_000, 10_000):
        created = [b"%07d" % n for n in range(first, first + 10_000)]
        model.keys += created
        quick.changed(created, [])
    assert quick.grown
    while not quick.cut_step():
        pass
    model.walked = 0
    assert quick.count(b"0000100", b"0019900") == 19_800
    assert model.walked <= 4 * counts._BLOCK


def test_a_store_counts_what_it_applies(open_store: OpenStore) -> None:
    store = open_store()
    while not store.counts.build_step():
        pass
    items = [records.put(b"k%04d" % i, 0, 1, b"v", 0) for i in range(3000)]
    for at in range(0, 3000, 100):
        index = store.position.shard_index + 1
        store.apply([(index, 1, b"".join(items[at : at + 100]))])
    store.apply(
        [
            (
                store.position.shard_index + 1,
                1,
                records.delete(b"k0005")
                + records.txn(
                    [
                        records.delete(b"k0006"), records.put(b"k0007", 9, 2, b"w", 0),
                        records.put(b"new", 0, 1, b"", 0),
                    ]
                ),
            )
        ]
    )
    assert store.quick_count(b"k", b"l") == store.count(b"k", b"l") == 2998
    assert store.quick_count(b"\0", b"\0") == 2999
    assert len(store.counts._starts) > 2
