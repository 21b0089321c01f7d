"""Reads of one pinned revision, in slices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cluster.evaluate.reading.ranges import RowSource
from cluster.placement import Owned
from cluster.placement.owned import Shown
from node.storage.keys import range_rows
from node.storage.state.blocks import BlockRows, RowBlocks
from node.storage.state.reads import Cursor, Splicer, check_revision, count_rows, scan_rows
from node.storage.state.versions import Versions


class Reader:
    """A pinned revision: all its reads are of one moment, through one iterator. It keeps old files alive, so
    drop it when done."""

    __slots__ = ("_blocks", "_clock_ns", "_cursor", "_mixed", "_shown_at", "owned", "position", "revision")

    def __init__(
        self, store: Versions, blocks: RowBlocks, revision: int, *, kept: bool = False,
        shown: Shown | None = None,
    ) -> None:
        """``kept``: all of this revision is still there, even if its compaction is agreed, and what a write
        behind it owns is shown, or ``shown``."""
        # One thread applies and makes readers, so the position and the iterator belong together (H16).
        self.position = store.position
        self.revision = revision if kept else check_revision(revision, self.position)
        self.owned: Owned | None = store.owned  # another one than the store's: keys may have moved since
        self._shown_at = revision + 1 if kept else max(revision, 0)  # G6; 0: by the newest table
        if shown is not None:
            self.owned, self._shown_at = shown.owned, 0
        self._cursor = Cursor(store.database, store.path)
        self._mixed = self.revision != self.position.revision or store.applying
        self._blocks = blocks
        self._clock_ns = store.clock_ns

    def get(self, key: bytes) -> bytes | None:
        for _, kv in self.scan(key, b""):
            return kv
        return None

    def parts(self, start: bytes, end: bytes, revision: int = 0) -> list[tuple[bytes, bytes]]:
        """G6: what of a range is shown, at an older revision or the reader's own."""
        owned = self.owned
        return [(start, end)] if owned is None else owned.shown(start, end, revision or self._shown_at)

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """As ``Versions.scan``. Other reads of this reader may come in between. ``revision``: an older one
        than the reader's, not compacted when it was made."""
        at = revision or self.revision
        if self.owned is None:
            return scan_rows(self._cursor, start, end, at, look)
        parts = self.parts(start, end, revision)
        return chain.from_iterable(scan_rows(self._cursor, *part, at, look) for part in parts)

    def splicer(self, start: bytes, end: bytes, look: int) -> RowSource:
        """As :meth:`scan`, for rows that go into an answer as they lie."""
        return _joined([self._splicer(*part, look) for part in self.parts(start, end)])

    def _splicer(self, start: bytes, end: bytes, look: int) -> Splicer:
        return Splicer(self._cursor, start, end, self.revision, self._mixed, look)

    def rows(self, start: bytes, end: bytes, look: int) -> RowSource:
        """As :meth:`splicer`, out of ``blocks`` where there are some."""
        return _joined([
            BlockRows(self._blocks, self._splicer(*part, look), range_rows(*part), self.revision,
                      self.owned)
            for part in self.parts(start, end)])

    def count(self, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        """``(count, None)``, or after ``budget_us`` a partial count and the start to go on from."""
        deadline = self._clock_ns() + budget_us * 1000 if budget_us > 0 else 0
        total = 0
        for part in self.parts(start, end):
            count, left = count_rows(self._cursor, *part, self.revision, deadline, self._clock_ns)
            total += count
            if left is not None:
                return total, left
        return total, None


class _Parts:
    """Parts of a range, one after the other."""

    __slots__ = ("_left",)

    def __init__(self, parts: list[RowSource]) -> None:
        self._left = parts[::-1]

    def more(self, parts: list[bytes], most: int, most_bytes: int, sizes: list[bytes] | None = None,
             ) -> tuple[int, bytes | None, bool]:
        """As ``Splicer.more``."""
        if not self._left:
            return 0, None, True
        rows, last, ended = self._left[-1].more(parts, most, most_bytes, sizes)
        if ended:
            self._left.pop()
        return rows, last, not self._left


def _joined(parts: list[RowSource]) -> RowSource:
    return parts[0] if len(parts) == 1 else _Parts(parts)
