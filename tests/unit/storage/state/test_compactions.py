"""A compaction takes what nobody may ask for any more, in slices, and survives restarts (contract 1.7)."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from cluster.bolt.etcd import revision_key
from cluster.effects import records
from cluster.evaluate.steps import finish
from cluster.grain import GRAIN
from cluster.wire import protobuf as wire
from node.backup.rows import Checkpoint
from node.storage import Compacted, StateStore
from node.storage.options import REMOVALS
from node.storage.snapshot import SnapshotSource
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import ALL, changes, compact, do, history, received, versions


def test_a_compaction_keeps_the_newest_at_or_below_it_and_all_above(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"", 0))  # 2
    for version in range(2, 7):
        do(store, records.put(b"a", 2, version, b"", 0))  # 3..7
    compact(store, 5)
    assert versions(store) == [(b"a", 7, 0), (b"a", 6, 0), (b"a", 5, 0)]
    assert store.get(b"a", 5) == wire.key_value(b"a", 2, 5, 4, b"", 0)
    with pytest.raises(Compacted) as caught:
        store.get(b"a", 4)
    assert caught.value.compact_revision == 5


def test_a_tombstone_exactly_at_the_compaction_stays_until_the_next(open_store: OpenStore) -> None:
    """So that a watch from the compaction revision sees the DELETE."""
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"", 0), records.put(b"b", 0, 1, b"", 0))  # 2, 3
    do(store, records.delete(b"a"), records.delete(b"b"))  # 4, 5
    compact(store, 5)
    assert versions(store) == [(b"b", 5, 1)]
    assert history(store, *ALL, 5).events == [(5, 1, b"b", wire.tombstone(b"b", 5), b"", 0)]
    do(store, records.put(b"c", 0, 1, b"", 0))  # 6
    compact(store, 6)
    assert versions(store) == [(b"c", 6, 0)]


def _counts_what_goes_behind_a_restart(store: StateStore, open_store: OpenStore, more_than: int) -> None:
    """Of a store in the midst of a compaction."""
    left = len(versions(store))
    store.flush()
    store.close()
    store = open_store()
    while not store.compaction_step(0):
        pass
    assert store.compacted_versions == left - len(versions(store)) > more_than


def test_a_tombstone_counts_once_though_a_restart_repeats_its_walk(open_store: OpenStore) -> None:
    store = open_store()
    for number in range(300):
        do(store, records.put(b"k%d" % number, 0, 1, b"", 0))
        do(store, records.delete(b"k%d" % number))
    do(store, records.compact(store.revision))
    while store.compacted_versions < 300:
        store.compaction_step(0)
    _counts_what_goes_behind_a_restart(store, open_store, 200)


def test_tombstones_that_a_compaction_kept_count_once_though_a_restart_repeats_their_walk(
    open_store: OpenStore,
) -> None:
    store, number = open_store(), 3000
    for key in range(number):
        do(store, records.put(b"k%05d" % key, 0, 1, b"", 0))
    do(store, records.delete_range(b"k", b"l", number))
    compact(store, store.revision)
    assert len(versions(store)) == number
    do(store, records.put(b"x", 0, 1, b"", 0))
    do(store, records.compact(store.revision))
    first = store.compacted_versions
    while store.compacted_versions < first + 1000:
        assert not store.compaction_step(0)
    assert len(versions(store)) > 1000
    _counts_what_goes_behind_a_restart(store, open_store, 1000)


def test_versions_that_go_are_counted_once(open_store: OpenStore) -> None:
    """Of a tombstone below a compaction its own change tells, and that which brought the key back."""
    random, store = Random(5), open_store()
    alive: dict[bytes, int] = {}
    gone = 0
    for _ in range(30):
        for _ in range(40):
            key = b"%d" % random.randrange(12)
            if random.random() < 0.4 and key in alive:
                do(store, records.delete(key))
                del alive[key]
            else:
                create = alive.setdefault(key, 0)
                do(store, records.put(key, create, 1, b"", 0))
                alive[key] = create or store.revision
        at = store.revision - random.randrange(30)
        before = len(versions(store))
        compact(store, at)
        gone += before - len(versions(store))
        assert store.compacted_versions == gone
    assert gone > 1000


def test_runs_below_the_compaction_go(open_store: OpenStore) -> None:
    store = open_store()
    for i in range(10):
        do(store, *(records.put(b"%d/%d" % (i, j), 0, 1, b"", 0) for j in range(3)))
    compact(store, 12)  # within the fourth record, of 11..13
    assert changes(store) == list(range(11, 32))
    assert [event[0] for event in history(store, *ALL, 12).events] == list(range(12, 32))


def test_a_revision_larger_than_a_run_survives_compaction_whole(open_store: OpenStore) -> None:
    store = open_store()
    many = 3 * GRAIN.run_entries + 5
    do(store, records.put(b"first", 0, 1, b"", 0))
    do(store, records.txn(records.put(b"%06d" % i, 0, 1, b"", 0) for i in range(many)))  # 3
    do(store, records.put(b"last", 0, 1, b"", 0))
    compact(store, 3)
    compact(store, 3)
    events = history(store, *ALL, 3, max_events=1).events
    assert [event[2] for event in events] == [b"%06d" % i for i in range(many)]
    assert history(store, *ALL, 3, max_events=1).next_revision == 4


def test_compaction_goes_on_after_a_restart(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRAIN, "compaction_chunk", 60)  # what a restart costs at most
    monkeypatch.setattr(
        GRAIN, "compaction_take_check", 25
    )  # so that some of them fall between two parts of a chunk
    store = open_store()
    for version in range(300):
        do(store, *(records.put(b"%d" % i, version and 2 + i, version + 1, b"x" * 20, 0) for i in range(5)))
    do(store, records.compact(store.revision))
    steps = 0
    while not store.compaction_step(0):
        steps += 1
        if steps % 8 == 0:
            store.flush()
            store.close()
            store = open_store()
    assert steps > 20
    assert len(versions(store)) == 5
    assert store.compaction_step(0)  # and it stays done
    store.close()
    assert not open_store().compacting


def test_a_slice_of_a_compaction_ends_in_the_midst_of_a_chunk_that_is_taken(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GRAIN, "compaction_take_check", 10)
    store = open_store()
    for version in range(100):
        do(store, records.put(b"key", version and 2, version + 1, b"", 0))
    do(store, records.compact(store.revision))
    for step in range(1, 10):
        assert not store.compaction_step(0)
        assert len(store._compaction._changes) == 10 * step
        assert len(versions(store)) == 100  # nothing goes before the chunk is whole
    while not store.compaction_step(0):
        pass
    assert len(versions(store)) == 1


def test_a_second_compaction_may_come_while_the_first_is_at_work(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"", 0))
    for i in range(100):
        do(store, records.put(b"b", 0, 1, b"", 0), records.delete(b"b"), records.put(b"a", 2, i + 2, b"", 0))
    do(store, records.compact(151))
    for _ in range(3):
        store.compaction_step(0)
    do(store, records.compact(store.revision))
    while not store.compaction_step(0):
        pass
    assert versions(store) == [(b"a", 302, 0)]


def removed(store: StateStore, rows: int) -> None:
    """Keys of half as many rows come and go between two others."""
    keys = [b"k%06d" % n for n in range(rows // 2)]
    do(store, records.put(b"a", 0, 1, b"", 0), records.put(b"z", 0, 1, b"", 0))
    do(store, *(records.put(key, 0, 1, b"", 0) for key in keys))
    do(store, *map(records.delete, keys), records.put(b"z", 3, 2, b"", 0))
    compact(store, store.revision)


def test_what_was_removed_in_a_row_is_merged_once_it_is_flushed(open_store: OpenStore) -> None:
    """Without further writes, too: each list that comes by would look at all of it."""
    store = open_store(write_buffer_bytes=16 << 20)
    removed(store, 2 * REMOVALS)
    assert store.buffers_removals
    store.flush()
    assert not store.buffers_removals
    until = time.monotonic() + 20
    while sum(file["num_deletions"] for file in store.database.live_files()) > 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert [key for key, _ in store.scan(*ALL)] == [b"a", b"z"]


def test_the_past_of_a_key_does_not_look_at_what_was_removed_before_it(open_store: OpenStore) -> None:
    store = open_store(write_buffer_bytes=16 << 20)
    removed(store, 40_000)

    def least_s(key: bytes, from_revision: int) -> float:
        took = []
        for _ in range(9):
            began = time.perf_counter()
            assert len(history(store, key, b"", from_revision).events) == 1
            took.append(time.perf_counter() - began)
        return min(took)

    do(store, records.put(b"a", 2, 2, b"", 0), records.put(b"z", 3, 3, b"", 0))
    first, last = (least_s(key, store.revision - 1) for key in (b"a", b"z"))
    assert last < 20 * first, "it is 500 times as long"


def changed_twice(open_store: OpenStore, others: int = 0) -> StateStore:
    """In revision 3 ``b`` is deleted and put, ``c`` put and deleted, ``d`` deleted, put and deleted."""
    store = open_store()
    do(store, records.txn(records.put(key, 0, 1, b"old", 0) for key in (b"b", b"d")))  # 2
    do(store, records.txn([
        *(records.put(b"a%06d" % i, 0, 1, b"", 0) for i in range(others)),
        records.delete(b"b"), records.put(b"b", 0, 1, b"new", 0),
        records.put(b"c", 0, 1, b"new", 0), records.delete(b"c"),
        records.delete(b"d"), records.put(b"d", 0, 1, b"new", 0), records.delete(b"d")]))
    return store


NEW = wire.key_value(b"b", 3, 3, 1, b"new", 0)
LAST = [(3, 0, b"b", NEW, b"", 1), (3, 1, b"c", wire.tombstone(b"c", 3), b"", 3),
        (3, 1, b"d", wire.tombstone(b"d", 3), b"", 6)]


def test_of_the_compacted_revision_the_last_change_of_each_key_is_told(open_store: OpenStore) -> None:
    """However far the removal is. A watch from there met a row that was gone, and ended each host."""
    store = changed_twice(open_store)
    assert b"".join(event[2] for event in history(store, *ALL, 3).events) == b"bbccddd"
    do(store, records.compact(3))
    for removed in (False, True):
        while removed and not store.compaction_step(0):
            pass
        assert len(versions(store)) == (3 if removed else 9)
        assert store.compacted_versions == (6 if removed else 0)
        assert history(store, *ALL, 3, want_prev=True).events == LAST
        assert history(store, *ALL, 3, max_events=1, max_scan=1).events == LAST
        for event in LAST:
            assert history(store, event[2], b"", 3).events == [event]
    store.flush()
    store.close()
    store = open_store()
    do(store, records.put(b"e", 0, 1, b"", 0))  # 4
    assert history(store, *ALL, 3).events[:-1] == LAST
    compact(store, 4)
    assert versions(store) == [(b"b", 3, 0), (b"e", 4, 0)]


def test_a_compaction_at_the_revision_that_is_being_told_takes_nothing_from_it(open_store: OpenStore) -> None:
    """It comes in a pause of the read, behind the first look at the compaction."""
    store = changed_twice(open_store, others=100)
    slices = store.history_slices(
        *ALL, 3, max_events=1000, max_bytes=1 << 20, want_prev=False, max_scan=50)
    next(slices)
    compact(store, 3)
    told = finish(slices).events[100:]
    assert [(*event[:5], event[5] - 100) for event in told] == LAST


def test_hashes_backups_and_copies_of_a_key_that_changed_twice_know_of_the_last_change_alone(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store = changed_twice(open_store)
    do(store, records.compact(3))
    hashes = store.hash_kv().run(), store.hash_state().run()
    while not store.compaction_step(0):
        pass
    assert (store.hash_kv().run(), store.hash_state().run()) == hashes
    other = open_store("other")
    other.install(received(store, tmp_path / "outgoing", other.root))
    assert history(other, *ALL, 3).events == LAST
    assert (other.hash_kv().run(), other.hash_state().run()) == hashes
    for copied in (store, other):
        source = SnapshotSource.create(copied, tmp_path / "checkpoint")
        checkpoint = Checkpoint(source.directory)
        rows = [row for some in checkpoint.keys(3, 3) for row in some]
        checkpoint.close()
        source.close()
        assert sorted((at, value) for at, value in rows) == [
            (revision_key(3, 1, False), NEW), (revision_key(3, 3, True) + b"c", b""),
            (revision_key(3, 6, True) + b"d", b"")]
