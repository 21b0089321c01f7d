"""Counters go on behind an install."""

from __future__ import annotations

from pathlib import Path

from node.storage import StateStore
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.snapshots.sending import receive, sent


def test_what_ranges_have_read_is_counted_on(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> None:
    store = open_store()
    blocks = store.blocks
    blocks.read_rows, blocks.taken_rows = 70, 30
    sink = receive(store, sent(donor, tmp_path, 4096))
    sink.finish()
    store.install(sink)
    assert store.blocks is not blocks
    assert (store.blocks.read_rows, store.blocks.taken_rows) == (70, 30)
