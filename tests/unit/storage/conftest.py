"""Stores and logs in temporary directories, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.storage import StateStore

OpenStore = Callable[..., StateStore]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[OpenStore]:
    """Open a store, by default the one in ``state``; small buffers, so that tests meet files and levels."""
    stores: list[StateStore] = []

    def open_(name: str = "state", write_buffer_bytes: int = 1 << 20) -> StateStore:
        store = StateStore.open(
            tmp_path / name, block_cache_bytes=1 << 20, write_buffer_bytes=write_buffer_bytes
        )
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()
