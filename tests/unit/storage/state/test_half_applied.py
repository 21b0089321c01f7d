"""A process that dies between two slices of an apply leaves rows above its position: nobody reads them before
they are applied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.grain import GRAIN
from node.storage import StateStore
from node.storage.keys import KEYS_END, MAX64, RUNS_END
from node.storage.state.changes.above import drop_above
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import do, received
from tests.unit.storage.state.test_attachments import MANY, filled, sliced


def rows(store: StateStore) -> list[bytes]:
    """The keys that a range at the newest revision answers with."""
    parts: list[bytes] = []
    splicer = store.reader().splicer(b"\0", b"\0", 1 << 30)
    while not splicer.more(parts, 1 << 30, 1 << 30)[2]:
        pass
    return parts[1::2]


def half_applied(store: StateStore) -> list[bytes]:
    """Some slices of a put and a delete of a span; what a range said before them."""
    before = rows(store)
    work = sliced(store, records.put(b"new", 0, 1, b"", 0))
    for _ in range(3):
        next(work)
    assert 2 * GRAIN.delete_slice_rows < MANY
    assert rows(store) == before  # while it lasts
    return before


@pytest.mark.parametrize("way", ["killed", "sent"])
def test_half_of_an_apply_is_not_seen_where_the_store_is_opened(
    open_store: OpenStore, tmp_path: Path, way: str
) -> None:
    store = filled(open_store())
    before = half_applied(store)
    store.flush()
    if way == "killed":
        shutil.copytree(store.root, tmp_path / "copy")
        other = StateStore.open(tmp_path / "copy")
    else:  # as a snapshot
        other = StateStore.open(tmp_path / "copy")
        sink = received(store, tmp_path / "outgoing", tmp_path / "copy")
        sink.finish()
        other.install(sink)
    assert rows(other) == before
    do(other, b"")  # a shorter run than the one that was cut off
    assert rows(other) == before
    for _ in sliced(other, records.put(b"new", 0, 1, b"", 0)):
        assert rows(other) == before
    assert len(rows(other)) == len(before) - MANY + 1
    assert not other.applying
    other.close()
    assert not StateStore.open(tmp_path / "copy").applying


def test_half_of_an_apply_goes_where_its_record_is_dropped(open_store: OpenStore, tmp_path: Path) -> None:
    """A record that takes many more revisions comes in its place, or the same one after all."""
    store = filled(open_store())
    before = half_applied(store)
    last = store.revision
    store.flush()
    shutil.copytree(store.root, tmp_path / "copy")
    other = StateStore.open(tmp_path / "copy")
    drop_above(other)
    assert not other.applying
    assert all(MAX64 - int.from_bytes(row[-13:-5], "big") <= last for row, _ in other.rows(b"k", KEYS_END))
    assert all(int.from_bytes(row[1:9], "big") <= last for row, _ in other.rows(b"r", RUNS_END))
    assert rows(other) == before
    other.close()
    again = StateStore.open(tmp_path / "copy")
    assert not again.applying
    for _ in sliced(again, records.put(b"new", 0, 1, b"", 0)):
        pass
    assert len(rows(again)) == len(before) - MANY + 1
    do(again, *(records.put(b"other", 0, 1, b"", 0) for _ in range(3)))
    assert len(rows(again)) == len(before) - MANY + 2
