"""Removes rows of keys that left their lease.

A put does not look at the lease that its key had before, so such rows stay. A compaction removes them with
their versions; without compactions a long-lived lease would collect a row for every key that it ever had.

Each slice judges by the position that it finds; an apply that is under way puts its rows with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rocksdict import WriteBatch

from node.storage.errors import raise_read
from node.storage.keys import LEASE_KEY, lease_named
from node.storage.options import UNCACHED

if TYPE_CHECKING:
    from node.storage.state.store import StateStore

_TIME_CHECK = 16  # rows between two looks at the clock: about 100 us


def drop_stale_rows(store: StateStore, budget_us: int) -> Iterator[int]:
    """Slices of ``budget_us`` over all rows; each yields how many it removed. Raises StorageCorruption,
    SyncFailed."""
    path, row = store.path, b"l"
    while row and store.path == path:  # else a snapshot took its place
        deadline = time.perf_counter_ns() + budget_us * 1000
        batch = WriteBatch(raw_mode=True)
        try:
            row = _slice(store, row, batch, deadline)
        except Exception as e:
            raise_read(e, path, "looking for rows of keys that left their lease")
        removed = batch.len()
        if removed:
            store.write(batch)
        yield removed


def _slice(store: StateStore, row: bytes, batch: WriteBatch, deadline: int) -> bytes:
    """Where to go on; empty: that was all."""
    rows, versions, revision = store.database.iter(UNCACHED), store.database.iter(UNCACHED), store.revision
    seen = 0
    rows.seek(row)
    while rows.valid():
        row = rows.key()
        if row >= b"m":
            return b""
        if seen % _TIME_CHECK == 0 and seen and time.perf_counter_ns() >= deadline:
            return row
        key = row[LEASE_KEY.size :]
        if (lease_named(versions, key, revision) != LEASE_KEY.unpack_from(row)[1]
                # a copy may be newer than the position
                and not (store.owned is not None and store.owned.stages(key))):
            batch.delete(row)
        seen += 1
        rows.next()
    rows.status()
    return b""
