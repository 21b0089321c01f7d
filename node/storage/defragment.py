"""Gives the file system back the space that the state no longer needs; an install does not wait for that."""

from __future__ import annotations

import threading
from contextlib import suppress

from rocksdict import Rdict

from node.storage.directory import free_bytes
from node.storage.errors import Filled, NoRoom, is_damage, raise_write


def left_bytes(database: Rdict, dropped: float) -> tuple[int, int]:
    """An estimate of what compacting all files leaves: a deletion, which takes no space, drops so many rows
    of the others' size. And how many deletions there are."""
    files = database.live_files()
    deletions: int = sum(file["num_deletions"] for file in files)
    rows: int = sum(file["num_entries"] for file in files) - deletions
    share = max(rows - deletions * dropped, 0) / max(rows, 1)
    return int(sum(file["size"] for file in files) * share), deletions


def room(database: Rdict) -> int:
    """Bytes that compacting all of it may need: old files stay until new ones are there. A deleted key may
    leave two deletions for one row: of its value, and of its tombstone, which a flush has dropped."""
    return left_bytes(database, 0.5)[0] + 2 * _property(database, "cur-size-all-mem-tables")


def check_room(needed: int, path: str, spare_bytes: int, hosts: int = 1) -> None:
    """Raises NoRoom if the disk has less for each of the ``hosts``: RocksDB would fill it before it gives up.
    ``spare_bytes`` of it, or a quarter of what is free, are left to others: on a disk that is short, to
    rewrite is the way out."""
    free = free_bytes(path)
    if needed * hosts > free - (kept := min(spare_bytes, free // 4)):
        raise NoRoom(
            f"defragmenting may need {needed} bytes of the disk"
            + (f" for each of {hosts} hosts" if hosts > 1 else "") + f", and {free} are free"
            + (f", of which {kept} have to stay so" if kept else ""))


def _property(database: Rdict, name: str) -> int:
    return database.property_int_value(f"rocksdb.{name}") or 0


class Defragmenting:
    """Of one store, whose database an install may replace meanwhile. RocksDB closes none that is being
    compacted."""

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._closing: Rdict | None = None  # an install replaces it

    def run(self, database: Rdict, path: str) -> None:
        """Long; for a helper thread. Raises SyncFailed, StorageCorruption, Filled."""
        with self._running:
            if self._closing is database:
                return
            failures = _property(database, "background-errors")
            try:
                database.compact_range(None, None)
            except Exception as e:
                if self._closing is not database:
                    raise_write(e, path, "compacting")
            # its own error is lost on the way here; from damage on, RocksDB refuses all that is written
            if self._closing is not database and _property(database, "background-errors") > failures:
                try:
                    database.flush(True)
                except Exception as e:
                    if self._closing is database:
                        return
                    if is_damage(e):
                        raise_write(e, path, "compacting")
                raise Filled("defragmenting failed: the disk may be full, RocksDB's LOG has the reason")

    def replaces(self, database: Rdict) -> None:
        """An install begins that replaces it: from now on its errors are nobody's."""
        self._closing = database

    def stop(self, database: Rdict) -> None:
        """It is to close, and all of it is flushed: close it now where it is being compacted."""
        self._closing = database
        if self._running.locked():
            self.close(database)

    def close(self, database: Rdict) -> None:
        """Close it, at once even if it is being compacted."""
        if not self._running.acquire(blocking=False):
            database.cancel_all_background(True)
            self._running.acquire()
        with suppress(Exception):  # damaged or ended, it cannot flush: it closes with its last reader
            database.close()
        self._running.release()
