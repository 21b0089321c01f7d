"""Reads of one pinned revision, in slices."""

from __future__ import annotations

from collections.abc import Iterator

from node.storage.keys import range_rows
from node.storage.state.blocks import BlockRows, RowBlocks
from node.storage.state.reads import Cursor, Splicer, check_revision, count_rows, scan_rows
from node.storage.state.versions import Versions


class Reader:
    """A pinned revision: all its reads are of one moment, through one iterator. It keeps old files alive, so
    drop it when done."""

    __slots__ = ("_blocks", "_clock_ns", "_cursor", "_mixed", "position", "revision")

    def __init__(self, store: Versions, blocks: RowBlocks, revision: int, *, kept: bool = False) -> None:
        """``kept``: all of this revision is still there, even if its compaction is agreed."""
        # One thread applies and makes readers, so the position and the iterator belong together (H16).
        self.position = store.position
        self.revision = revision if kept else check_revision(revision, self.position)
        self._cursor = Cursor(store.database, store.path)
        self._mixed = self.revision != self.position.revision or store.applying
        self._blocks = blocks
        self._clock_ns = store.clock_ns

    def get(self, key: bytes) -> bytes | None:
        for _, kv in scan_rows(self._cursor, key, b"", self.revision):
            return kv
        return None

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """As ``Versions.scan``. Other reads of this reader may come in between. ``revision``: an older one
        than the reader's, not compacted when it was made."""
        return scan_rows(self._cursor, start, end, revision or self.revision, look)

    def splicer(self, start: bytes, end: bytes, look: int) -> Splicer:
        """As :meth:`scan`, for rows that go into an answer as they lie."""
        return Splicer(self._cursor, start, end, self.revision, self._mixed, look)

    def rows(self, start: bytes, end: bytes, look: int) -> BlockRows:
        """As :meth:`splicer`, out of ``blocks`` where there are some."""
        return BlockRows(self._blocks, self.splicer(start, end, look), range_rows(start, end), self.revision)

    def count(self, start: bytes, end: bytes, budget_us: int = 0) -> tuple[int, bytes | None]:
        """``(count, None)``, or after ``budget_us`` a partial count and the start to go on from."""
        deadline = self._clock_ns() + budget_us * 1000 if budget_us > 0 else 0
        return count_rows(self._cursor, start, end, self.revision, deadline, self._clock_ns)
