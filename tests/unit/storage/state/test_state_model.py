"""node.storage.StateStore against a naive model: every read, at every revision, after everything."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from node.storage import Compacted, FutureRevision, StateStore
from tests.unit.storage.model import Model
from tests.unit.storage.state.stores import history

# Keys that test the escaping and the bounds: prefixes of each other, zero bytes, 0xff
KEYS = [b"a", b"a\0", b"a\0\0", b"a\0\xff", b"a\x01", b"a\xff", b"a\xff\xff", b"ab", b"b", b"\0", b"\0\0",
        b"\xff", b"\xff" * 9, b"k/1"]
ENDS = [b"", b"\0", *KEYS]
keys = st.sampled_from(KEYS)
values = st.binary(max_size=200)
leases = st.sampled_from([0, 0, 1, 2, -3, 2**62])


def put_within(key: bytes, value: bytes, lease: int) -> tuple[str, list[tuple[str, bytes, bytes, int]]]:
    """A transaction that deletes a key, puts it, and deletes it again."""
    return "txn", [("delete", key, b"", 0), ("put", key, value, lease), ("delete", key, b"", 0)]


operation = st.one_of(
    st.tuples(st.just("put"), keys, values, leases),
    st.tuples(st.just("put"), keys, values, leases),
    st.tuples(st.just("delete"), keys),
    st.tuples(
        st.just("txn"),
        st.lists(st.tuples(st.sampled_from(["put", "delete"]), keys, values, leases), max_size=6),
    ),
    st.builds(put_within, keys, values, leases),
    st.tuples(st.just("grant"), leases.filter(bool), st.integers(1, 1000)),
    st.tuples(st.just("checkpoint"), leases.filter(bool), st.integers(0, 1000)),
    st.tuples(st.just("revoke"), leases.filter(bool)),
    st.tuples(st.just("compact_back"), st.integers(0, 8)),
)
what_next = st.sampled_from(
    ["item", "item", "item", "record", "record", "apply", "flush", "reopen", "step", "all steps"])
script = st.lists(st.tuples(operation, what_next), max_size=60)


def run(  # type: ignore[no-untyped-def]
    store: StateStore, model: Model, steps: list, reopen  # type: ignore[type-arg]
) -> StateStore:
    """Drive store and model alike; records and apply runs are cut where the script says."""
    items: list[bytes] = []
    records: list[tuple[int, int, bytes]] = []
    index = store.position.shard_index

    def end_record() -> None:
        nonlocal index
        index += 1
        records.append((index, 1 + index // 7, b"".join(items)))
        items.clear()

    def apply() -> None:
        if items:
            end_record()
        if records:
            store.apply(records)
            records.clear()

    for (name, *arguments), then in steps:
        if name == "compact_back":
            item = model.compact(model.revision - arguments[0])
        else:
            item = getattr(model, name)(*arguments)
        if item:
            items.append(item)
        if then == "record":
            end_record()
        elif then == "apply":
            apply()
        elif then == "flush":
            apply()
            store.flush()
        elif then == "reopen":
            apply()
            store.flush()
            store = reopen(store)
        elif then == "step":
            store.compaction_step(0)
        elif then == "all steps":
            while not store.compaction_step(0):
                pass
        if then not in ("item", "record"):
            apply()
            for key in KEYS[:4]:
                assert_current(store, model, key)
    apply()
    return store


def assert_current(store: StateStore, model: Model, key: bytes) -> None:
    found = store.current(key)
    version = model.at(key, model.revision)
    expected = (version.create, version.revision, version.version, version.lease) if version else None
    assert (tuple(found) if found is not None else None) == expected


def assert_same(store: StateStore, model: Model) -> None:
    position = store.position
    assert (position.revision, position.compact_revision) == (model.revision, model.compact_revision)
    for key in KEYS:
        assert_current(store, model, key)
        assert_current(store, model, key)  # now from the cache
    for revision in range(max(1, model.compact_revision), model.revision + 1):
        reader = store.reader(revision)
        for start in KEYS:
            for end in ENDS:
                expected = model.scan(start, end, revision)
                assert list(reader.scan(start, end)) == expected
                assert reader.count(start, end) == (len(expected), None)
            version = model.at(start, revision)
            assert store.get(start, revision) == (version.kv(start) if version else None)
    for revision in (model.revision + 1, model.revision + 100):
        with pytest.raises(FutureRevision):
            store.reader(revision)
    if model.compact_revision > 1:
        with pytest.raises(Compacted):
            store.get(b"a", model.compact_revision - 1)
        with pytest.raises(Compacted):
            history(store, b"\0", b"\0", model.compact_revision - 1)
    for start, end in ((b"\0", b"\0"), (b"a", b""), (b"a\0", b"ab"), (b"b", b"a"), (b"\xff", b"\0")):
        for revision in range(max(1, model.compact_revision), model.revision + 2):
            assert_history(store, model, start, end, revision)
    for lease in (1, 2, -3, 2**62):
        assert store.lease(lease) == model.leases.get(lease)
        assert store.lease_keys(lease) == model.lease_keys(lease)
        assert store.lease_keys(lease, 1) == model.lease_keys(lease)[:1]
    assert {lease: rest for lease, *rest in store.leases()} == {k: list(v) for k, v in model.leases.items()}


def assert_history(store: StateStore, model: Model, start: bytes, end: bytes, revision: int) -> None:
    whole = history(store, start, end, revision, want_prev=True)
    assert whole.events == model.history(start, end, revision)
    assert whole.next_revision == max(model.revision + 1, revision)
    # the same in the smallest slices: whole revisions, no gap, no repeat
    slices = []
    at = revision
    while at <= model.revision:
        piece = history(store, start, end, at, max_events=1, max_scan=1, want_prev=True)
        assert piece.next_revision > at
        assert all(at <= event[0] < piece.next_revision for event in piece.events)
        slices += piece.events
        at = piece.next_revision
    assert slices == whole.events


@settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script)
@example([(put_within(b"a", b"x", 0), "apply"), (("compact_back", 0), "item")])
@example([
    (("put", b"a", b"", 0), "item"), (("txn", [("delete", b"a", b"", 0), ("put", b"a", b"x", 0)]), "record"),
    (("compact_back", 0), "item")])
def test_every_read_at_every_revision_agrees_with_the_model(steps) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as path:

        def reopen(store: StateStore) -> StateStore:
            store.close()
            return StateStore.open(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)

        store = StateStore.open(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
        model = Model()
        try:
            store = run(store, model, steps, reopen)
            assert_same(store, model)
            before = store.hash_kv().run(), store.hash_state().run()
            while not store.compaction_step(0):
                pass
            assert_same(store, model)  # reads do not see whether a compaction has removed anything
            assert (store.hash_kv().run(), store.hash_state().run()) == before
            store.flush()
            store = reopen(store)
            assert_same(store, model)
        finally:
            store.close()
