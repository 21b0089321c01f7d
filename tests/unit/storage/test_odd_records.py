"""Whatever a log holds, replicas that apply it end alike, and what follows applies (decision 54)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from cluster.effects import records
from cluster.effects.newer import NewerRecord
from cluster.faults import faults
from cluster.order.log import ENTRY_ITEMS, Change, Cut, Entries, Fold, encode_cut, entry, project
from cluster.order.sound import Place, sound
from cluster.raft import Entry, EntryKind
from node.replica.applying import one_run
from node.storage import StateStore
from tests.unit.odd_records import odd_records

VALID = records.put(b"valid", 0, 1, b"v", 0)
MANY_SHARDS = records.bootstrap(1, 0x80000000, 24)
MANY_REVISIONS = encode_cut({0: Cut(3, 1, (1 << 64) - 1), 2: Cut(5, 1, 9)})


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """What is skipped is a fault of the program, which these tests are about."""
    yield
    faults.take()


def opened(path: Path) -> StateStore:
    return StateStore.open(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)


def hashes(store: StateStore) -> tuple[object, ...]:
    return store.position, store.hash_state().run(), sorted(store.leases()), store.alarms(), store.bootstrap()


def entries(datas: list[bytes]) -> list[Entry]:
    return [Entry(index, 1, EntryKind.RECORD, data) for index, data in enumerate(datas, 1)]


@settings(max_examples=60)
@given(st.lists(odd_records, min_size=1, max_size=4))
@example([MANY_SHARDS, records.compact(1)])
def test_replicas_of_a_lone_shard_end_alike_whatever_they_apply_together(datas: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, other = opened(Path(folder) / "one"), opened(Path(folder) / "other")
        try:
            revision = 0
            for run in [one_run([e]) for e in entries([*datas, VALID])]:
                revision = one.revision
                one.apply(run)
            other.apply(one_run(entries([*datas, VALID])), want_events=True)
            assert one.get(b"valid") is not None
            assert (one.revision, hashes(one)) == (revision + 1, hashes(other))
        except NewerRecord:
            reject()
        except AssertionError as e:
            if str(e)[:3] not in ("I22", "C4:"):
                raise
            reject()  # it contradicts what went before it, which ends the node
        finally:
            one.close()
            other.close()


@settings(max_examples=60)
@given(odd_records, odd_records)
@example(b"", MANY_REVISIONS)
def test_replicas_of_a_shard_end_alike_whatever_its_entries_and_the_order_hold(
    items: bytes, ordered: bytes
) -> None:
    """An odd entry of shard 1, put in order between odd order records, and a valid one behind it."""
    shard = 1
    try:
        kept = sound(entry(0, items), Place.ENTRY, ENTRY_ITEMS)
        grown = Fold(1)  # as many revisions as its leader counts for it
        grown.take(kept[ENTRY_ITEMS:], 0)
        count = grown.revision - 1
        order = [sound(ordered, Place.ORDER), encode_cut({shard: Cut(1, 1, count)}),
                 encode_cut({shard: Cut(2, 1, count + 1)})]
    except NewerRecord:
        reject()
    with tempfile.TemporaryDirectory() as folder:
        one, other = opened(Path(folder) / "one"), opened(Path(folder) / "other")
        try:
            for store, together in ((one, False), (other, True)):
                fold, changes = Fold(1), []
                for index, record in enumerate(order, 1):
                    for step in fold.take(project(record, shard), shard):
                        if isinstance(step, Entries):
                            found = entry(0, VALID) if index == 3 else kept
                            changes.append((step.revision, found, ENTRY_ITEMS, -1))
                        elif isinstance(step, Change):
                            changes.append((step.revision, step.items, 0, step.sub))
                        else:
                            changes.append((step.revision, step.item, 0, -1))
                    if not together or index == len(order):
                        store.apply_changes(changes, (index, index, 1, fold.revision))
                        changes = []
            assert one.get(b"valid") is not None
            assert hashes(one) == hashes(other)
        except AssertionError as e:
            if str(e)[:3] not in ("I22", "I4:", "I5:", "I10"):
                raise
            reject()  # an odd cut may count fewer revisions than its entries have (I5)
        finally:
            one.close()
            other.close()


def test_a_compaction_of_the_future_is_skipped(tmp_path: Path) -> None:
    """It was a ValueError: every replica ended, at every start again."""
    store = opened(tmp_path / "s")
    before = faults.count
    applied = store.apply([(1, 1, records.compact(1 << 62) + VALID)])
    assert (store.compact_revision, applied.compacted) == (0, None)
    assert (store.revision, faults.count) == (2, before + 1)
    store.close()


def test_the_first_layout_counts(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store.apply([(1, 1, records.bootstrap(1, 3, 1))])
    applied = store.apply([(2, 1, records.bootstrap(1, 5, 1))])
    assert (store.bootstrap(), applied.bootstrap) == ((1, 3, 1), None)
    store.close()
