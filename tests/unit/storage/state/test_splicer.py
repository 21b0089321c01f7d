"""Rows that are spliced are those that a scan gives, in whatever pieces, whatever lies between them."""

from __future__ import annotations

import random

import pytest

from cluster.effects import records
from cluster.evaluate.reading.ranges import RangeRead
from cluster.pb import rpc_pb2
from node.storage import Reader, StateStore
from tests.unit.storage.conftest import OpenStore


def filled(open_store: OpenStore, seed: int) -> StateStore:
    """Keys with few and with many versions, deleted ones, keys with zero bytes, keys that begin others."""
    store, rng = open_store(), random.Random(seed)
    names = [b"%d" % n for n in range(40)] + [b"1\0", b"1\0\0", b"2\0x", b"2\xff", b"zz"]
    for index in range(1, 400):
        key = rng.choice(names[:3]) if rng.random() < 0.3 else rng.choice(names)
        current = store.current(key)
        if current is None:
            item = records.put(key, 0, 1, b"v%d" % index, 0)
        elif rng.random() < 0.2:
            item = records.delete(key)
        else:
            item = records.put(key, current.create, current.version + 1, bytes(rng.randrange(300)), 0)
        store.apply([(index, 1, item)])
    return store


def spliced(reader: Reader, start: bytes, end: bytes, rng: random.Random) -> tuple[bytes, int]:
    read = RangeRead(rpc_pb2.RangeRequest(key=start, range_end=end))
    source = reader.splicer(start, end, rng.choice((12, 1000)))
    for _ in range(10_000):
        if read.feed_from(source, rng.choice((1, 2, 7, 100)), rng.choice((1, 300, 100_000))):
            return read.take(), read.count
        if rng.random() < 0.3:
            reader.get(b"7")  # takes the iterator somewhere else
    raise AssertionError("it never ends")


@pytest.mark.parametrize("seed", range(6))
def test_spliced_rows_are_those_of_a_scan(open_store: OpenStore, seed: int) -> None:
    store, rng = filled(open_store, seed), random.Random(seed)
    ranges = [
        (b"\0", b"\0"), (b"1", b"2"), (b"1\0", b"3"), (b"5", b"5"), (b"9", b"1"), (b"2", b"\0"), (b"zz", b""),
    ]
    for revision in (0, store.revision, store.revision // 2, 2):
        reader = store.reader(revision)
        for start, end in ranges:
            rows = list(store.scan(start, end, revision))
            read = RangeRead(rpc_pb2.RangeRequest(key=start, range_end=end))
            read.feed(rows)
            assert spliced(reader, start, end, rng) == (read.take(), len(rows))
    store.apply([(400, 1, records.put(b"later", 0, 1, b"", 0))])
    assert spliced(reader, b"\0", b"\0", rng)[1] == len(list(store.scan(b"\0", b"\0", 2)))


def test_a_reader_made_while_a_delete_is_applied_in_slices_sees_nothing_of_it(open_store: OpenStore) -> None:
    store = open_store()
    store.apply([(1, 1, b"".join(records.put(b"k%05d" % n, 0, 1, b"", 0) for n in range(5000)))])
    while not store.counts.build_step():
        pass
    work = store.apply_slices([(2, 1, records.delete_range(b"k", b"l", store.live_count(b"k", b"l")))])
    for _ in range(2):
        next(work)
    assert spliced(store.reader(), b"k", b"l", random.Random(0))[1] == 5000
    for _ in work:
        pass
    assert spliced(store.reader(), b"k", b"l", random.Random(0))[1] == 0


def test_a_limit_ends_it(open_store: OpenStore) -> None:
    store = filled(open_store, 1)
    read = RangeRead(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", limit=3))
    source = store.reader().splicer(b"\0", b"\0", 100)
    assert not read.feed_from(source, 2, 1 << 20)
    assert read.feed_from(source, 2, 1 << 20)
    rows = [key for key, _ in store.scan(b"\0", b"\0")]
    assert (read.satisfied, read.count, read.last_key) == (True, 3, rows[2])
