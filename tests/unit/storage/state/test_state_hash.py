"""Hashes of the applied state: what they tell, and that they can be computed beside writes."""

from __future__ import annotations

import pytest
from rocksdict import WriteBatch

from cluster.effects import records
from cluster.wire.messages import HASH_OF_NOTHING
from node.storage.keys import LEASE_KEY
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import do, versions


@pytest.mark.parametrize(
    "other",
    [
        records.put(b"a", 0, 1, b"2", 0),
        records.put(b"b", 0, 1, b"1", 0),
        records.put(b"a", 0, 1, b"1", 5),
        records.put(b"a", 0, 1, b"1", 0) + records.lease_grant(6, 1),
        records.put(b"a", 0, 1, b"1", 0) + records.publish(b"\x08\x01"),
        records.put(b"a", 0, 1, b"1", 0) + records.compact(2),
    ],
)
def test_the_state_hash_tells_any_difference(open_store: OpenStore, other: bytes) -> None:
    """I19"""
    one, two, same = open_store("one"), open_store("two"), open_store("same")
    for store, data in (
        (one, records.put(b"a", 0, 1, b"1", 0)), (same, records.put(b"a", 0, 1, b"1", 0)), (two, other),
    ):
        do(store, records.lease_grant(5, 1))
        do(store, data)
    assert one.hash_state().run() == same.hash_state().run() != two.hash_state().run()
    assert one.hash_written().run() == same.hash_written().run() != two.hash_written().run()


@pytest.mark.parametrize("other", [records.incarnation(1, 2), records.lease_checkpoint(5, 9), b""])
def test_the_hash_of_what_was_written_leaves_out_what_replicas_note_by_themselves(
    open_store: OpenStore, other: bytes
) -> None:
    store = open_store()
    do(store, records.lease_grant(5, 60), records.put(b"a", 0, 1, b"1", 5))
    written, state = store.hash_written().run(), store.hash_state().run()
    index = store.position.shard_index
    store.apply([(index + 1, 2, other)], meta={"fold": b"another"})
    assert store.hash_written().run() == written
    assert store.hash_state().run() != state
    store.close()
    assert open_store().hash_written().run() == written


def test_a_store_of_which_no_version_counts_has_the_hash_of_nothing(open_store: OpenStore) -> None:
    """Fronts leave such a shard out of the hash of all."""
    store = open_store()
    assert store.hash_kv().run() == HASH_OF_NOTHING
    do(store, records.put(b"a", 0, 1, b"1", 0))
    assert store.hash_kv().run() != HASH_OF_NOTHING
    assert store.hash_kv(1).run() == HASH_OF_NOTHING


def test_the_state_hash_tells_a_key_that_hangs_on_its_lease_at_one_replica_only(
    open_store: OpenStore,
) -> None:
    """I19"""
    one, two = open_store("one"), open_store("two")
    for store in (one, two):
        do(
            store, records.lease_grant(5, 60), records.put(b"a", 0, 1, b"1", 5),
            records.put(b"b", 0, 1, b"1", 5),
        )
    batch = WriteBatch(raw_mode=True)
    batch.delete(LEASE_KEY.pack(b"l", 5) + b"a")
    two.write(batch)
    assert two.hash_kv().run() == one.hash_kv().run()
    assert two.hash_state().run() != one.hash_state().run()
    assert two.hash_written().run() != one.hash_written().run()


def test_a_row_of_a_key_that_left_its_lease_counts_in_no_hash(open_store: OpenStore) -> None:
    """It goes with a compaction, which each replica does in its own time."""
    one, two = open_store("one"), open_store("two")
    for store in (one, two):
        do(
            store, records.lease_grant(5, 60), records.put(b"a", 0, 1, b"1", 5),
            records.put(b"b", 0, 1, b"1", 5),
        )
        do(store, records.delete(b"a"), records.put(b"b", 3, 2, b"2", 0), records.compact(5))
    while not two.compaction_step(0):
        pass
    assert len(list(one.rows(b"l", b"m"))) == 2 > len(list(two.rows(b"l", b"m"))) == 0
    assert one.hash_state().run() == two.hash_state().run()
    assert one.hash_written().run() == two.hash_written().run()


def test_a_hash_can_be_computed_in_slices_while_writes_go_on(open_store: OpenStore) -> None:
    store = open_store()
    do(store, *(records.put(b"%d" % i, 0, 1, b"", 0) for i in range(1000)))
    value, whole = store.hash_kv().run(), store.hash_state().run()
    hashing, hashing_whole = store.hash_kv(), store.hash_state()
    steps = 0
    while not hashing.step(0) | hashing_whole.step(0):
        steps += 1
        do(store, records.put(b"more", 0 if steps == 1 else 1002, steps, b"", 0))
    while not hashing.step(0):
        pass
    while not hashing_whole.step(0):
        pass
    assert (hashing.value, hashing_whole.value) == (value, whole)
    assert steps > 5
    assert hashing.revision == 1001
    assert store.hash_kv(1001).run() == value != store.hash_kv().run()


def test_hash_kv_does_not_depend_on_how_far_a_compaction_is(open_store: OpenStore) -> None:
    one, two = open_store("one"), open_store("two")
    for store in (one, two):
        do(store, *(records.put(b"%d" % i, 0, 1, b"", 0) for i in range(100)))
        do(store, *(records.delete(b"%d" % i) for i in range(0, 100, 2)))
        do(store, records.compact(140))
    while not two.compaction_step(0):
        pass
    assert len(versions(two)) < len(versions(one))
    for revision in (0, 140, 145):
        assert one.hash_kv(revision).run() == two.hash_kv(revision).run()
    assert one.hash_state().run() == two.hash_state().run()
