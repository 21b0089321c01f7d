"""Rows that were read lately, joined as they stand in answers: a row costs next to nothing instead of 0.8 us.

A block is the live rows of a span of keys, and the revision from which on they are right. Blocks never
overlap. A range takes the block that begins where it stands, reads what lies between blocks, and leaves that
as a block.

The write path does not know of them. A range first looks through the changes since the last look (the ``r``
rows: 0.8 us a change, 2.6 in a record of its own), and every block that holds a changed key goes; if they are
too many, all go. So each block is right at every revision from its own up to the last one looked through.

In memory only, bounded in bytes. A block gives way to another when several ranges were read without it, so
that a range larger than the room finds most of its blocks again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from cluster.evaluate.reading.row_parts import sizes_in, sizes_of
from cluster.placement import Owned
from node.storage.keys import escape
from node.storage.state.reads import Splicer
from node.storage.state.versions import Versions

LEAST_ROWS = 64  # shorter ranges do not look here: they cost less than the look
_MOST_CHANGES = 2_048  # looked through for one range; after more nothing is kept
_CHANGES_AT_ONCE = 128  # in a slice: 0.1 to 0.3 ms
_RECENT = 512  # changes remembered, for reads at a revision before them
_UNUSED_TURNS = 16  # ranges read without a block before another may take its room
_RECENT_ROW_BYTES = 4_096  # of one that is remembered
_OVERHEAD_BYTES = 500  # of a block besides its rows and bounds
_BOUNDS_BYTES = 4_096  # so much longer than a block's rows its bounds may be
_LEAST_KEPT_ROWS, _LEAST_KEPT_BYTES = 8, 3_500


class Block:
    """Rows of one span. Bounds are beginnings of row keys (``node.storage.keys``); ``upper`` is outside."""

    __slots__ = ("_sizes", "data", "last_key", "lower", "rows", "since", "size", "turn", "upper")

    def __init__(
        self, lower: bytes, upper: bytes, since: int, rows: int, last_key: bytes, data: bytes, turn: int
    ) -> None:
        # a client names bounds, of any length
        self.size = len(lower) + len(upper) + len(last_key) + len(data) + 4 * rows + _OVERHEAD_BYTES
        self.lower = lower
        self.upper = upper
        self.since = since  # right at this revision, and after it
        self.rows = rows
        self.last_key = last_key
        self.data = data
        self.turn = turn  # when it was used last
        self._sizes: bytes | None = None

    def sizes(self) -> bytes:
        """Of its rows, to merge them with others (``cluster.evaluate.reading.row_parts``)."""
        if self._sizes is None:
            self._sizes = sizes_in(self.data)
        return self._sizes


class RowBlocks:
    def __init__(self, store: Versions, limit_bytes: int, before: RowBlocks | None = None) -> None:
        """``before``: of the database that was installed over, whose counts go on."""
        self._store = store
        self._limit_bytes = limit_bytes
        self._lowers: list[bytes] = []  # ascending
        self._blocks: dict[bytes, Block] = {}  # by their lower bounds, the last used at the end
        self._through = store.revision  # up to it changes are looked through
        self._recent: list[tuple[int, bytes]] = []  # revision and row of every change after _floor
        self._floor = self._through
        self._turn = 0
        self.bytes = 0
        self.taken_rows: int = before.taken_rows if before else 0  # out of blocks
        # by a walk, where blocks were asked
        self.read_rows: int = before.read_rows if before else 0

    @property
    def owned(self) -> Owned | None:
        """By what the blocks are right (G6)."""
        return self._store.owned

    def begin(self) -> None:
        self._turn += 1

    def look(self, revision: int) -> bool:
        """Drop blocks that changed up to an applied revision, some changes at a time. True: all are looked
        through."""
        through = self._through
        if through >= revision:
            return True
        latest = self._store.revision
        # r rows below that are gone
        if latest - through > _MOST_CHANGES or through < self._store.compact_revision:
            self.clear()
            return True
        recent, lowers, blocks = self._recent, self._lowers, self._blocks
        for looked, (changed_at, _, _, key) in enumerate(self._store.changes(through + 1)):
            if looked >= _CHANGES_AT_ONCE and changed_at != through:
                latest = through
                break
            if looked >= _MOST_CHANGES:  # in one revision
                self.clear()
                return True
            through = changed_at
            row = b"k" + escape(key)
            if len(row) > _RECENT_ROW_BYTES:
                recent.clear()
                self._floor = changed_at
            else:
                recent.append((changed_at, row))
            at = bisect_right(lowers, row) - 1
            if at >= 0 and row < blocks[lowers[at]].upper:
                self._remove(blocks[lowers[at]])
        self._through = latest
        if len(recent) > _RECENT:
            self._floor = recent[-_RECENT - 1][0]
            del recent[:-_RECENT]
        return latest >= revision

    def at(self, lower: bytes, revision: int) -> Block | None:
        """The block that begins there and is right at the revision."""
        block = self._blocks.get(lower)
        if block is None or not block.since <= revision <= self._through:
            return None
        del self._blocks[lower]
        self._blocks[lower] = block
        block.turn = self._turn
        return block

    def bound(self, lower: bytes, upper: bytes) -> bytes:
        """How far to read from ``lower``, at most to ``upper``, to meet the next block."""
        lowers = self._lowers
        at = bisect_right(lowers, lower)
        if at and self._blocks[lowers[at - 1]].upper > lower:
            return min(upper, self._blocks[lowers[at - 1]].upper)
        return min(upper, lowers[at]) if at < len(lowers) else upper

    def keep(
        self, lower: bytes, upper: bytes, revision: int, rows: int, last_key: bytes, data: bytes
    ) -> None:
        """Keep all live rows of a span at a revision as a block, if that is of use and they are still
        right."""
        self.read_rows += rows
        if rows < _LEAST_KEPT_ROWS and len(data) < _LEAST_KEPT_BYTES:
            return
        if len(lower) + len(upper) > len(data) + _BOUNDS_BYTES:
            return  # blocks of more use would give way
        block = Block(lower, upper, revision, rows, last_key, data, self._turn)
        if block.size > self._limit_bytes >> 2:
            return
        if revision < self._floor or (revision < self._through and self._changed(lower, upper, revision)):
            return
        lowers, blocks = self._lowers, self._blocks
        at = bisect_left(lowers, lower)
        if (at < len(lowers) and lowers[at] < upper) or (at and blocks[lowers[at - 1]].upper > lower):
            return
        while self.bytes + block.size > self._limit_bytes:
            longest_unused = next(iter(blocks.values()))
            if self._turn - longest_unused.turn < _UNUSED_TURNS:
                return
            self._remove(longest_unused)
        lowers.insert(bisect_left(lowers, lower), lower)
        blocks[lower] = block
        self.bytes += block.size

    def _changed(self, lower: bytes, upper: bytes, revision: int) -> bool:
        """Whether a key of the span has changed after a revision that is not before ``_floor``."""
        for changed_at, row in reversed(self._recent):
            if changed_at <= revision:
                return False
            if lower <= row < upper:
                return True
        return False

    def clear(self) -> None:
        """Nor is anything kept of reads at earlier revisions: keys that move have no history."""
        self._lowers.clear()
        self._blocks.clear()
        self._recent.clear()
        self._floor = self._through = self._store.revision
        self.bytes = 0

    def _remove(self, block: Block) -> None:
        lowers = self._lowers
        del lowers[bisect_left(lowers, block.lower)]
        del self._blocks[block.lower]
        self.bytes -= block.size


class BlockRows:
    """The rows of a range for an answer, out of blocks where there are some: a ``RowSource``."""

    __slots__ = ("_at", "_blocks", "_looked", "_moved", "_owned", "_revision", "_upper", "_walk")

    def __init__(
        self, blocks: RowBlocks, walk: Splicer, bounds: tuple[bytes, bytes], revision: int,
        owned: Owned | None,
    ) -> None:
        """``walk``: reads the same bounds at the same revision. ``owned``: by what they are shown."""
        blocks.begin()
        self._blocks = blocks
        self._walk = walk
        self._at, self._upper = bounds
        self._revision = revision
        self._owned = owned
        self._moved = False  # the walk is not where the rows go on
        self._looked = False  # blocks are right up to this revision

    def more(self, parts: list[bytes], most: int, most_bytes: int, sizes: list[bytes] | None = None,
             ) -> tuple[int, bytes | None, bool]:
        """As ``Splicer.more``."""
        at, upper, blocks = self._at, self._upper, self._blocks
        if at >= upper:
            return 0, None, True
        shared = blocks.owned is self._owned
        if shared and not self._looked:
            self._looked = blocks.look(self._revision)
            if not self._looked:
                return 0, None, False
        block = blocks.at(at, self._revision) if shared else None
        if block is not None and block.rows <= most and block.upper <= upper:
            parts.append(block.data)
            if sizes is not None:
                sizes.append(block.sizes())
            blocks.taken_rows += block.rows
            self._at = block.upper
            self._moved = True
            return block.rows, block.last_key, block.upper >= upper
        walk = self._walk
        walk.upper = bound = blocks.bound(at, upper) if shared else upper
        if self._moved:
            walk.jump(at)
            self._moved = False
        own: list[bytes] = []
        rows, last_key, ended = walk.more(own, most, most_bytes)
        data = b"".join(own)
        if rows:
            parts.append(data)
            if sizes is not None:
                sizes.append(sizes_of(own))
        if ended:
            self._at = bound
        elif last_key is not None:
            self._at = b"k" + escape(last_key + b"\0")
        else:
            return 0, None, False  # many rows were passed over: the span goes on
        if shared:
            blocks.keep(at, self._at, self._revision, rows, last_key or b"", data)
        return rows, last_key, self._at >= upper
