"""Reads at a revision: single keys, ranges, counts.

Every read is of one RocksDB snapshot and of one revision, so it can be done in slices while applies go on.
An iterator that ends early because of a damaged block looks like one that has come to its end: rocksdict's
``items()`` hides the difference. So everything here uses the plain iterator and asks for its ``status`` at
the end, else a flipped bit would be served as a missing key.

Hot path; figures in ``state``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from node.storage.errors import Compacted, FutureRevision, raise_read
from node.storage.keys import (
    INVERTED,
    MAX64,
    POSITION,
    POSITION_ROW,
    Position,
    escape,
    range_rows,
    unescape,
)
from node.storage.options import bounded

if TYPE_CHECKING:
    from node.storage.state import StateStore

_SKIP_ROWS = 8  # so many rows of one key are stepped over before a seek is cheaper
_COUNT_SLICE = 256


def check_revision(revision: int, position: Position) -> int:
    """The revision to read at: 0 is the latest. Raises Compacted or FutureRevision (I24)."""
    if revision <= 0:
        return position.revision
    if revision > position.revision:
        raise FutureRevision(position.revision)
    if revision < position.compact_revision:
        raise Compacted(position.compact_revision)
    return revision


def find(source: Any, path: str, key: bytes, revision: int) -> tuple[bytes, bytes] | None:
    """``(row key, value)`` of the newest version of ``key`` at or below ``revision``, tombstones too."""
    prefix = b"k" + escape(key)
    try:
        options = bounded(prefix + b"\0\x01")  # held: see there
        it = source.iter(options)
        it.seek(prefix + INVERTED.pack(0, MAX64 - revision))
        if it.valid():
            return it.key(), it.value()
        it.status()
    except Exception as e:
        raise_read(e, path, f"reading key {key!r}")
    return None


def scan_rows(source: Any, path: str, start: bytes, end: bytes, revision: int) -> Iterator[tuple[bytes, bytes]]:
    """The live keys of a range at a revision with their KeyValues, in key order; lazily, of one snapshot."""
    lower, upper = range_rows(start, end)
    if lower >= upper:
        return
    try:
        options = bounded(upper)  # held: see there
        it = source.iter(options)
        it.seek(lower)
        valid, row_key, row_value, step = it.valid, it.key, it.value, it.next
        oldest = (MAX64 - revision).to_bytes(8, "big")
        last = None
        skipped = 0
        while valid():
            row = row_key()
            escaped = row[1:-15]
            if escaped == last:  # an older version
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(b"k" + escaped + b"\0\x01")
                    skipped = 0
                else:
                    step()
                continue
            if row[-13:-5] < oldest:  # newer than the revision
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(b"k" + escaped + b"\0\0" + oldest)
                    skipped = 0
                else:
                    step()
                continue
            last = escaped
            skipped = 0
            if row[-1]:
                step()
                continue
            value = row_value()
            step()
            yield (unescape(escaped) if b"\0" in escaped else escaped), value
        it.status()
    except Exception as e:
        raise_read(e, path, f"reading range [{start!r}, {end!r})")


def count_rows(
    source: Any, path: str, start: bytes, end: bytes, revision: int, out_of_budget: Callable[[], bool]
) -> tuple[int, bytes | None]:
    """How many live keys a range has at a revision, without reading values: ``(count, None)``, or a partial
    count and the key to go on from. ``out_of_budget`` is asked every few hundred rows."""
    lower, upper = range_rows(start, end)
    if lower >= upper:
        return 0, None
    count = 0
    try:
        options = bounded(upper)  # held: see there
        it = source.iter(options)
        it.seek(lower)
        valid, row_key, step = it.valid, it.key, it.next
        oldest = (MAX64 - revision).to_bytes(8, "big")
        last = None
        skipped = rows = 0
        while valid():
            row = row_key()
            escaped = row[1:-15]
            rows += 1
            if escaped == last:
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(b"k" + escaped + b"\0\x01")
                    skipped = 0
                else:
                    step()
                continue
            if rows >= _COUNT_SLICE:
                rows = 0
                if out_of_budget():
                    return count, unescape(escaped)
            if row[-13:-5] < oldest:
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(b"k" + escaped + b"\0\0" + oldest)
                    skipped = 0
                else:
                    step()
                continue
            last = escaped
            skipped = 0
            if not row[-1]:
                count += 1
            step()
        it.status()
    except Exception as e:
        raise_read(e, path, f"counting range [{start!r}, {end!r})")
    return count, None


def position_of(source: Any, path: str) -> Position:
    """The position row of a database or snapshot; every database has one from its creation on."""
    try:
        row = source[POSITION_ROW]
    except Exception as e:
        raise_read(e, path, "reading the applied position")
    return Position(*POSITION.unpack(row))


class Reader:
    """A pinned revision: all its reads are of one RocksDB snapshot, however long they take.

    It keeps old files alive while it lives, so drop it when done.
    """

    __slots__ = ("path", "position", "revision", "snapshot")

    def __init__(self, store: StateStore, revision: int = 0) -> None:
        self.path = store.path
        self.snapshot = store.database.snapshot()
        # from the same snapshot as the data (H16)
        self.position = position_of(self.snapshot, self.path)
        self.revision = check_revision(revision, self.position)

    def get(self, key: bytes) -> bytes | None:
        """The KeyValue of a key, None if it is not there."""
        found = find(self.snapshot, self.path, key, self.revision)
        return None if found is None or found[0][-1] else found[1]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """``(key, KeyValue)`` of the live keys of a range, in key order. Take as many as fit a slice, go on later."""
        return scan_rows(self.snapshot, self.path, start, end, self.revision)

    def count(self, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        """``(count, None)``, or after ``budget_us`` a partial count and the start to go on from."""
        if budget_us <= 0:
            return count_rows(self.snapshot, self.path, start, end, self.revision, _never)
        deadline = time.perf_counter_ns() + budget_us * 1000
        return count_rows(
            self.snapshot, self.path, start, end, self.revision, lambda: time.perf_counter_ns() >= deadline
        )


def _never() -> bool:
    return False
