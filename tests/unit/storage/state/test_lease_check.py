"""The check of keys against leases: it passes on whatever was applied, and fires on every row that is
wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from rocksdict import WriteBatch

from cluster.effects import records
from node.storage import StateStore
from node.storage.keys import LEASE_KEY, LEASE_VALUE
from node.storage.state.changes.run import Run
from node.storage.state.slices.lease_check import Fault, LeaseCheck, check_leases
from node.storage.state.slices.stale_rows import drop_stale_rows
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import do
from tests.unit.storage.state.test_attachments import CHANGES, LEASE, filled, pauses, sliced
from tests.unit.storage.workload import stream


def checked(store: StateStore) -> LeaseCheck:
    work = check_leases(store, budget_us=0)
    while True:
        try:
            next(work)
        except StopIteration as done:
            check: LeaseCheck = done.value
            return check


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_nothing_in_what_was_applied_however_far_a_compaction_is(
    open_store: OpenStore, seed: int
) -> None:
    store = open_store()
    rng = random.Random(seed)
    attached = 0
    for number, record in zip(range(400), stream(seed), strict=False):
        store.apply([record])
        if rng.random() < 0.2:
            store.compaction_step(rng.choice([0, 100_000]))
        if number % 40 == 0:
            check = checked(store)
            assert not check.mismatches, check.examples
            attached += check.attached
            assert check.attached == sum(len(store.lease_keys(lease)) for lease in (1, 2, 3))
            assert check.keys == store.count(b"\0", b"\0")
    assert attached


def test_it_finds_nothing_between_two_slices_nor_after_a_crash_there(open_store: OpenStore) -> None:
    store = filled(open_store())
    for _ in pauses(sliced(store, *CHANGES)):
        store.compaction_step(100_000)
        assert not checked(store).mismatches
    assert not checked(store).mismatches
    broken = filled(open_store("broken"))
    work = sliced(broken, *CHANGES)
    next(work)
    next(work)
    work.close()
    broken.close()
    assert not checked(open_store("broken")).mismatches


def attaches_at_once(run: Run, lease: int, key: bytes) -> None:
    """A mutant: the row is written with the key's, above the position, where a compaction judges it by the
    position."""
    run.batch.put(LEASE_KEY.pack(b"l", lease) + key, b"")


def test_it_finds_what_a_compaction_between_two_slices_did(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "attach", attaches_at_once)
    store = filled(open_store())
    for _ in pauses(sliced(store, records.put(b"k", 0, 1, b"again", LEASE))):
        store.compaction_step(100_000)
    assert checked(store).examples == [(Fault.NOT_ATTACHED, LEASE, b"k")]


Damage = Callable[[WriteBatch], None]


@pytest.mark.parametrize(
    ("damage", "fault", "key"),
    [
        (lambda b: b.delete(LEASE_KEY.pack(b"l", 5) + b"live"), Fault.NOT_ATTACHED, b"live"),
        (lambda b: b.delete(LEASE_KEY.pack(b"l", 5) + b"zero\0"), Fault.NOT_ATTACHED, b"zero\0"),
        (lambda b: b.delete(LEASE_KEY.pack(b"L", 6)), Fault.NO_LEASE, b"other"),
        (lambda b: b.put(LEASE_KEY.pack(b"l", 5) + b"plain", b""), Fault.ROW_WITHOUT_VERSION, b"plain"),
        (lambda b: b.put(LEASE_KEY.pack(b"l", 5) + b"nowhere", b""), Fault.ROW_WITHOUT_VERSION, b"nowhere"),
        (lambda b: b.put(LEASE_KEY.pack(b"l", 9) + b"live", b""), Fault.ROW_WITHOUT_VERSION, b"live"),
    ],
)  # fmt: skip
def test_it_fires(open_store: OpenStore, damage: Damage, fault: Fault, key: bytes) -> None:
    store = open_store()
    do(
        store, records.lease_grant(5, 60), records.lease_grant(6, 60), records.put(b"live", 0, 1, b"", 5),
        records.put(b"zero\0", 0, 1, b"", 5), records.put(b"other", 0, 1, b"", 6),
        records.put(b"plain", 0, 1, b"", 0), records.put(b"left", 0, 1, b"", 5),
        records.put(b"moved", 0, 1, b"", 5),
    )
    do(store, records.delete(b"left"), records.put(b"moved", 7, 2, b"", 6))
    check = checked(store)
    assert (check.mismatches, check.keys, check.attached, check.rows) == (0, 5, 4, 6)
    batch = WriteBatch(raw_mode=True)
    damage(batch)
    store.write(batch)
    check = checked(store)
    assert check.mismatches
    assert (fault, key) in [(m.fault, m.key) for m in check.examples]


def test_a_row_of_a_lease_that_ended_is_stale_while_an_old_version_names_it(open_store: OpenStore) -> None:
    """Restores of older releases wrote such rows: nothing hangs on them."""
    store = open_store()
    do(store, records.lease_grant(5, 60), records.put(b"ended", 0, 1, b"", 5))
    do(store, records.lease_revoke(5, [b"ended"]))
    batch = WriteBatch(raw_mode=True)
    batch.put(LEASE_KEY.pack(b"l", 5) + b"ended", b"")
    store.write(batch)
    check = checked(store)
    assert (check.mismatches, check.rows, check.stale) == (0, 1, 1), check.examples
    assert sum(drop_stale_rows(store, 200)) == 1
    assert checked(store).rows == 0


def test_many_mismatches_are_counted_and_some_are_named(open_store: OpenStore) -> None:
    store = open_store()
    do(store, records.lease_grant(5, 60), *(records.put(b"%d" % n, 0, 1, b"", 5) for n in range(100)))
    batch = WriteBatch(raw_mode=True)
    for row, _ in store.rows(b"l", b"m"):
        batch.delete(row)
    store.write(batch)
    check = checked(store)
    assert (check.mismatches, len(check.examples)) == (100, 10)


def test_it_is_of_one_moment_and_a_slice_is_short(open_store: OpenStore) -> None:
    store = open_store(write_buffer_bytes=32 << 20)
    index = 0
    for turn in range(20):
        index += 1
        store.apply([(index, 1, b"".join([
            records.lease_grant(turn + 1, 60),
            *(records.put(b"%d/%04d" % (turn, n), 0, 1, b"x" * 100, turn + 1) for n in range(1000))]))])
    one = b"".join(
        records.put(b"one", store.revision + 1 if n else 0, n + 1, b"", n == 0) for n in range(5000)
    )
    store.apply([(index + 1, 1, one)])  # of its versions only the oldest names a lease
    check = LeaseCheck(store)
    took = []
    batch = WriteBatch(raw_mode=True)
    for row, _ in store.rows(b"L", b"M"):
        batch.put(row, LEASE_VALUE.pack(1, 1))
    for row, _ in store.rows(b"l", b"m"):
        batch.delete(row)
    store.write(batch)
    while True:
        began = time.thread_time()
        finished = check.step(200)
        took.append(time.thread_time() - began)
        if finished:
            break
    assert not check.mismatches, check.examples
    assert (check.keys, check.attached, check.rows) == (20_001, 20_000, 20_001)
    assert len(took) > 50
    assert sorted(took)[-3] < 0.005
    assert 1000 <= checked(store).mismatches < 1100
