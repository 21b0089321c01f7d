"""A range out of blocks is the range out of the database, whatever was applied, compacted or asked before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.evaluate.reading.ranges import RangeRead
from cluster.evaluate.reading.row_parts import rows_head, sizes_in
from cluster.pb import rpc_pb2
from node.storage import Reader, StateStore
from node.storage.state import blocks as blocks_module
from node.storage.state.blocks import BlockRows
from tests.unit.storage.conftest import OpenStore

NAMES = [b"%03d" % n for n in range(300)] + [b"1\0", b"1\0\0", b"2\0x", b"2\xff", b"zz"]
Going = tuple[BlockRows, RangeRead, tuple[bytes, int]]


class History:
    """Random changes to a store, as a leader would have them evaluated."""

    def __init__(self, store: StateStore, rng: random.Random) -> None:
        self.store, self.rng, self.index = store, rng, 0

    def item(self) -> bytes:
        store, rng = self.store, self.rng
        key = rng.choice(NAMES)
        current = store.current(key)
        if current is not None and rng.random() < 0.3:
            return records.delete(key)
        value = bytes(rng.choice((0, 10, 300)))
        return records.put(
            key, current.create if current else 0, current.version + 1 if current else 1, value, 0
        )

    def apply(self, item: bytes) -> None:
        self.index += 1
        self.store.apply([(self.index, 1, item)])

    def change(self) -> None:
        store, rng = self.store, self.rng
        kind = rng.random()
        if kind < 0.9:
            for _ in range(rng.choice((1, 1, 3, 40))):
                self.apply(self.item())
        elif kind < 0.94:
            start, end = sorted(rng.sample(NAMES, 2))
            if found := store.live_count(start, end):
                self.apply(records.delete_range(start, end, found))
        elif kind < 0.97:
            self.apply(records.compact(rng.randint(max(1, store.compact_revision), store.revision)))
        else:
            while not store.compaction_step(0):
                pass


def read_on(going: Going, rng: random.Random, steps: int) -> bool:
    """Read some more of a range; at its end it is what was expected when it began."""
    source, read, expected = going
    for _ in range(steps):
        if read.feed_from(source, rng.choice((3, 50, 256)), rng.choice((300, 1 << 20))):
            if rng.random() < 0.5:
                assert (read.take(), read.count) == expected
            else:
                head, *rows = read.take_sized()
                assert (head, b"".join(rows), read.count) == (rows_head([sizes_in(expected[0])]), *expected)
            return True
    return False


def begin(store: StateStore, rng: random.Random) -> Going:
    """A range of the present or of the past, and what the database says of it."""
    start, end = rng.choice(
        [(b"\0", b"\0"), (b"1", b"2"), (b"0", b"3"), (b"100", b"\0"), tuple(rng.sample(NAMES, 2))]
    )
    revision = rng.choice((0, 0, 0, rng.randint(max(1, store.compact_revision), store.revision)))
    limit = rng.choice((0, 0, 30, 200))
    request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=limit)
    plain = RangeRead(request)
    plain.feed(store.scan(start, end, revision))
    read = RangeRead(request, sized=True)
    return store.reader(revision).rows(start, end, rng.choice((7, 1000))), read, (plain.take(), plain.count)


@pytest.mark.parametrize("seed", range(8))
def test_ranges_out_of_blocks_are_those_of_the_database(
        tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(blocks_module, "_MOST_CHANGES", rng.choice((20, 2_048)))
    monkeypatch.setattr(blocks_module, "_CHANGES_AT_ONCE", rng.choice((1, 5, 128)))
    monkeypatch.setattr(blocks_module, "_RECENT", rng.choice((4, 512)))
    monkeypatch.setattr(blocks_module, "_UNUSED_TURNS", rng.choice((0, 16)))
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20,
                            range_cache_bytes=rng.choice((20_000, 1 << 20)))
    try:
        history = History(store, rng)
        going: list[Going] = []
        for _ in range(400):
            if rng.random() < 0.4:
                history.change()
            if rng.random() < 0.4:
                going.append(begin(store, rng))  # several under way, each at its own revision
            going = [one for one in going if not read_on(one, rng, rng.choice((1, 2, 100)))]
        assert all(read_on(one, rng, 10_000) for one in going)
        assert store.blocks.taken_rows > 100, "the blocks were of no use"
    finally:
        store.close()


def whole(reader: Reader, start: bytes = b"\0", end: bytes = b"\0") -> bytes:
    read = RangeRead(rpc_pb2.RangeRequest(key=start, range_end=end))
    source = reader.rows(start, end, 1000)
    while not read.feed_from(source, 256, 1 << 20):
        pass
    return read.take()


def big(open_store: OpenStore) -> StateStore:
    store = open_store()
    store.apply([(1, 1, b"".join(records.put(b"k%05d" % n, 0, 1, bytes(100), 0) for n in range(5000)))])
    return store


def test_a_change_costs_the_block_that_holds_the_key_and_no_other(open_store: OpenStore) -> None:
    store = big(open_store)
    first = whole(store.reader())
    assert store.blocks.taken_rows == 0
    assert whole(store.reader()) == first
    assert store.blocks.taken_rows == 5000
    store.apply([(2, 1, records.put(b"k01000", 2, 2, b"new", 0))])
    assert whole(store.reader()) != first
    read = store.blocks.read_rows
    assert 5000 < read <= 5256
    whole(store.reader())
    assert store.blocks.read_rows == read
    whole(store.reader(), b"k00100", b"k04000")  # begins and ends within blocks
    assert store.blocks.read_rows <= read + 2 * 256


def test_a_block_made_of_the_past_is_not_shown_later(open_store: OpenStore) -> None:
    store = big(open_store)
    old, then = store.reader(), store.revision
    store.apply([(2, 1, records.put(b"k01000", 2, 2, b"new", 0))])
    new = whole(store.reader())
    assert whole(old) != new
    assert whole(store.reader()) == new
    assert whole(store.reader(then)) == whole(old)


def test_room_is_bounded_and_what_is_used_keeps_it(tmp_path: Path) -> None:
    limit = 200_000
    store = StateStore.open(tmp_path / "state", range_cache_bytes=limit)
    try:
        store.apply([(1, 1, b"".join(records.put(b"k%05d" % n, 0, 1, bytes(100), 0) for n in range(5000)))])
        for _ in range(3):
            whole(store.reader())  # larger than all the room, over and over
            assert 0 < store.blocks.bytes <= limit
        assert store.blocks.taken_rows > 2 * 256
        before = store.blocks.taken_rows
        for _ in range(30):
            whole(store.reader(), b"k04000", b"k04500")
        assert store.blocks.taken_rows - before > 10 * 500, "what is unused gives way"
    finally:
        store.close()


def test_long_bounds_count_for_the_room(tmp_path: Path) -> None:
    """They are the client's, which may name any."""
    limit = 200_000
    store = StateStore.open(tmp_path / "state", range_cache_bytes=limit)
    try:
        store.apply([(1, 1, b"".join(records.put(b"%05d" % n, 0, 1, b"", 0) for n in range(5000)))])
        for n in range(0, 5000, 64):
            whole(store.reader(), b"%05d" % n, b"%05d" % (n + 63) + b"x" * 4_000)
        bounds = sum(len(block.lower) + len(block.upper) for block in store.blocks._blocks.values())
        assert 100_000 < bounds < store.blocks.bytes <= limit
        store.blocks.clear()
        for n in range(4000, 5000, 10):  # of few rows, or none: of no use
            whole(store.reader(), b"%05d" % n + b"x" * 3_000, b"%05d" % (n + 5))
        assert not store.blocks.bytes
    finally:
        store.close()


def test_long_bounds_push_no_rows_out(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state", range_cache_bytes=1_000_000)
    try:
        store.apply([(1, 1, b"".join(records.put(b"%05d" % n, 0, 1, b"", 0) for n in range(5000)))])
        whole(store.reader(), b"00000", b"01000")
        kept = list(store.blocks._lowers)
        assert len(kept) > 2
        for n in range(1000, 5000, 64):
            whole(store.reader(), b"%05d" % n, b"%05d" % (n + 63) + b"x" * 200_000)
        assert store.blocks._lowers == kept
    finally:
        store.close()


def test_changes_of_long_keys_are_not_remembered(open_store: OpenStore) -> None:
    store = big(open_store)
    old, then = store.reader(), store.revision
    whole(store.reader())
    for index in range(2, 6):
        store.apply([(index, 1, records.put(b"k01000" + b"x" * (5000 + index), 0, 1, b"", 0))])
    store.apply([(6, 1, records.put(b"k01000", 2, 2, b"new", 0))])
    new = whole(store.reader())
    assert [row for _, row in store.blocks._recent] == [b"kk01000"]
    store.blocks._blocks.clear()
    store.blocks._lowers.clear()
    assert whole(old) == whole(store.reader(then)) != new
    assert whole(store.reader()) == new


def test_no_room_no_blocks(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state", range_cache_bytes=0)
    try:
        store.apply([(1, 1, b"".join(records.put(b"k%05d" % n, 0, 1, b"", 0) for n in range(500)))])
        assert whole(store.reader()) == whole(store.reader())
        assert not store.blocks._lowers
    finally:
        store.close()


def test_a_delete_that_is_applied_in_slices_takes_blocks_out_when_it_is_through(
    open_store: OpenStore,
) -> None:
    store = big(open_store)
    while not store.counts.build_step():
        pass
    before = whole(store.reader())
    work = store.apply_slices(
        [(2, 1, records.delete_range(b"k01", b"k02", store.live_count(b"k01", b"k02")))]
    )
    next(work)
    assert whole(store.reader()) == before
    for _ in work:
        assert whole(store.reader()) == before
    left = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    left.feed(store.scan(b"\0", b"\0"))
    assert whole(store.reader()) == left.take()


def test_changes_that_a_compaction_has_dropped_are_not_missed(open_store: OpenStore) -> None:
    store = big(open_store)
    before = whole(store.reader())
    for index in range(2, 6):  # records of their own: each has its r row
        store.apply([(index, 1, records.put(b"k%05d" % (1000 * index), 2, 2, b"new", 0))])
    store.apply([(6, 1, records.compact(store.revision))])
    while not store.compaction_step(0):
        pass
    left = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    left.feed(store.scan(b"\0", b"\0"))
    after = left.take()
    assert after != before
    assert whole(store.reader()) == after
