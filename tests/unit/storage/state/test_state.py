"""Rules of the applied state, one test each."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.effects.records import Item
from cluster.evaluate.view import Current
from cluster.faults import faults
from cluster.features.auth.permissions import Ranges, interval
from cluster.grain import GRAIN
from cluster.wire import protobuf as wire
from node.storage import Compacted, DirectoryLocked, Position, StateStore, opening
from node.storage.defragment import room
from node.storage.state.decoded import PART
from tests.unit.machines import machine_on
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import ALL, compact, do, history, versions

# Applying


def test_a_fresh_store_is_at_revision_1(open_store: OpenStore) -> None:
    assert open_store().position == Position(0, 0, 0, 1, 0)


def test_one_change_is_one_revision_and_a_transaction_too(open_store: OpenStore) -> None:
    """Contract 0.4."""
    store = open_store()
    assert do(store, records.put(b"a", 0, 1, b"", 0), records.put(b"b", 0, 1, b"", 0)).revision == 3
    assert do(store, records.txn([records.put(b"a", 2, 2, b"", 0), records.delete(b"b")])).revision == 4
    assert do(store, records.txn([])).revision == 4
    assert do(store, records.lease_grant(1, 5)).revision == 4
    assert do(store, records.lease_revoke(1, [])).revision == 4
    assert do(store).revision == 4  # an entry without a record
    assert do(store, records.compact(3)).revision == 4
    assert store.position == Position(7, 7, 1, 4, 3)


def test_apply_tells_what_it_did_in_order(open_store: OpenStore) -> None:
    store = open_store()
    member = b"\x08\x07\x12\x01n"
    applied = do(
        store,
        records.bootstrap(1, 4, 2),
        records.publish(member),
        records.lease_grant(9, 60),
        records.put(b"a", 0, 1, b"1", 9),
        records.lease_checkpoint(9, 30),
        records.txn([records.put(b"b", 0, 1, b"2", 0), records.put(b"a", 2, 2, b"3", 9)]),
        records.compact(2),
        records.lease_revoke(9, [b"a"]),
        want_events=True,
    )
    assert applied.events == [
        (2, 0, b"a", wire.key_value(b"a", 2, 2, 1, b"1", 9), 0),
        (3, 0, b"b", wire.key_value(b"b", 3, 3, 1, b"2", 0), 0),
        (3, 0, b"a", wire.key_value(b"a", 2, 3, 2, b"3", 9), 1),
        (4, 1, b"a", wire.tombstone(b"a", 4), 0),
    ]
    assert applied.leases == [
        (Item.LEASE_GRANT, 9, 60), (Item.LEASE_CHECKPOINT, 9, 30), (Item.LEASE_REVOKE, 9, 0),
    ]  # fmt: skip
    assert applied.revoked == [9]
    assert applied.compacted == 2
    assert applied.published == [member]
    assert applied.bootstrap == store.bootstrap() == (1, 4, 2)
    assert store.members() == {7: member}
    assert store.lease(9) is None


def test_the_first_incarnation_of_a_member_counts_for_ever(open_store: OpenStore) -> None:  # H10
    store = open_store()
    both = records.incarnation(7, 70) + records.incarnation(7, 71)
    assert do(store, both + records.incarnation(8, 80)).incarnations == [(7, 70), (8, 80)]
    assert do(store, records.incarnation(7, 72)).incarnations == []
    assert store.incarnations() == {7: 70, 8: 80}


def test_events_cost_nothing_when_nobody_wants_them(open_store: OpenStore) -> None:
    assert do(open_store(), records.put(b"a", 0, 1, b"1", 0)).events == []


@pytest.mark.parametrize(
    "data",
    [
        records.put(b"a", 0, 1, b"value", 0)[:-1],
        records.delete(b"a")[:-1],
        records.txn([records.put(b"a", 0, 1, b"value", 0)])[:-1],
        records.txn([records.compact(1)]),
        records.ITEM.pack(0, 0),
        records.ITEM.pack(99, 0),
    ],
)
def test_a_record_that_makes_no_sense_stops_the_replica(open_store: OpenStore, data: bytes) -> None:
    store = open_store()
    with pytest.raises(ValueError):
        do(store, data)
    assert store.position.order_index == 0


def test_a_compaction_above_the_applied_revision_is_skipped_and_counted(open_store: OpenStore) -> None:
    """I24. It is so at every replica, at this place of the order."""
    store = open_store()
    assert do(store, records.compact(5)).compacted is None
    assert (store.position.order_index, store.compact_revision) == (1, 0)
    assert [str(error) for _, error in faults.take()] == ["a compaction at 5, where the revision is 1"]


def test_records_are_applied_without_a_gap_and_once(open_store: OpenStore) -> None:
    store = open_store()
    store.apply([(1, 1, b""), (2, 1, b"")])
    for index in (2, 4):
        with pytest.raises(ValueError, match=f"record {index} applied after 2"):
            store.apply([(index, 1, b"")])


def test_a_put_of_an_existing_key_that_is_not_there_stops_the_replica(open_store: OpenStore) -> None:
    """The leader evaluated against another state than this one: never paper over it."""
    store = open_store()
    assert store.current(b"a") is None
    with pytest.raises(AssertionError):
        do(store, records.put(b"a", 7, 2, b"", 0))


def test_position_is_in_the_batch_of_its_data(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6"""
    store = open_store()
    batches = []
    write = StateStore.write
    monkeypatch.setattr(
        StateStore, "write", lambda self, batch: (batches.append(batch.len()), write(self, batch))[1])
    do(store, records.put(b"a", 0, 1, b"1", 0))
    assert batches == [3]  # version, run, position


def test_meta_rows_come_with_the_batch(open_store: OpenStore) -> None:
    store = open_store()
    store.apply([(1, 1, b"")], meta={"configuration": b"abc"})
    store.flush()
    store.close()
    store = open_store()
    assert store.meta("configuration") == b"abc"
    assert store.meta("nothing") is None


def test_durable_is_only_what_a_flush_covers(open_store: OpenStore) -> None:
    """H9"""
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"1", 0))
    assert store.durable_position.order_index == 0
    covered = store.flush()
    do(store, records.put(b"b", 0, 1, b"1", 0))
    assert covered == store.durable_position == Position(1, 1, 1, 2, 0)


def test_a_directory_opens_once(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store()
    monkeypatch.setattr(opening, "ENDING_S", 0.0)
    with pytest.raises(DirectoryLocked, match="in use by another process"):
        open_store()
    script = (
        "from node.storage import StateStore, opening\nopening.ENDING_S = 0.0\n"
        f"StateStore.open({str(tmp_path / 'state')!r})")
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "DirectoryLocked" in other.stderr


# The cache of current versions


def test_the_cache_is_right_through_puts_deletes_and_its_own_turnover(open_store: OpenStore) -> None:
    store = open_store()
    store.cache.limit = 4
    for i in range(20):
        key = b"%d" % (i % 10)
        if i < 10:
            assert store.current(key) is None
            do(store, records.put(key, 0, 1, b"", i))
            assert store.current(key) == Current(i + 2, i + 2, 1, i)
        else:
            do(store, records.put(key, i - 8, 2, b"x", 0))
            assert store.current(key) == Current(i - 8, i + 2, 2, 0)
        assert len(store.cache.hot) <= 4
        assert len(store.cache.cold) <= 4
        assert not store.cache.hot.keys() & store.cache.cold.keys()
    do(store, records.delete(b"9"))
    assert store.current(b"9") is None


def test_remembered_values_are_the_newest_through_every_kind_of_change_and_a_reopening(
    open_store: OpenStore,
) -> None:
    store = open_store()
    store.cache.value_limit = store.cache.value_room = 2_000
    for i in range(60):
        key = b"%d" % (i % 6)
        do(store, records.put(key, 0, 1, b"", 0) if store.current(key) is None
           else records.put(key, 2, i, b"v%d" % i, 0))
        for _ in range(2):  # from RocksDB, then remembered
            kv = store.get(key)
            assert kv is not None
            assert store.get(key, store.revision) == kv == store.reader().get(key)
        if i % 7 == 0:
            do(store, records.delete(key))
            assert store.get(key) is None
        if i % 4 == 0:
            version = 1 if store.current(b"a") is None else 2
            do(store, records.txn([records.put(b"a", 0 if version == 1 else 2, version, b"%d" % i, 0),
                                   *([records.delete(b"b")] if store.current(b"b") is not None else [])]))
            if i % 8 == 0:
                do(store, records.put(b"b", 0, 1, b"", 0))
            for name in (b"a", b"b"):
                assert store.get(name) == store.get(name, store.revision) == store.get(name)
        assert sum(len(k) + len(v) for k, v in store.cache.values.items()) <= 2_000
    assert store.cache.values
    store.close()
    assert open_store().get(b"5") is not None


def test_a_large_value_is_not_remembered(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"k", 0, 1, b"x" * 100_000, 0))
    assert store.get(b"k") == store.get(b"k")
    assert not store.cache.values


def test_versions_are_forgotten_where_nobody_evaluates_and_found_again(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"1", 0))
    assert store.current(b"a") == Current(2, 2, 1, 0)
    assert store.get(b"a")
    store.forget_versions()
    assert not store.cache.hot
    assert not store.cache.cold
    assert store.cache.values  # they are of reads, which followers answer too
    do(store, records.put(b"a", 2, 2, b"2", 0))
    assert not store.cache.hot
    assert store.current(b"a") == Current(2, 3, 2, 0)


def test_a_large_key_is_not_cached(open_store: OpenStore) -> None:
    store = open_store()
    key = b"k" * 100_000
    do(store, records.put(key, 0, 1, b"", -5))
    assert store.current(key) == Current(2, 2, 1, -5)
    assert not store.cache.hot


def test_a_read_before_many_deleted_rows_finds_what_is_there(open_store: OpenStore) -> None:
    """The unbounded iterator gives up on a stretch of deleted rows; the answer must not be "not there"."""
    store = open_store()
    do(store, *(records.put(b"q/%05d" % i, 0, 1, b"x", 0) for i in range(500)),
       records.put(b"q/z", 0, 1, b"x", 0))
    store.flush()
    do(store, *(records.delete(b"q/%05d" % i) for i in range(500)))
    compact(store, store.revision)
    do(store, records.put(b"r", 0, 1, b"x", 0))
    compact(store, store.revision)
    assert [key for key, _, _ in versions(store)] == [b"q/z", b"r"]
    assert store.current(b"q/00000") is None
    assert store.get(b"q/0") is None
    assert store.get(b"q") is None
    current = store.current(b"q/z")
    assert current is not None
    assert current.version == 1


# Ranges


def test_a_key_with_many_versions_is_stepped_over(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"", 0), records.put(b"b", 0, 1, b"", 0),
       records.put(b"c", 0, 1, b"", 0))
    for version in range(2, 100):
        do(store, records.put(b"b", 3, version, b"", 0))
    do(store, records.delete(b"b"))
    for revision, live in ((4, [b"a", b"b", b"c"]), (60, [b"a", b"b", b"c"]), (0, [b"a", b"c"])):
        assert [key for key, _ in store.scan(*ALL, revision)] == live
        assert store.count(*ALL, revision) == len(live)


def test_a_count_goes_on_where_its_budget_ended(open_store: OpenStore) -> None:
    store = open_store()
    do(store, *(records.put(b"%06d\0" % i, 0, 1, b"", 0) for i in range(3000)))
    reader = store.reader()
    total, start, slices = 0, b"\0", 0
    while True:
        count, resume = reader.count(start, b"\0", budget_us=1)
        total += count
        slices += 1
        if resume is None:
            break
        start = resume
    assert (total, slices > 5) == (3000, True)


def test_a_reader_does_not_see_what_comes_later(open_store: OpenStore) -> None:
    """H16: not even a compaction above its revision."""
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"1", 0), records.put(b"b", 0, 1, b"1", 0))
    reader, lazy = store.reader(), store.scan(*ALL)
    before = list(store.scan(*ALL))
    do(store, records.put(b"a", 2, 2, b"2", 0), records.delete(b"b"), records.put(b"c", 0, 1, b"", 0))
    compact(store, 6)
    store.flush()
    store.defragment()
    assert list(reader.scan(*ALL)) == before == list(lazy)
    assert reader.get(b"c") is None
    assert reader.count(*ALL) == (2, None)
    with pytest.raises(Compacted):
        store.reader(3)


def test_reads_of_one_reader_may_come_between_the_slices_of_another(open_store: OpenStore) -> None:
    """They share an iterator."""
    store = open_store()
    do(store, *(records.put(b"%03d\0" % i, 0, 1, b"%d" % i, 0) for i in range(300)))
    reader = store.reader()
    first, second, seen = reader.scan(b"0", b"2"), reader.scan(b"05", b"\0"), []
    for _ in range(100):
        seen.append((next(first), next(second)))
        assert reader.count(b"1", b"2") == (100, None)
        assert reader.get(b"299\0") is not None
        assert reader.get(b"299") is None
    everything = list(store.scan(*ALL))
    assert [one for one, _ in seen] + list(first) == everything[:200]
    assert [two for _, two in seen] + list(second) == everything[50:]


def test_what_was_never_deleted_is_all_in_use(tmp_path: Path) -> None:
    """RocksDB's estimate passes over files whose ranges overlap: a third to two thirds of such a store."""
    store, chance, written = StateStore.open(tmp_path / "s", write_buffer_bytes=1 << 20), random.Random(1), 0
    value = chance.randbytes(4000)
    for _ in range(12):
        do(store, *(records.put(b"%016x" % chance.getrandbits(63), 0, 1, value[i:] + value[:i], 0)
                    for i in range(400)))
        written += 400 * len(value)
        store.flush()
        assert store.size_in_use_bytes() > 0.95 * written
    before = store.size_in_use_bytes()
    assert 0.95 * written < room(store.database)
    store.defragment()
    assert store.size_in_use_bytes() == pytest.approx(before, rel=0.05)
    store.close()


def test_what_only_a_reader_still_has_is_not_in_use(open_store: OpenStore) -> None:
    """RocksDB's total has them beside those that a rewrite put in their place: all counted twice."""
    store, chance = open_store(), random.Random(1)
    for _ in range(2):
        do(store, *(records.put(b"%d" % i, 0, 1, chance.randbytes(1000), 0) for i in range(500)))
        store.flush()
    rows = store.rows(b"", b"\xff")
    next(rows)
    before, asked = store.size_in_use_bytes(), room(store.database)
    store.defragment()
    assert store.size_bytes() > 1.9 * before, "the reader has the old files"
    assert store.size_in_use_bytes() == pytest.approx(before, rel=0.05)
    assert room(store.database) == pytest.approx(asked, rel=0.05)
    assert sum(1 for _ in rows) >= 1000


def test_what_is_left_beside_deleted_keys_needs_room(open_store: OpenStore) -> None:
    """A deleted key leaves two deletions, so half of the keys counted as all."""
    store, chance = open_store(), random.Random(1)
    store.database.set_options({"disable_auto_compactions": "true"})  # deletions stay where they are
    do(store, *(records.put(b"%d" % i, 0, 1, chance.randbytes(1000), 0) for i in range(3000)))
    store.flush()
    do(store, *(records.delete(b"%d" % i) for i in range(1500)))
    compact(store, store.revision)
    store.flush()
    asked = room(store.database)
    store.defragment()
    assert store.size_bytes() <= asked


def test_space_comes_back_after_deletes_a_compaction_and_defragmenting(open_store: OpenStore) -> None:
    store = open_store()
    do(store, *(records.put(b"%d" % i, 0, 1, b"x" * 1000, 0) for i in range(3000)))
    store.flush()
    full = store.size_bytes()
    assert full > 3_000_000
    assert store.size_in_use_bytes() <= full
    do(store, *(records.delete(b"%d" % i) for i in range(3000)))
    do(store, records.put(b"last", 0, 1, b"", 0))
    compact(store, store.revision)
    store.defragment()
    assert store.size_bytes() < full / 10


# Leases


def test_keys_hang_on_the_lease_of_their_last_put(open_store: OpenStore) -> None:
    """Contract 1.2."""
    store = open_store()
    do(store, records.lease_grant(1, 5), records.lease_grant(-2, 5))
    do(store, *(records.put(key, 0, 1, b"", 1) for key in (b"c", b"a", b"b\0")))
    assert store.lease_keys(1) == [b"a", b"b\0", b"c"]
    assert store.lease_keys(1, 2) == [b"a", b"b\0"]
    for granted, left in (
        ((b"b", b"c"), [b"a", b"c"]), ((b"a", b""), [b"b\0", b"c"]), ((b"b", b"\0"), [b"a"]),
        ((b"", b"\0"), []), ((b"x", b"z"), [b"a", b"b\0", b"c"]),
    ):  # fmt: skip
        assert store.lease_keys(1, but=Ranges([interval(*granted)])) == left
    do(store, records.put(b"a", 3, 2, b"", -2), records.put(b"c", 2, 2, b"", 0), records.delete(b"b\0"))
    assert store.lease_keys(1) == []
    assert store.lease_keys(-2) == [b"a"]
    do(store, records.lease_revoke(-2, [b"a"]))
    assert store.lease_keys(-2) == []
    assert list(store.leases()) == [(1, 5, 0)]


def test_a_lease_granted_and_revoked_in_one_record_leaves_nothing(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.lease_grant(1, 5), records.put(b"a", 0, 1, b"", 1), records.lease_checkpoint(1, 2),
       records.lease_revoke(1, [b"a"]))  # fmt: skip
    assert list(store.rows(b"L", b"M")) == list(store.rows(b"l", b"m")) == []


def test_a_long_lived_lease_does_not_collect_the_keys_that_left_it(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.lease_grant(1, 5), records.put(b"stays", 0, 1, b"", 1))
    for i in range(50):
        do(store, records.put(b"job/%d" % i, 0, 1, b"", 1), records.delete(b"job/%d" % i))
    do(store, records.put(b"stays", 2, 2, b"", 1))
    compact(store, store.revision)
    assert [row[9:] for row, _ in store.rows(b"l", b"m")] == [b"stays"]
    assert store.lease_keys(1) == [b"stays"]


# History


def test_history_is_bounded_by_what_it_looks_at(open_store: OpenStore) -> None:
    store = open_store()
    for i in range(300):
        do(store, records.put(b"other/%d" % i, 0, 1, b"", 0))
    do(store, records.put(b"mine", 0, 1, b"", 0))
    at, looks = 2, 0
    while at <= 302:
        part = history(store, b"m", b"n", at, max_scan=100)
        assert at < part.next_revision <= at + 110
        assert part.applied_revision == 302
        at, looks = part.next_revision, looks + 1
    assert looks >= 3
    assert [event[2] for event in part.events] == [b"mine"]
    assert not history(store, b"m", b"n", 2, max_scan=100).events
    assert len(history(store, b"m", b"n", PART, max_scan=100).events) == 1, "most of it was decoded before"


def test_decoded_history_is_bounded_in_bytes_and_keeps_no_part_of_few_changes(open_store: OpenStore) -> None:
    store = open_store()
    for i in range(3 * PART):
        do(store, records.put(b"%d" % i + b"k" * 4000, 0, 1, b"", 0))
    history(store, b"m", b"n", 2, max_scan=1 << 30)
    assert store.decoded.held_bytes == 0, "a part would be too large"
    do(store, *[records.lease_grant(i, 5) for i in range(1, 9)])
    for i in range(3 * PART):
        do(store, records.put(b"%d" % i, 0, 1, b"", 0))
    history(store, b"m", b"n", 2, max_scan=1 << 30)
    assert 0 < store.decoded.held_bytes < 3 * PART * 200


def test_a_large_revision_is_looked_at_once_however_small_the_slices(open_store: OpenStore) -> None:
    """Decoded anew for each slice, it took 18 s of CPU behind a delete of 300,000 keys."""
    store = open_store()
    for i in range(10):
        do(store, records.txn([records.put(b"%d/%d" % (i, j), 0, 1, b"", 0) for j in range(300)]))
    last = do(store, records.put(b"mine", 0, 1, b"", 0)).revision
    at, slices = 2, 0
    while at <= last:
        part = history(store, b"m", b"n", at, max_scan=256)
        at, slices = part.next_revision, slices + 1
    assert slices <= 21
    assert [event[2] for event in part.events] == [b"mine"]


def test_decoded_history_is_of_whole_revisions_and_of_one_state(open_store: OpenStore) -> None:
    store = open_store()
    for i in range(PART + 10):
        do(store, records.put(b"mine/%d" % i, 0, 1, b"", 0))
    for _ in range(2):
        assert len(history(store, b"mine/", b"mine0", 2).events) == PART + 10
    do(store, records.put(b"mine/more", 0, 1, b"", 0))
    assert [event[2] for event in history(store, b"mine/", b"mine0", PART).events][-1] == b"mine/more"
    assert len(history(store, b"mine/", b"mine0", 2).events) == PART + 11
    compact(store, 50)
    with pytest.raises(Compacted):
        history(store, b"mine/", b"mine0", 49)
    assert len(history(store, b"mine/", b"mine0", 50).events) == PART + 11 - 48
    store.show(store.database, store.path)
    assert len(history(store, b"mine/", b"mine0", 50).events) == PART + 11 - 48


def test_the_history_of_one_key_reads_only_its_own_rows(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"mine", 0, 1, b"", 0))
    for i in range(100):
        do(store, records.put(b"other/%d" % i, 0, 1, b"", 0))
    do(store, records.delete(b"mine"))
    found = history(store, b"mine", b"", 2, max_scan=1)
    assert [event[0] for event in found.events] == [2]
    assert found.next_revision == 103
    found = history(store, b"mine", b"", 103, max_scan=1, want_prev=True)
    assert [event[:2] for event in found.events] == [(103, 1)]


def test_history_of_the_future_is_empty(open_store: OpenStore) -> None:
    found = history(open_store(), *ALL, 77)
    assert (found.events, found.next_revision, found.applied_revision) == ([], 77, 1)


def test_previous_versions_end_at_the_compaction(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.put(b"a", 0, 1, b"1", 0), records.put(b"a", 2, 2, b"2", 0),
       records.put(b"a", 2, 3, b"3", 0))
    assert store.previous(b"a", 2) is None
    assert store.previous(b"a", 3) == wire.key_value(b"a", 2, 2, 1, b"1", 0)
    compact(store, 3)
    assert store.previous(b"a", 3) is None
    assert store.previous(b"a", 4) == wire.key_value(b"a", 2, 3, 2, b"2", 0)


# RocksDB, and the rest


def test_compactions_of_rocksdb_give_way_to_the_loop(tmp_path: Path) -> None:
    store = machine_on().open_state(
        str(tmp_path / "state"),
        block_cache_bytes=1 << 20,
        write_buffer_bytes=1 << 20,
        range_cache_bytes=1 << 20,
        shard=0,
    )
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        found[(thread / "comm").read_text().strip()] = os.getpriority(os.PRIO_PROCESS, int(thread.name))
    assert found["rocksdb:low"] == min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)
    assert found["rocksdb:high"] == os.getpriority(os.PRIO_PROCESS, 0)  # flushes free what writes wait for
    store.close()


def test_no_old_value_comes_to_light_while_a_deleted_key_is_compacted(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GRAIN, "compaction_chunk", 7)
    monkeypatch.setattr(GRAIN, "compaction_check", 1)  # a look after every removal
    monkeypatch.setattr(GRAIN, "compaction_take_check", 2)
    store = open_store()
    names = [b"k%d" % i for i in range(6)]
    for version in range(1, 5):
        for name in names:
            created = 0 if version == 1 else 2 + names.index(name)
            do(store, records.put(name, created, version, b"v%d" % version, 0))
    for name in names[::2]:
        do(store, records.delete(name))
    live = list(store.scan(*ALL))
    do(store, records.compact(store.revision - 1), records.put(b"z", 0, 1, b"", 0))
    steps = 0
    while not store.compaction_step(0):
        steps += 1
        assert list(store.scan(*ALL))[:-1] == live
        assert all(store.get(name) is None for name in names[::2])
    assert steps > 20
    # k2 was deleted at the very revision of the compaction: its tombstone stays for those who watch from
    # there
    assert [(key, kind) for key, _, kind in versions(store)][:-1] == [
        (b"k1", 0), (b"k2", 1), (b"k3", 0), (b"k4", 1), (b"k4", 0), (b"k5", 0)]


def test_alarms_are_raised_and_disarmed_and_survive_a_restart(open_store: OpenStore) -> None:
    store = open_store()
    assert do(store, records.alarm(True, 1, 7), records.alarm(True, 2, 9)).alarms
    assert store.revision == 1
    store.close()
    store = open_store()
    assert store.alarms() == [(7, 1), (9, 2)]
    assert do(store, records.alarm(False, 1, 7), records.alarm(False, 1, 8)).alarms
    assert store.alarms() == [(9, 2)]
