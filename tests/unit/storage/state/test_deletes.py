"""Deletes that are logged as a span and expanded by the store, in slices (D8)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.evaluate.steps import STEP_BYTES
from cluster.grain import GRAIN
from node.storage import Applied, Compacted, StateStore, StorageCorruption
from node.storage.keys import run_entries
from node.storage.state.changes import deletes
from node.storage.state.reads import PAUSE
from tests.unit.storage.state.stores import history

KEYS = 3 * GRAIN.delete_slice_rows + 17


def key(number: int) -> bytes:
    return b"/span/\0%06d" % number if number % 7 == 0 else b"/span/%06d" % number


def filled(path: Path, numbers: range = range(KEYS)) -> StateStore:
    """A store with some keys in the span, those before and after it, and one that was deleted and one
    overwritten."""
    store = StateStore.open(path)
    items = [records.put(key(n), 0, 1, b"v%d" % n, 0) for n in numbers]
    items += [records.put(b"/a", 0, 1, b"before", 0), records.put(b"/z", 0, 1, b"behind", 0)]
    store.apply([(1, 1, b"".join(items))])
    store.apply([(2, 1, records.put(key(numbers[1]), 3, 2, b"again", 0) + records.delete(key(numbers[2])))])
    while not store.counts.build_step():
        pass
    return store


def span(store: StateStore) -> bytes:
    return records.delete_range(b"/span/", b"/span0", store.live_count(b"/span/", b"/span0"))


def test_every_live_key_of_the_span_is_deleted_at_one_revision_with_its_event(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before, live = store.revision, [k for k, _ in store.scan(b"/span/", b"/span0")]
    applied = store.apply([(3, 1, span(store) + records.put(b"/after", 0, 1, b"x", 0))], want_events=True)
    assert store.revision == applied.revision == before + 2
    assert [(r, kind, k) for r, kind, k, _, _ in applied.events[:-1]] == [(before + 1, 1, k) for k in live]
    assert applied.events == sorted(applied.events, key=lambda e: (e[0], e[4], e[2]))
    assert list(store.scan(b"/span/", b"/span0")) == []
    assert [k for k, _ in store.scan(b"/span/", b"/span0", before)] == live
    assert [k for k, _ in store.scan(b"/", b"0")] == [b"/a", b"/after", b"/z"]
    assert store.live_count(b"/span/", b"/span0") == store.count(b"/span/", b"/span0") == 0
    assert store.live_count(b"\0", b"\0") == 3
    past = history(store, b"/span/", b"/span0", before + 1, max_events=10**6, max_scan=10**6).events
    assert [event[:4] for event in past] == [event[:4] for event in applied.events[:-1]]
    store.close()


def test_nothing_of_it_shows_before_it_is_through(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before, position, count = store.revision, store.position, store.live_count(b"/span/", b"/span0")
    rows = list(store.scan(b"/span/", b"/span0"))
    work = store.apply_slices([(3, 1, records.put(b"/new", 0, 1, b"n", 0) + span(store))], want_events=True)
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            applied: Applied = done.value
            break
        pauses += 1
        assert store.position == position
        assert list(store.scan(b"/span/", b"/span0")) == rows
        assert store.live_count(b"/span/", b"/span0") == count
        assert store.current(b"/new") is None
        assert store.get(key(5)) is not None
        assert store.current(key(5)) is not None
        assert history(store, b"\0", b"\0", before + 1).events == []
        assert not store.counts.build_step() or store.counts.ready
    assert pauses > 3
    assert applied.revision == store.revision == before + 2
    assert store.current(b"/new") is not None
    assert store.current(key(5)) is None
    assert store.get(b"/new") is not None
    assert store.get(key(5)) is None
    store.close()


def test_one_that_was_broken_off_is_done_again_and_leaves_the_same_rows(tmp_path: Path) -> None:
    whole = filled(tmp_path / "a")
    whole.apply([(3, 1, span(whole))])
    broken = filled(tmp_path / "b")
    record = span(broken)
    work = broken.apply_slices([(3, 1, record)])
    for _ in range(3):
        next(work)
    work.close()
    broken.close()  # flushes what is there: rows above the position
    again = StateStore.open(tmp_path / "b")
    assert again.position.order_index == 2
    assert again.count(b"/span/", b"/span0") == KEYS - 1
    again.apply([(3, 1, record)])
    hashes = []
    for store in (whole, again):
        hashing = store.hash_state()
        while not hashing.step(1000):
            pass
        hashes.append(hashing.value)
        store.close()
    assert hashes[0] == hashes[1]  # I19


def test_a_part_of_a_transaction_over_several_shards_begins_at_its_place(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = store.revision
    other = records.delete(b"/z")
    place = KEYS + 1000
    applied = store.apply_changes(
        [(before, span(store), 0, 5), (before, other, 0, place)], (3, 3, 1, before + 1), want_events=True)
    assert {event[4] for event in applied.events[:-1]} == {5}
    assert [event[2:5:2] for event in applied.events[-1:]] == [(b"/z", place)]
    assert store.live_count(b"\0", b"\0") == 1
    store.close()


def test_what_a_transaction_does_besides_it_is_applied_in_order(tmp_path: Path) -> None:
    """Only a delete to the end of the keys lets a put of the same keys into one transaction, as etcd's check
    has it."""
    store = filled(tmp_path)
    before, everything = store.revision, store.live_count(b"\0", b"\0")
    item = records.txn(
        [
            records.delete_range(b"\0", b"\0", everything), records.put(b"/a", 0, 1, b"new", 0),
            records.put(b"/n", 0, 1, b"n", 0),
        ]
    )
    store.apply([(3, 1, item)])
    assert store.revision == before + 1
    assert [k for k, _ in store.scan(b"\0", b"\0")] == [b"/a", b"/n"]
    assert store.live_count(b"\0", b"\0") == 2
    current = store.current(b"/a")
    assert current is not None
    assert current[:3] == (before + 1, before + 1, 1)
    store.close()


def test_it_survives_a_compaction(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.apply([(3, 1, span(store))])
    store.apply([(4, 1, records.put(key(5), 0, 1, b"anew", 0))])
    store.apply([(5, 1, records.compact(store.revision))])
    while not store.compaction_step(1000):
        pass
    assert [k for k, _ in store.scan(b"/span/", b"/span0")] == [key(5)]
    assert [e[2] for e in history(store, b"\0", b"\0", store.revision).events] == [key(5)]
    rows = [row for row, _ in store.rows(b"k", b"l")]
    assert len(rows) == 3  # every tombstone is gone
    store.close()


def test_a_span_that_holds_fewer_keys_than_this_replica_has_counted_ends_it(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.counts._counts[1] += 5  # as if the disk had lost five
    with pytest.raises(StorageCorruption, match="were counted"):
        store.apply([(3, 1, span(store))])
    store.close()


def test_a_leader_that_counted_wrongly_stops_no_replica(tmp_path: Path) -> None:
    store = filled(tmp_path)
    holds = store.live_count(b"/span/", b"/span0")
    applied = store.apply([(3, 1, records.delete_range(b"/span/", b"/span0", holds + 5))])
    assert applied.miscounted == [(b"/span/", holds + 5, holds)]
    assert store.live_count(b"/span/", b"/span0") == store.count(b"/span/", b"/span0") == 0
    store.close()


def test_a_slice_is_short(tmp_path: Path) -> None:
    store = filled(tmp_path, range(8 * GRAIN.delete_slice_rows))
    work = store.apply_slices([(3, 1, span(store))], want_events=True)
    took = []
    while True:
        began = time.thread_time()
        if next(work, None) is None:
            break
        took.append(time.thread_time() - began)
    assert sorted(took)[len(took) // 2] < 0.005
    store.close()


def test_a_read_of_a_span_whose_keys_are_gone_pauses_and_finds_what_is_left(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.apply([(3, 1, span(store))])
    store.apply([(4, 1, records.put(key(KEYS - 3), 0, 1, b"anew", 0))])
    reader = store.reader()
    rows = []
    pauses = 0
    for row in reader.scan(b"/span/", b"/span0", 100):
        if row is PAUSE:
            pauses += 1
            assert reader.get(b"/a") is not None  # another read of it in between
        else:
            rows.append(row)
    assert [k for k, _ in rows] == [key(KEYS - 3)]
    assert pauses >= KEYS // 100
    assert list(reader.scan(b"/span/", b"/span0")) == rows
    store.close()


def test_its_revision_is_read_out_of_history_with_pauses_and_not_past_a_compaction(tmp_path: Path) -> None:
    store = filled(tmp_path)
    applied = store.apply([(3, 1, span(store))], want_events=True)
    wanted = {"max_events": 10, "max_bytes": 1 << 20, "want_prev": True, "max_scan": 50}
    slices = store.history_slices(b"/span/", b"/span0", applied.revision, **wanted)
    pauses = 0
    while True:
        try:
            next(slices)
        except StopIteration as done:
            found = done.value
            break
        pauses += 1
        if pauses == 5:
            store.apply([(4, 1, records.put(b"/later", 0, 1, b"x", 0))])
    assert pauses >= KEYS // 50 - 1
    assert [event[:4] for event in found.events] == [event[:4] for event in applied.events]
    assert found.next_revision == applied.revision + 1
    slices = store.history_slices(b"/span/", b"/span0", applied.revision, **wanted)
    next(slices)
    store.apply([(5, 1, records.compact(applied.revision + 1))])
    with pytest.raises(Compacted):
        next(slices)  # H16
    store.close()


MANY = 3000


def lease_of(store: StateStore, keys: int) -> None:
    """Lease 7 with so many keys, and one that has left it."""
    put = [records.put(b"k%05d" % n, 0, 1, b"v", 7) for n in range(keys)]
    store.apply(
        [(1, 1, records.lease_grant(7, 60) + b"".join(put) + records.put(b"k00001", 3, 2, b"left", 0))]
    )


def everything(store: StateStore) -> list[tuple[bytes, bytes]]:
    return list(store.rows(b"", b"\xff" * 8))


def revoke() -> bytes:
    return records.lease_revoke(7, [b"k%05d" % n for n in range(MANY) if n != 1])


def transaction() -> bytes:
    return records.txn(
        [
            records.put(b"n%05d" % n, 0, 1, b"v", 7) if n % 2 else records.delete(b"k%05d" % n)
            for n in range(MANY)
        ]
    )


def parts_of(changes: bytes, most: int) -> list[tuple[int, bytes]]:
    """Cut up into parts of so many: the place of the first, and them."""
    found = [changes[at - records.ITEM.size : to] for _, at, to in records.items(changes)]
    return [(at, b"".join(found[at : at + most])) for at in range(0, len(found), most)]


@pytest.mark.parametrize("item", [revoke, transaction], ids=["lease", "transaction"])
@pytest.mark.parametrize("part", [0, MANY, 3], ids=["record", "part of a multi", "very many parts"])
def test_an_effect_of_very_many_changes_is_applied_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: Callable[[], bytes], part: int,
) -> None:
    """The end of a lease of 20,000 keys held each replica's loop for 0.27 s, a transaction of 9,216 puts over
    two shards for 60 ms: the same rows, events and counts as in one go. ``part``: changes of a part."""
    if part and item is revoke:
        data = b"".join(records.delete(b"k%05d" % n) for n in range(MANY) if n != 1)
    else:
        data = item()[records.ITEM.size :] if part else item() + records.put(b"z", 0, 1, b"after", 0)
    found = []
    for many in (deletes._MANY, 10**9):
        monkeypatch.setattr(deletes, "_MANY", many)
        store = StateStore.open(tmp_path / str(many))
        lease_of(store, MANY)
        before, rows = store.revision, list(store.scan(b"k", b"l"))
        while not store.counts.build_step():
            pass
        if part:
            work = store.apply_changes_slices(
                [(before, piece, 0, 5 + sub) for sub, piece in parts_of(data, part)], (2, 2, 1, before + 1),
                want_events=True)
        else:
            work = store.apply_slices([(2, 1, data)], want_events=True)
        events, steps = [], 0
        try:
            while True:
                some = next(work)
                steps += 1
                most = many if part == 3 and steps == 1 else GRAIN.delete_slice_rows
                assert len(some) <= most + part % MANY
                events += some
                assert (store.revision, list(store.scan(b"k", b"l"))) == (before, rows)
        except StopIteration as ended:
            events += ended.value.events
            leases = ended.value.leases
        assert steps > 5 if many < MANY else not steps
        past = history(store, b"\0", b"\0", before + 1, max_events=10**6, max_scan=10**6).events
        found.append(
            (
                everything(store), past, events, leases, store.live_count(b"\0", b"\0"), store.revision,
                store.lease_keys(7),
            )
        )
        store.close()
    (sliced_rows, *sliced), (whole_rows, *whole) = found
    assert sliced == whole
    assert [row for row in sliced_rows if row[0][:1] != b"r"] == [
        row for row in whole_rows if row[0][:1] != b"r"
    ]


@pytest.mark.parametrize("how", ["span", "named"])
def test_a_slice_holds_few_bytes_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """256 keys of 1 MB each went in one: 1.3 GB in one turn of each replica."""
    monkeypatch.setattr(deletes, "_MANY", 10)
    names = [b"k%03d" % n + bytes(40_000 * (n % 3)) for n in range(60)] + [b"l" + bytes(600_000)]
    store = StateStore.open(tmp_path)
    store.apply([(1, 1, b"".join(records.put(name, 0, 1, b"v", 0) for name in names))])
    before = store.revision
    data = (records.delete_range(b"k", b"m", len(names)) if how == "span"
            else records.txn([records.delete(name) for name in names]))
    work = store.apply_slices([(2, 1, data)], want_events=True)
    gone: list[bytes] = []
    try:
        while True:
            some = [event[2] for event in next(work)]
            assert sum(map(len, some[:-1])) < STEP_BYTES
            gone += some
    except StopIteration as ended:
        some = [event[2] for event in ended.value.events]
        assert sum(map(len, some[:-1])) < STEP_BYTES
        gone += some
    assert gone == names
    assert store.revision == before + 1
    assert store.live_count(b"\0", b"\0") == 0
    past = history(store, b"\0", b"\0", before + 1, max_events=10**6, max_scan=10**6).events
    assert [event[2] for event in past] == names
    store.close()


@pytest.mark.parametrize("how", ["lease", "transaction", "part of a multi", "very many parts"])
def test_few_changes_of_long_keys_are_applied_in_slices_too(tmp_path: Path, how: str) -> None:
    """Only their number was looked at: the end of a lease of 32 keys of 1 MB held each replica for 0.3 s."""
    names = [b"k%03d" % n + bytes(33_000) for n in range(200)]
    store = StateStore.open(tmp_path)
    store.apply([(1, 1, b"".join(records.put(name, 0, 1, b"v", 7) for name in names))])
    before = store.revision
    deletes_of = [records.delete(name) for name in names]
    if how == "lease":
        work = store.apply_slices([(2, 1, records.lease_revoke(7, names))], want_events=True)
    elif how == "transaction":
        work = store.apply_slices([(2, 1, records.txn(deletes_of))], want_events=True)
    else:
        parts = parts_of(b"".join(deletes_of), 3 if how == "very many parts" else len(names))
        work = store.apply_changes_slices(
            [(before, piece, 0, sub) for sub, piece in parts], (2, 2, 1, before + 1), want_events=True)
    slices = []
    try:
        while True:
            slices.append([event[2] for event in next(work)])
            assert store.revision == before
    except StopIteration as ended:
        slices.append([event[2] for event in ended.value.events])
    assert [name for some in slices for name in some] == names
    sizes = [sum(map(len, some)) for some in slices]
    assert sizes[0] < (4 << 20 if how == "very many parts" else STEP_BYTES) + 100_000
    assert max(sizes[1:]) < STEP_BYTES + 100_000
    assert store.revision == before + 1
    assert store.live_count(b"\0", b"\0") == 0
    store.close()


@pytest.mark.parametrize("puts", [3, MANY])
def test_a_span_where_none_may_be_ends_the_apply(tmp_path: Path, puts: int) -> None:
    body = b"".join(records.put(b"n%05d" % n, 0, 1, b"v", 0) for n in range(puts))
    body += records.delete_range(b"k", b"l", 0)
    store = StateStore.open(tmp_path)
    with pytest.raises(ValueError, match="inside a transaction"):
        store.apply([(1, 1, records.ITEM.pack(records.Item.TXN, len(body)) + body)])
    store.close()


def test_what_follows_a_span_and_puts_in_one_record_is_found_in_history_and_by_a_compaction(
    tmp_path: Path,
) -> None:
    """Its change was noted at a revision far ahead: watches missed it, and a compaction left what it had
    superseded, which came to light again once the key was deleted."""
    store = filled(tmp_path)
    before = store.revision
    long = records.txn(
        [records.delete_range(b"/span/", b"/span0", KEYS - 1), records.put(b"/n", 0, 1, b"n", 0)]
    )
    store.apply([(3, 1, long + records.put(b"/a", store.current(b"/a").create, 2, b"anew", 0))])  # type: ignore[union-attr]
    assert store.revision == before + 2
    noted = [change for row, run in store.rows(b"r", b"s") for change in run_entries(row, run)]
    assert [(revision, k) for revision, _, _, k in noted][-2:] == [(before + 1, b"/n"), (before + 2, b"/a")]
    assert [e[2] for e in history(store, b"/a", b"", before + 2).events] == [b"/a"]
    store.apply([(4, 1, records.delete(b"/a"))])
    store.apply([(5, 1, records.put(b"/n", before + 1, 2, b"again", 0) + records.compact(before + 4))])
    while not store.compaction_step(1000):
        pass
    assert store.get(b"/a") is None
    assert not [row for row, _ in store.rows(b"k/a\0\0", b"k/a\0\1")]
    store.close()
