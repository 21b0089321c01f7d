"""Counting without walking."""

from __future__ import annotations

import random
import time
from bisect import bisect_left
from typing import Any

import pytest

from cluster.effects import records
from node.storage.options import REMOVALS
from node.storage.state import counts
from node.storage.state.counts import KeyCounts
from node.storage.state.reads import LARGE_ROW, Measured
from node.storage.state.store import StateStore
from tests.unit.storage.conftest import OpenStore


class Model:
    """Sorted keys in a list."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.dead: list[bytes] = []  # of these there are rows, too
        self.walked = 0

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        first = bisect_left(self.keys, start)
        return self.keys[first:] if end == b"\0" else self.keys[first : bisect_left(self.keys, end)]

    def measure(self, start: bytes, end: bytes, most_keys: int, most_weight: int) -> Measured:
        keys = weight = 0
        dead = [(row, 0) for row in self.dead if start <= row and (row < end or end == b"\0")]
        for row, live in sorted([*((key, 1) for key in self.between(start, end)), *dead]):
            if weight and (keys >= most_keys or weight >= most_weight):
                return Measured(keys, weight, row)
            keys, weight = keys + live, weight + 1
        return Measured(keys, weight, None)

    def count(self, start: bytes, end: bytes, revision: int = 0) -> int:
        found = len(self.between(start, end))
        self.walked += found
        return found

    def may_have_rows(self, start: bytes, end: bytes) -> bool:
        return any(start <= row and (row < end or end == b"\0") for row in self.keys + self.dead)


def heaviest(store: StateStore) -> int:
    """What a count reads of a block, at most."""
    starts = store.counts._starts
    ends = [*starts[1:], b"\0"]
    most = 1 << 30
    return max(
        store.measure(start or b"\0", end, most, most).weight for start, end in zip(starts, ends, strict=True)
    )


def forget(quick: KeyCounts) -> None:
    after: bytes | None = b""
    while after is not None:
        after = quick.forget_step(after)


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
                    model.dead.append(key)
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


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_right_behind_blocks_that_are_forgotten(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys come in ascending order, live a while and go, but for a few. Their rows go later."""
    monkeypatch.setattr(counts, "_BLOCK", 8)
    monkeypatch.setattr(counts, "_FORGOTTEN_AT_ONCE", 3)
    rng = random.Random(seed)
    model = Model()
    quick = KeyCounts(model)
    assert quick.build_step()
    for step in range(1_000):
        created = [b"%06d" % step]
        old = [key for key in model.keys if int(key) < step - 100 and int(key) % 100]
        deleted = [key for key in old if rng.random() < 0.2]
        model.keys = [key for key in model.keys + created if key not in deleted]
        model.dead += deleted
        quick.changed(created, deleted)
        if step % 50 == 0:
            del model.dead[: rng.randrange(len(model.dead) + 1)]  # compacted
            forget(quick)
        start, end = sorted(b"%06d" % rng.randrange(1_000) for _ in range(2))
        if start < end:
            assert quick.count(start, end) == len(model.between(start, end))
    model.dead.clear()
    forget(quick)
    assert quick.count(b"\0", b"\0") == len(model.keys) > 100
    assert quick._starts[0] == b""
    assert 0 not in quick._counts
    assert len(quick._starts) < 40, "of some 150 that there were"


def test_a_block_stays_while_it_has_rows() -> None:
    """A count that ends there would walk them all."""
    model = Model()
    model.keys = [b"%06d" % n for n in range(5_000)]
    quick = KeyCounts(model)
    while not quick.build_step():
        pass
    before = list(quick._starts)
    model.keys, model.dead = [], [b"002000", b"002600"]
    quick.changed([], [b"%06d" % n for n in range(5_000)])
    quick.hold()
    forget(quick)  # while many keys are deleted, blocks stay where they are
    assert quick._starts == before
    quick.release()
    forget(quick)
    assert quick._starts == [b"", *(max(start for start in before if start <= row) for row in model.dead)]


CELL = 50  # keys of which all are shown, or none


class Shard(Model):
    """Of all keys it shows those of its own cells."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.all = sorted({b"%04d" % rng.randrange(20 * CELL) for _ in range(900)})
        self.own = [True] * 20
        self.show()

    def may_have_rows(self, start: bytes, end: bytes) -> bool:
        return any(start <= row and (row < end or end == b"\0") for row in self.all)

    def show(self) -> None:
        self.keys = [key for key in self.all if self.own[int(key) // CELL]]

    def move(self, quick: KeyCounts) -> None:
        """Some cells come, or go."""
        first, stop = sorted(self.rng.sample(range(21), 2))
        if len(set(self.own[first:stop])) == 1:
            came = not self.own[first]
            self.own[first:stop] = [came] * (stop - first)
            self.show()
            # the first key that there can be, and the end of all keys, have the same name
            start = b"%04d" % (first * CELL) if first else b"\0"
            end = b"\0" if stop == 20 else b"%04d" % (stop * CELL)
            quick.switched(start, end, len(self.between(start, end)) if came else 0)

    def change(self, quick: KeyCounts) -> None:
        key = self.rng.choice(self.all)
        if key in self.keys:
            self.all.remove(key)
            self.show()
            quick.changed([], [key])
        new = b"%04d" % self.rng.randrange(20 * CELL)
        if new not in self.all and self.own[int(new) // CELL]:
            self.all.insert(bisect_left(self.all, new), new)
            self.show()
            quick.changed([new], [])


@pytest.mark.parametrize("seed", range(20))
def test_keys_that_come_or_go_with_a_move_are_counted_by_its_figure(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_BLOCK", 8)
    rng = random.Random(seed)
    shard = Shard(rng)
    quick = KeyCounts(shard)
    while not quick.build_step():
        pass
    unknown = 0
    for _ in range(200):
        shard.walked = 0
        shard.move(quick)
        assert shard.walked <= 4 * counts._BLOCK
        shard.change(quick)
        for _ in range(rng.choice((0, 1, 3, 200))):
            quick.build_step()
            quick.cut_step()
        forget(quick)
        for _ in range(5):
            start, end = sorted(b"%04d" % key for key in rng.sample(range(20 * CELL), 2))
            start, end = rng.choice((start, start, b"\0")), rng.choice((end, end, b"\0"))
            found = quick.count(start, end)
            unknown += found is None
            assert found is None or found == len(shard.between(start, end))
            assert found is not None or not quick.ready
        assert quick.keys() in (-1, len(shard.keys))
    assert unknown, "some were asked for while what had come was not cut yet"
    while not (quick.build_step() and quick.cut_step()):
        pass
    assert quick.ready
    shard.walked = 0
    assert quick.count(b"0001", b"0999") == len(shard.between(b"0001", b"0999"))
    assert shard.walked <= 4 * counts._BLOCK


def test_what_came_is_known_at_once_as_a_whole() -> None:
    """Its parts are, once it is cut."""
    model = Model()
    model.keys = [b"a", b"z"]
    quick = KeyCounts(model)
    assert quick.build_step()
    model.keys[1:1] = [b"m%06d" % number for number in range(100_000)]
    quick.switched(b"m", b"n", 100_000)
    assert (quick.ready, quick.grown) == (False, True)
    assert quick.count(b"m", b"n") == 100_000
    assert quick.count(b"a", b"\0") == 100_002
    assert model.walked <= 4
    assert quick.count(b"m", b"m000009") is None
    while not quick.cut_step():
        pass
    assert quick.ready
    assert quick.count(b"m", b"m000009") == 9


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


def test_blocks_of_random_names_that_come_and_go_are_cut(open_store: OpenStore) -> None:
    """Few keys are live, so the block never grew: a count walked all names since the last compaction."""
    store = open_store()
    assert store.counts.build_step()
    rng = random.Random(1)

    def apply(*items: bytes) -> None:
        store.apply([(store.position.shard_index + 1, 1, b"".join(items))])

    apply(*(records.put(b"jobs/%032x" % rng.getrandbits(128), 0, 1, b"", 0) for _ in range(50)))
    for _ in range(100):
        names = [b"jobs/%032x" % rng.getrandbits(128) for _ in range(100)]
        apply(*(records.put(name, 0, 1, b"", 0) for name in names))
        apply(*map(records.delete, names))
    most = (counts._WEIGHT + counts._NEWS) * counts._BLOCK
    assert heaviest(store) <= most < 2_000
    assert store.quick_count(b"jobs/", b"jobs0") == store.count(b"jobs/", b"jobs0") == 50
    store.counts = KeyCounts(store)  # as after a start
    while not store.counts.build_step():
        pass
    assert heaviest(store) <= counts._WEIGHT * counts._BLOCK
    assert store.quick_count(b"jobs/", b"jobs0") == 50


def test_one_name_that_comes_and_goes_is_one_block(open_store: OpenStore) -> None:
    store = open_store()
    assert store.counts.build_step()
    for _ in range(3_000):
        for item in (records.put(b"lock", 0, 1, b"", 0), records.delete(b"lock")):
            store.apply([(store.position.shard_index + 1, 1, item)])
    assert store.counts._starts == [b""]
    assert store.counts._news[0] <= counts._NEWS * counts._BLOCK * counts._REWRITTEN


@pytest.mark.parametrize("new", [True, False])
def test_blocks_of_large_values_are_cut(open_store: OpenStore, new: bool) -> None:
    """A count reads the values that it passes over."""
    store = open_store()
    assert store.counts.build_step()
    size = 100 * LARGE_ROW

    def apply(*items: bytes) -> None:
        store.apply([(store.position.shard_index + 1, 1, b"".join(items))])

    if not new:
        for number in range(60):
            apply(records.put(b"k%03d" % number, 0, 1, b"", 0))
    for number in range(60):
        create, version = (0, 1) if new else (number + 1, 2)
        put = records.put(b"k%03d" % number, create, version, bytes(size), 0)
        apply(records.txn([put]) if number % 2 else put)
    while not store.counts.cut_step():
        pass
    most = (counts._WEIGHT + counts._NEWS * (1 if new else counts._REWRITTEN)) * counts._BLOCK
    assert heaviest(store) <= most + 101 < 60 * 100
    assert store.quick_count(b"k001", b"k059") == store.count(b"k001", b"k059") == 58
    store.counts = KeyCounts(store)
    while not store.counts.build_step():
        pass
    assert heaviest(store) <= counts._WEIGHT * counts._BLOCK + 101


def test_values_that_are_written_again_are_not_read_for_it(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each 4 MB written into a block had every replica read up to 8 MB of it, and old versions, in a turn."""
    store = open_store()
    assert store.counts.build_step()
    measure, read, most, weight = store.measure, [0], 1 << 30, 8

    def noted(*args: Any) -> Measured:
        measured = measure(*args)
        read[0] += measured.weight
        return measured

    monkeypatch.setattr(store, "measure", noted)
    for turn in range(32):
        for number in range(40):
            create = number + 1 if turn else 0
            put = records.put(b"k%03d" % number, create, turn + 1, bytes(weight * LARGE_ROW), 0)
            store.apply([(store.position.shard_index + 1, 1, put)])
    while not store.counts.cut_step():
        pass
    assert read[0] < 32 * 40 * weight // 2
    assert store.quick_count(b"k001", b"k039") == measure(b"k001", b"k039", most, most).keys == 38


def test_values_of_less_than_64_kb_are_weighed_too(open_store: OpenStore) -> None:
    """One block had 130 MB of old versions."""
    store = open_store()
    assert store.counts.build_step()
    for turn in range(10):
        for number in range(250):
            create, value = (number + 1, bytes(7 * LARGE_ROW + 100)) if turn else (0, b"v")
            put = records.put(b"k%03d" % number, create, turn + 1, value, 0)
            store.apply([(store.position.shard_index + 1, 1, put)])
    while not store.counts.cut_step():
        pass
    assert heaviest(store) <= (counts._WEIGHT + counts._NEWS * counts._REWRITTEN) * counts._BLOCK
    assert store.quick_count(b"k001", b"k249") == 248


def test_large_values_that_came_with_a_move_are_cut(open_store: OpenStore) -> None:
    """A few: only the first 4 MB were cut from them."""
    store = open_store()
    assert store.counts.build_step()
    for number in range(300):
        put = records.put(b"k%03d" % number, 0, 1, bytes(64 * LARGE_ROW if number >= 250 else 10), 0)
        store.apply([(store.position.shard_index + 1, 1, put)])
    store.counts = KeyCounts(store)
    store.counts._starts, store.counts._counts, store.counts._news = [b""], [0], [0]
    store.counts._cursor = None
    store.counts.switched(b"k", b"l", 300)
    while not store.counts.cut_step():
        pass
    assert heaviest(store) <= counts._WEIGHT * counts._BLOCK + 64
    assert store.quick_count(b"k001", b"k299") == store.count(b"k001", b"k299") == 298


def test_what_is_counted_by_now_is_not_walked() -> None:
    model = Model()
    model.keys = [b"%07d" % i for i in range(10_000)]
    quick = KeyCounts(model)
    for _ in range(20):
        assert not quick.build_step()
    assert quick.count(b"0000100", b"0005000") == 4_900
    assert model.walked <= 4 * counts._BLOCK
    assert quick.at_most(b"0000100", b"0005000")
    assert quick.count(b"0000100", b"0006000") is quick.at_most(b"0", b"\0") is None


def test_a_store_forgets_blocks_whose_rows_are_gone(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_BLOCK", 40)
    store = open_store()
    assert store.counts.build_step()

    def apply(*items: bytes) -> None:
        store.apply([(store.position.shard_index + 1, 1, b"".join(items))])

    def compacted(revision: int) -> int:
        apply(records.compact(revision))
        while not store.compaction_step(0):
            pass
        forget(store.counts)
        return len(store.counts._starts)

    apply(records.put(b"a", 0, 1, b"", 0))
    for first in range(0, 4_000, 100):
        apply(*(records.put(b"k%06d" % n, 0, 1, b"", 0) for n in range(first, first + 100)))
        if first:
            apply(*(records.delete(b"k%06d" % n) for n in range(first - 100, first)))
    while not store.counts.cut_step():
        pass
    many = len(store.counts._starts)
    assert many > 50
    assert compacted(2) == many  # their rows are still there
    assert compacted(store.revision) >= many - 2  # or RocksDB has not dropped them yet
    store.defragment()
    assert compacted(store.revision) <= 100 // counts._BLOCK + 2
    for start, end in ((b"a", b"k0039"), (b"k000001", b"k003950"), (b"k003950", b"l"), (b"\0", b"\0")):
        assert store.quick_count(start, end) == store.count(start, end)
    assert not store.counts.hollow


def test_a_store_that_is_never_defragmented_forgets_what_earlier_compactions_removed(
    open_store: OpenStore,
) -> None:
    """What the last one removed lies right behind it, and RocksDB has not dropped that yet."""
    store = open_store(write_buffer_bytes=16 << 20)
    assert store.counts.build_step()

    def apply(*items: bytes) -> None:
        store.apply([(store.position.shard_index + 1, 1, b"".join(items))])

    blocks, each = [], REMOVALS // 2
    for cycle in range(5):
        keys = [b"jobs/%09d" % n for n in range(cycle * each, (cycle + 1) * each)]
        apply(*(records.put(key, 0, 1, b"", 0) for key in keys))
        while not store.counts.cut_step():
            pass
        apply(*map(records.delete, keys))
        apply(records.put(b"z", 2 if cycle else 0, cycle + 1, b"", 0), records.compact(store.revision + 1))
        while not store.compaction_step(0):
            pass
        assert store.buffers_removals
        forget(store.counts)
        blocks.append(len(store.counts._starts))
        store.flush()
        until = time.monotonic() + 20
        while sum(file["num_deletions"] for file in store.database.live_files()) > 2:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert max(blocks) <= each // counts._BLOCK + 3, "those of the last compaction alone"
    forget(store.counts)
    assert len(store.counts._starts) <= 2
    assert store.quick_count(b"\0", b"\0") == store.count(b"\0", b"\0") == 1
