"""Removes rows above the position: what an apply in slices that did not end has left on the disk.

They are masked until the position comes to their revisions, which the same records write again. Where these
records are dropped (``--force-new-cluster``), others get the revisions, and the old rows would be shown.
"""

from __future__ import annotations

from itertools import chain, islice

from rocksdict import WriteBatch

from node.storage import keys
from node.storage.keys import MAX64, RUN
from node.storage.state.versions import Versions

_AT_ONCE = 4_096  # rows in a batch


def drop_above(store: Versions) -> None:
    """For a store that no node runs; a flush makes it durable. The records may be applied again all the same.
    It walks all keys, 1 us a row. Raises StorageCorruption, SyncFailed."""
    if store.above > store.revision:
        oldest = (MAX64 - store.revision).to_bytes(8, "big")
        versions = (row for row, _ in store.rows(b"k", keys.KEYS_END) if row[-13:-5] < oldest)
        runs = (row for row, _ in store.rows(RUN.pack(b"r", store.revision + 1, 0), keys.RUNS_END))
        rows = chain(versions, runs)
        while some := list(islice(rows, _AT_ONCE)):
            batch = WriteBatch(raw_mode=True)
            for row in some:
                batch.delete(row)
            store.write(batch)
    batch = WriteBatch(raw_mode=True)
    batch.delete(keys.ABOVE_ROW)
    store.write(batch)
    store.above = 0
