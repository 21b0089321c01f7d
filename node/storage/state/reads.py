"""Reads at a revision: single keys, ranges, counts.

An iterator of RocksDB shows what there was when it was made, however long it lives. That, not rocksdict's
``Snapshot`` (whose iterators show the present), is what pins a read that is done in slices while applies and
compactions go on: see :class:`Reader`.

An iterator that ends early because of a damaged block looks like one that has come to its end: rocksdict's
``items()`` hides the difference. So everything here uses the plain iterator and asks for its ``status`` at
the end, else a flipped bit would be served as a missing key.

Hot path; figures in ``state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import TYPE_CHECKING

from rocksdict import Rdict

from cluster.evaluate.reading.ranges import row_tags
from cluster.evaluate.reading.row_parts import sizes_of
from node.storage.errors import Compacted, FutureRevision, StorageCorruption, raise_read
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
from node.storage.options import ALL_KEYS, bounded
from node.storage.state.blocks import BlockRows

if TYPE_CHECKING:
    from node.storage.state.store import StateStore

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


def find(database: Rdict, path: str, key: bytes, revision: int) -> tuple[bytes, bytes] | None:
    """``(row key, value)`` of the newest version of ``key`` at or below ``revision``, tombstones too."""
    prefix = b"k" + escape(key)
    try:
        options = bounded(prefix + b"\0\x01")  # held: see there
        it = database.iter(options)
        it.seek(prefix + INVERTED.pack(0, MAX64 - revision))
        if it.valid():
            return it.key(), it.value()
        it.status()
    except Exception as e:
        raise_read(e, path, f"reading key {key!r}")
    return None


class Cursor:
    """An iterator over the version rows, and who used it last."""

    __slots__ = ("iterator", "moved", "options", "path")

    def __init__(self, database: Rdict, path: str, upper: bytes = b"") -> None:
        self.path = path
        self.moved = 0  # counts uses: a scan that is interrupted by another read finds its place again
        self.options = bounded(upper) if upper else ALL_KEYS  # held: see there
        try:
            self.iterator = database.iter(self.options)
        except Exception as e:
            raise_read(e, path, "opening an iterator")


PAUSE = (b"", b"")  # no row: a key is never empty


def scan_rows(
    cursor: Cursor, start: bytes, end: bytes, revision: int, look: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """The live keys of a range at a revision with their KeyValues, in key order.

    ``look`` > 0: whenever so many rows were passed over (deleted keys, newer versions) that very PAUSE is
    given, so that others are served while a range is read whose million keys were deleted.
    """
    lower, upper = range_rows(start, end)
    if lower >= upper:
        return
    try:
        it = cursor.iterator
        valid, row_key, row_value, step = it.valid, it.key, it.value, it.next
        cursor.moved = moved = cursor.moved + 1
        it.seek(lower)
        oldest = (MAX64 - revision).to_bytes(8, "big")
        last = None
        skipped = passed = 0
        while valid():
            row = row_key()
            if row >= upper:
                return
            if look and passed >= look:
                passed = 0
                yield PAUSE
                if cursor.moved != moved:
                    cursor.moved = moved = cursor.moved + 1
                    it.seek(row)
            escaped = row[1:-15]
            if escaped == last:  # an older version
                passed += 1
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(b"k" + escaped + b"\0\x01")
                    skipped = 0
                else:
                    step()
                continue
            if row[-13:-5] < oldest:  # newer than the revision
                passed += 1
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
                passed += 1
                step()
                continue
            value = row_value()
            step()
            yield (unescape(escaped) if b"\0" in escaped else escaped), value
            if cursor.moved != moved:
                cursor.moved = moved = cursor.moved + 1
                it.seek(b"k" + escaped + b"\0\x01")
        it.status()
    except Exception as e:
        raise_read(e, cursor.path, f"reading range [{start!r}, {end!r})")


class Splicer:
    """:func:`scan_rows` for a long answer: rows go into it as they lie, in one loop. 0.7 us a row of 256
    bytes where a generator, a list of pairs and a loop over it took 1.4, half of either RocksDB's binding."""

    __slots__ = ("_cursor", "_last", "_look", "_lower", "_mixed", "_moved", "_oldest", "_range", "upper")

    def __init__(
        self, cursor: Cursor, start: bytes, end: bytes, revision: int, mixed: bool, look: int
    ) -> None:
        """``mixed``: rows above the revision may be there. ``look``: at most so many rows are passed over in
        a call."""
        self._cursor = cursor
        self._look = look
        self._range = (start, end)
        self._lower, self.upper = range_rows(start, end)
        self._oldest = (MAX64 - revision).to_bytes(8, "big")
        self._mixed = mixed
        self._moved = -1  # the cursor is somewhere else
        self._last = b""  # escaped key of the last row looked at

    def jump(self, lower: bytes) -> None:
        """Go on from that row on, at the beginning of a key. ``upper`` may be set at any time."""
        self._lower, self._last, self._moved = lower, b"", -1

    def more(self, parts: list[bytes], most: int, most_bytes: int, sizes: list[bytes] | None = None,
             ) -> tuple[int, bytes | None, bool]:
        """Append the next rows as fields ``kvs`` of a RangeResponse, at most so many and about so many bytes
        (none if very many are passed over): their number, the last one's key, and whether the range is at its
        end. ``sizes``: gets the rows' sizes (``cluster.evaluate.reading.row_parts``)."""
        cursor, upper, oldest, mixed = self._cursor, self.upper, self._oldest, self._mixed
        if self._lower >= upper:
            return 0, None, True
        tags = row_tags
        last, shown = self._last, b""
        rows = skipped = 0
        left = self._look
        begin = len(parts)
        ended = False
        try:
            it = cursor.iterator
            valid, row_key, row_value, step = it.valid, it.key, it.value, it.next
            if cursor.moved != self._moved:
                it.seek(b"k" + last + b"\0\x01" if last else self._lower)
            self._moved = cursor.moved = cursor.moved + 1
            while rows < most and most_bytes > 0 and left > 0:
                if not valid():
                    it.status()
                    ended = True
                    break
                row = row_key()
                if row >= upper:
                    ended = True
                    break
                escaped = row[1:-15]
                if escaped == last:  # an older version
                    target = b"k" + escaped + b"\0\x01"
                elif mixed and row[-13:-5] < oldest:  # newer than the revision
                    target = b"k" + escaped + b"\0\0" + oldest
                else:
                    last = escaped
                    skipped = 0
                    if not row[-1]:
                        kv = row_value()
                        size = len(kv)
                        parts += (tags[size], kv)
                        rows += 1
                        most_bytes -= size
                        shown = escaped
                    else:
                        left -= 1
                    step()
                    continue
                left -= 1
                skipped += 1
                if skipped > _SKIP_ROWS:
                    it.seek(target)
                    skipped = 0
                else:
                    step()
        except Exception as e:
            raise_read(e, cursor.path, "reading range [{!r}, {!r})".format(*self._range))
        self._last = last
        if sizes is not None and rows:
            sizes.append(sizes_of(parts, begin))
        return rows, (unescape(shown) if rows else None), ended


def count_rows(
    cursor: Cursor, start: bytes, end: bytes, revision: int, deadline_ns: int = 0,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> tuple[int, bytes | None]:
    """How many live keys a range has at a revision, without reading values: ``(count, None)``, or when the
    deadline (of ``clock_ns``; 0: none) has passed a partial count and the key to go on from."""
    lower, upper = range_rows(start, end)
    if lower >= upper:
        return 0, None
    count = 0
    try:
        it = cursor.iterator
        valid, row_key, step = it.valid, it.key, it.next
        cursor.moved += 1
        it.seek(lower)
        oldest = (MAX64 - revision).to_bytes(8, "big")
        last = None
        skipped = rows = 0
        while valid():
            row = row_key()
            if row >= upper:
                return count, None
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
            if deadline_ns and rows >= _COUNT_SLICE:
                rows = 0
                if clock_ns() >= deadline_ns and last is not None:
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
        raise_read(e, cursor.path, f"counting range [{start!r}, {end!r})")
    return count, None


def position_of(database: Rdict, path: str) -> Position:
    """The position row; every database has one from its creation on."""
    try:
        row = database.get(POSITION_ROW)
    except Exception as e:
        raise_read(e, path, "reading the applied position")
    if row is None:
        raise StorageCorruption(f"{path}: there is no applied position")
    return Position(*POSITION.unpack(row))


class Reader:
    """A pinned revision: all its reads are of one moment, however long they take, through one iterator.

    It keeps old files alive while it lives, so drop it when done.
    """

    __slots__ = ("_blocks", "_clock_ns", "_cursor", "_mixed", "position", "revision")

    def __init__(self, store: StateStore, revision: int = 0, *, kept: bool = False) -> None:
        """``kept``: all of this revision is still there, whatever has been agreed to be compacted."""
        # One thread applies and makes readers, so the position and the iterator belong together (H16).
        self.position = store.position
        self.revision = revision if kept else check_revision(revision, self.position)
        self._cursor = Cursor(store.database, store.path)
        self._mixed = self.revision != self.position.revision or store.applying
        self._blocks = store.blocks
        self._clock_ns = store.clock_ns

    def get(self, key: bytes) -> bytes | None:
        """The KeyValue of a key, None if it is not there."""
        for _, kv in scan_rows(self._cursor, key, b"", self.revision):
            return kv
        return None

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """``(key, KeyValue)`` of the live keys of a range, in key order. Take as many as fit a slice, go on
        later; other reads of this reader may come in between. ``look``: see :func:`scan_rows`. ``revision``:
        an older one than the reader's, not compacted when it was made."""
        return scan_rows(self._cursor, start, end, revision or self.revision, look)

    def splicer(self, start: bytes, end: bytes, look: int) -> Splicer:
        """As :meth:`scan`, for rows that go into an answer as they lie."""
        return Splicer(self._cursor, start, end, self.revision, self._mixed, look)

    def rows(self, start: bytes, end: bytes, look: int) -> BlockRows:
        """As :meth:`splicer`, out of what was read lately where there is such (``blocks``)."""
        return BlockRows(self._blocks, self.splicer(start, end, look), range_rows(start, end), self.revision)

    def count(self, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        """``(count, None)``, or after ``budget_us`` a partial count and the start to go on from."""
        deadline = self._clock_ns() + budget_us * 1000 if budget_us > 0 else 0
        return count_rows(self._cursor, start, end, self.revision, deadline, self._clock_ns)
