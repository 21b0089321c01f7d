"""Keys and the leases that they hang on: the rows of both agree, whatever runs between two slices of an
apply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.features.auth.permissions import NOTHING, Ranges, interval
from cluster.grain import GRAIN
from node.storage import Applying, StateStore
from node.storage.state.changes import run
from node.storage.state.slices.lease_check import LeaseCheck
from node.storage.state.slices.stale_rows import drop_stale_rows
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import compact, do

MANY = 2 * GRAIN.delete_slice_rows + 9
LEASE, OTHER = 7, 8


def filled(store: StateStore) -> StateStore:
    """More keys than one slice deletes; ``k`` hung on a lease once, ``old`` still does."""
    do(store, records.lease_grant(LEASE, 60), records.lease_grant(OTHER, 60))
    do(store, *(records.put(b"/span/%06d" % n, 0, 1, b"", 0) for n in range(MANY)))
    do(
        store, records.put(b"k", 0, 1, b"first", LEASE), records.delete(b"k"),
        records.put(b"old", 0, 1, b"", OTHER),
    )
    do(store, records.compact(store.revision))
    return store


def sliced(store: StateStore, *items: bytes) -> Applying:
    """An apply of these items and then of a delete in slices."""
    index = store.position.shard_index + 1
    count = store.live_count(b"/span/", b"/span0")
    return store.apply_slices(
        [(index, 1, b"".join(items) + records.delete_range(b"/span/", b"/span0", count))]
    )


def pauses(work: Applying) -> Iterator[None]:
    """Every pause of it; it is through when there is none left."""
    for _ in work:
        yield


def test_a_compaction_between_two_slices_does_not_detach_a_key(open_store: OpenStore) -> None:
    """A key that is put in the run, and whose last version on the same lease is compacted meanwhile."""
    store = filled(open_store())
    seen = 0
    for _ in pauses(sliced(store, records.put(b"k", 0, 1, b"again", LEASE))):
        store.compaction_step(100_000)
        seen += 1
    assert seen > 2
    current = store.current(b"k")
    assert current is not None
    assert current.lease == LEASE
    assert store.lease_keys(LEASE) == [b"k"]
    do(store, records.lease_revoke(LEASE, store.lease_keys(LEASE)))
    assert store.get(b"k") is None


def unversioned(store: StateStore) -> tuple[object, ...]:
    """What has no revision: leases, attachments, members, alarms; and the hash of all."""
    return (
        sorted(store.leases()), store.lease_keys(LEASE), store.lease_keys(OTHER), store.members(),
        store.alarms(), store.incarnations(), [row for row, _ in store.rows(b"l", b"m")],
        store.hash_state().run(),
    )


CHANGES = (
    records.lease_revoke(OTHER, [b"old"]), records.lease_grant(9, 5), records.put(b"k", 0, 1, b"", 9),
    records.lease_checkpoint(LEASE, 3), records.publish(b"\x08\x01"), records.alarm(True, 1, 5),
    records.incarnation(3, 33),
)


def test_rows_without_a_revision_change_with_the_position(open_store: OpenStore) -> None:
    """Readers, hashes, checks and compactions between two slices meet all of them at the old position (I6,
    I19)."""
    store, whole = filled(open_store("sliced")), filled(open_store("whole"))
    before = unversioned(store)
    for _ in pauses(sliced(store, *CHANGES)):
        assert unversioned(store) == before
    for _ in pauses(sliced(whole, *CHANGES)):
        pass
    assert unversioned(store) == unversioned(whole) != before
    assert sorted(store.leases()) == [(LEASE, 60, 3), (9, 5, 0)]
    assert (store.lease_keys(9), store.lease_keys(OTHER)) == ([b"k"], [])
    # of 9, and of LEASE until a compaction
    assert [row[9:] for row, _ in store.rows(b"l", b"m")] == [b"k", b"k"]


def test_after_a_crash_between_two_slices_they_are_at_the_old_position(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store = filled(open_store())
    before = unversioned(store)
    work = sliced(store, *CHANGES)
    next(work)
    next(work)
    work.close()
    store.close()  # flushes what is there: rows above the position
    again = open_store()
    assert unversioned(again) == before
    for _ in pauses(sliced(again, *CHANGES)):
        again.compaction_step(1000)
    assert (again.lease_keys(9), again.lease_keys(OTHER)) == ([b"k"], [])


@pytest.mark.parametrize("long", [False, True])
def test_a_lease_may_end_and_begin_again_in_one_run(open_store: OpenStore, long: bool) -> None:
    store = filled(open_store())
    items = (
        records.put(b"k", 0, 1, b"", LEASE), records.lease_revoke(LEASE, [b"k"]),
        records.lease_revoke(OTHER, [b"old"]), records.lease_grant(OTHER, 30),
        records.put(b"new", 0, 1, b"", OTHER), records.put(b"old", 0, 1, b"", OTHER),
    )
    if long:
        for _ in pauses(sliced(store, *items)):
            pass
    else:
        do(store, *items)
    assert list(store.leases()) == [(OTHER, 30, 0)]
    assert [row[9:] for row, _ in store.rows(b"l", b"m")] == [b"new", b"old"]
    assert store.lease_keys(OTHER) == [b"new", b"old"]


def test_a_row_that_an_apply_puts_is_not_lost_to_the_removal_of_stale_ones(open_store: OpenStore) -> None:
    store = filled(open_store())
    assert list(store.attachment_rows(LEASE))
    assert sum(drop_stale_rows(store, 0)) == 1  # of ``k``
    removal = iter(())
    do(store, records.put(b"k", 0, 1, b"", LEASE), records.delete(b"k"))
    removed = 0
    for _ in pauses(sliced(store, records.put(b"k", 0, 1, b"again", LEASE))):
        removal = drop_stale_rows(store, 0)
        removed += next(removal)
    assert removed == 1
    assert sum(removal) == 0
    assert store.lease_keys(LEASE) == [b"k"]
    assert store.lease_keys(OTHER) == [b"old"]


def test_rows_of_keys_that_left_a_lease_go_with_a_compaction(open_store: OpenStore) -> None:
    """100,000 keys that came and went under one lease: what is left is of those that are there."""
    store = open_store(write_buffer_bytes=8 << 20)
    do(
        store, records.lease_grant(LEASE, 60), records.lease_grant(OTHER, 60),
        records.put(b"stays", 0, 1, b"", LEASE),
    )
    for turn in range(50):
        names = [b"/job/%03d/%04d" % (turn, n) for n in range(2000)]
        do(store, *(records.put(name, 0, 1, b"", LEASE) for name in names))
        if turn % 2:
            do(store, *(records.delete(name) for name in names))
        else:
            do(
                store,
                *(
                    records.put(name, store.revision - 1999 + n, 2, b"", OTHER if n == 0 else 0)
                    for n, name in enumerate(names)
                ),
            )
    compact(store, store.revision)
    assert [row[9:] for row, _ in store.rows(b"l", b"m") if row[8] == LEASE] == [b"stays"]
    assert len(list(store.rows(b"l", b"m"))) == 1 + 25


@pytest.mark.parametrize("compacts", [True, False])
def test_few_rows_go_in_the_turn_that_ends_a_large_lease(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, compacts: bool,
) -> None:
    """500,000 keys of 1 KB ended in parts, but the rows of all of them went in the last one's turn, 7 s."""
    store, whole = open_store("some"), open_store("whole")
    names = [b"/job/%06d/" % n + b"-" * 1000 for n in range(5000)]
    left = []
    for one in (store, whole):
        if one is whole:
            monkeypatch.setattr(run, "_ENDED_BYTES", 1 << 40)
        do(one, records.lease_grant(LEASE, 60), *(records.put(name, 0, 1, b"", LEASE) for name in names))
        do(one, records.txn([records.delete(name) for name in names[:4990]]))  # the parts before
        do(one, records.put(b"new", 0, 1, b"", LEASE), records.lease_revoke(LEASE, [*names[4990:], b"new"]))
        left.append([row[9:] for row in one.attachment_rows(LEASE)])
    monkeypatch.undo()
    stays = len(left[0])
    assert 3000 < stays < 3100
    assert not left[1]
    assert b"new" not in left[0], "it was attached in the same run"
    assert store.lease_keys(LEASE) == [key for key in store.attached(LEASE) if key] == []
    assert not any(store.leased_keys(NOTHING))
    with monkeypatch.context() as patch:  # as whoever judges a request about it asks; was 13 us for each row
        patch.setattr(store, "current", lambda key: pytest.fail(f"a row of a lease that has ended: {key!r}"))
        assert store.lease_keys(LEASE, 1, but=NOTHING) == []
    assert store.hash_state().run() == whole.hash_state().run()  # I19
    check = LeaseCheck(store)
    while not check.step(10**6):
        pass
    assert (check.mismatches, check.stale) == (0, stays)
    # the same ID again, with one of the keys that still have a row, and one that has none
    for one in (store, whole):
        do(one, records.lease_grant(LEASE, 60), records.put(names[4000], 0, 1, b"", LEASE),
           records.put(names[4001], 0, 1, b"", 0), records.put(names[0], 0, 1, b"", LEASE))
    assert store.lease_keys(LEASE) == [names[0], names[4000]]
    assert store.hash_state().run() == whole.hash_state().run()
    if compacts:
        compact(store, store.revision)
    else:
        assert sum(drop_stale_rows(store, 200)) == stays - 1
    assert [row[9:] for row in store.attachment_rows(LEASE)] == [names[0], names[4000]]
    do(store, records.lease_revoke(LEASE, store.lease_keys(LEASE)))
    assert [key for key, _ in store.scan(b"/job/", b"/job0")] == [names[4001]]
    assert not list(store.attachment_rows(LEASE))


def test_keys_on_any_lease_are_found_without_a_look_at_each_lease_or_key(open_store: OpenStore) -> None:
    store = open_store()
    do(store, *(records.lease_grant(lease, 60) for lease in range(1, 41)))
    for lease in range(1, 41, 4):  # most have none
        do(store, *(records.put(b"mine/%02d/%d" % (lease, n), 0, 1, b"", lease) for n in range(5)))
    mine = Ranges([interval(b"mine/", b"mine0")])
    assert not any(store.leased_keys(mine))
    assert sum(1 for _ in store.leased_keys(mine, 2)) <= 11, "a look at each of ten leases"
    assert sum(1 for _ in store.leased_keys(mine, 2)) >= 3, "but a pause now and then"
    do(store, records.put(b"a", 0, 1, b"", 9), records.put(b"z", 0, 1, b"", 40))
    do(store, records.put(b"stale", 0, 1, b"", 2), records.put(b"stale", 0, 2, b"", 0))
    assert [key for key in store.leased_keys(mine) if key] == [b"a", b"z"]
    every = [key for key in store.leased_keys(NOTHING) if key]
    assert sorted(every) == sorted(key for lease in range(1, 41) for key in store.lease_keys(lease))
