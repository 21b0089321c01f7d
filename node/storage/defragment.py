"""Gives the file system back the space that the state no longer needs; an install does not wait for that."""

from __future__ import annotations

import threading
from contextlib import suppress

from rocksdict import Rdict

from node.storage.errors import SyncFailed


class Defragmenting:
    """Of one store, whose database an install may replace meanwhile. RocksDB closes none that is being
    compacted."""

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._closing: Rdict | None = None  # an install has replaced it

    def run(self, database: Rdict, path: str) -> None:
        """Long; for a helper thread. Raises SyncFailed."""
        with self._running:
            if self._closing is database:
                return
            try:
                database.compact_range(None, None)
            except Exception as e:
                if self._closing is not database:
                    raise SyncFailed(f"{path}: compacting failed: {e}") from e

    def close(self, database: Rdict) -> None:
        """Close a replaced database, at once even if it is being compacted."""
        self._closing = database
        if self._running.acquire(blocking=False):
            database.close()
        else:
            database.cancel_all_background(True)
            self._running.acquire()
            with suppress(Exception):  # it cannot flush any more, and closes with its last reader
                database.close()
        self._running.release()
