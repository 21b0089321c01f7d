"""How many live keys a range has now; the cost grows with the logarithm of their number.

The key space is cut into blocks of a few hundred keys, each with its count, in memory only. A count sums
whole blocks and walks the two at its ends: 0.3 ms for a prefix of a million keys instead of 300 ms. A new or
a deleted key costs a bisection at apply (0.5 us). The blocks are built in slices after the start, up to a
cursor; behind it, and in the past, counts are walked. Keys that come with a move are a block of the move's
own figure, which is cut in slices; a count that ends within it is walked until then.

A walk passes over names that are gone, too, and takes longer where values are large. So a block is *measured*
and cut by both: at so many names, live or not, and so many bytes. Blocks that have lost their keys for good
go behind a compaction.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

from node.storage.state.reads import LARGE_ROW

if TYPE_CHECKING:
    from node.storage.state.versions import Versions

# keys of a fresh block; one of more than twice as many is cut. What a count walks at its ends: 0.25 us a key;
# what it sums: 0.005 us a block
_BLOCK = 256
_WEIGHT = 4  # times _BLOCK: a block that weighs more (``reads.Measured``) is cut in half
_NEWS = 2  # times _BLOCK: what came into a block since it was measured; more: it is measured again
# a large value of a key that was there weighs a fraction: most take the place of as much, and to measure a
# block reads 8 MB. So 32 MB may come into it that way
_REWRITTEN = 8
_UNKNOWN = 1 << 62  # what came into a block that was never measured: cut until the rest weighs little
_CUTS_PER_APPLY = 4
_FORGOTTEN_AT_ONCE = 16  # a look at each takes 5 to 10 us


class KeyCounts:
    def __init__(self, keys: Versions) -> None:
        self._keys = keys
        self._starts: list[bytes] = []  # first key of each block, ascending; the first block begins at b""
        self._counts: list[int] = []
        self._news: list[int] = []  # eighths of weight that came into each since it was measured, at most
        self._cursor: bytes | None = b""  # keys from here on are not counted yet; None: all are
        self._large: set[bytes] = set()  # starts of blocks to be measured, and cut
        self._came: set[bytes] = set()  # the same of keys that came with a move: too large to be walked
        self._held = False
        self._going: dict[int, int] = {}  # block -> keys that a delete under way takes from it

    def restart(self) -> None:
        """Other keys are shown from now on: count again."""
        self._starts.clear()
        self._counts.clear()
        self._news.clear()
        self._large.clear()
        self._came.clear()
        self._going.clear()
        self._cursor = b""

    @property
    def ready(self) -> bool:
        """Whether no count is walked but at its ends."""
        return self._cursor is None and not self._came

    def switched(self, start: bytes, end: bytes, live: int) -> None:
        """A span's keys have come, ``live`` of them, or gone (0), and are shown, or not, by now. What is
        beside them in the blocks at both ends is counted again."""
        starts, counts = self._starts, self._counts
        if self._cursor is not None or self._held:
            self.restart()
            return
        first = bisect_right(starts, start) - 1
        stop = len(starts) if end == b"\0" else bisect_left(starts, end)
        if self._came.intersection(starts[first:stop]):
            self.restart()  # too many to be walked in a turn
            return
        below, above = starts[first], starts[stop] if stop < len(starts) else b"\0"
        beside = []
        if below < start:  # no key is below b"\0", which as an end is that of all keys
            beside.append((below, self._keys.count(below or b"\0", start) if start > b"\0" else 0))
        if end != above:
            beside.append((end, self._keys.count(end, above)))
        pieces = sorted([*beside, (start, live)] if live else beside)
        self._large.difference_update(starts[first:stop])
        starts[first:stop] = [piece[0] for piece in pieces]
        counts[first:stop] = [piece[1] for piece in pieces]
        self._news[first:stop] = [_UNKNOWN] * len(pieces)
        if live > 2 * _BLOCK:
            self._came.add(start)
        self._large.update(at for at, _ in pieces if at not in self._came)

    def build_step(self) -> bool:
        """Count the next block's worth of keys, or of names and bytes. True: all are counted."""
        if self._cursor is None or self._held:
            return self._cursor is None
        start = self._cursor
        count, weight, self._cursor = self._keys.measure(start or b"\0", b"\0", _BLOCK, _WEIGHT * _BLOCK // 2)
        if weight or not self._starts:
            self._starts.append(start)
            self._counts.append(count)
            self._news.append(0)
        return self._cursor is None

    def changed(
        self, created: Iterable[bytes], deleted: Iterable[bytes], large: Iterable[tuple[bytes, int]] = ()
    ) -> None:
        """``large``: keys that were written, new ones or not, with the bytes of their large values."""
        starts, counts, news, cursor = self._starts, self._counts, self._news, self._cursor
        new = set(created) if large else ()
        most, most_news = 2 * _BLOCK, _NEWS * _BLOCK * _REWRITTEN
        for key in created:
            if cursor is None or key < cursor:
                at = bisect_right(starts, key) - 1
                counts[at] += 1
                news[at] += _REWRITTEN
                if (counts[at] > most or news[at] > most_news) and starts[at] not in self._came:
                    self._large.add(starts[at])
        for key, size in large:
            if cursor is None or key < cursor:
                at = bisect_right(starts, key) - 1
                news[at] += size * (_REWRITTEN if key in new else 1) // LARGE_ROW
                if news[at] > most_news and starts[at] not in self._came:
                    self._large.add(starts[at])
        for key in deleted:
            if cursor is None or key < cursor:
                counts[bisect_right(starts, key) - 1] -= 1
        if self._large and not self._held:
            self._cut()

    def hold(self) -> None:
        """A change of many keys begins: the blocks stay as they are until :meth:`release`."""
        self._held = True

    def going(self, deleted: list[bytes]) -> None:
        """These keys, in order, are deleted by it."""
        starts, cursor, going = self._starts, self._cursor, self._going
        if cursor is not None:
            deleted = deleted[: bisect_left(deleted, cursor)]
        at, size = 0, len(deleted)
        while at < size:
            block = bisect_right(starts, deleted[at]) - 1
            stop = bisect_left(deleted, starts[block + 1], at) if block + 1 < len(starts) else size
            going[block] = going.get(block, 0) + stop - at
            at = stop

    def release(self) -> None:
        for block, deleted in self._going.items():
            self._counts[block] -= deleted
        self._going.clear()
        self._held = False

    @property
    def grown(self) -> bool:
        """Whether blocks are left for :meth:`cut_step`."""
        return bool(self._large or self._came) and not self._held

    def cut_step(self) -> bool:
        """Measure one block that has grown, or came, and cut it. True: none is left."""
        if self.grown:
            self._cut_block(next(iter(self._large or self._came)))
        return not self.grown

    def _cut(self) -> None:
        for start in list(self._large)[:_CUTS_PER_APPLY]:
            self._cut_block(start)

    def _cut_block(self, start: bytes) -> None:
        """If it is too large, or weighs too much, its first half stays. The rest becomes a block of its
        own."""
        came = start in self._came
        still = self._came if came else self._large
        still.discard(start)
        starts, counts, news = self._starts, self._counts, self._news
        at = bisect_right(starts, start) - 1
        if starts[at] != start or starts[at + 1 : at + 2] == [b"\0"]:  # gone; or no key is before b"\0"
            return
        few = counts[at] <= 2 * _BLOCK
        measure, first = self._keys.measure, start or b"\0"
        end = starts[at + 1] if at + 1 < len(starts) else self._cursor or b"\0"
        whole = few and measure(first, end, 2 * _BLOCK, _WEIGHT * _BLOCK).rest is None
        keys, weight, rest = (0, 0, None) if whole else measure(first, end, _BLOCK, _WEIGHT * _BLOCK // 2)
        if rest is None:
            news[at] = 0
            return
        starts.insert(at + 1, rest)
        counts.insert(at + 1, counts[at] - keys)
        news.insert(at + 1, _UNKNOWN if few else max(news[at] - weight * _REWRITTEN, 0))
        counts[at], news[at] = keys, 0
        if came or counts[at + 1] > 2 * _BLOCK or news[at + 1] > _NEWS * _BLOCK * _REWRITTEN:
            still.add(rest)

    @property
    def hollow(self) -> bool:
        """Whether :meth:`forget_step` has anything to look at."""
        return self.ready and 0 in self._counts[1:]

    def forget_step(self, after: bytes) -> bytes | None:
        """Drop some blocks behind ``after`` that have no keys, nor any rows: a count that ends in the block
        before would walk these. Returns behind what to go on; None: at the end."""
        starts, counts = self._starts, self._counts
        if self._held or not self.ready:
            return None
        try:
            first = counts.index(0, bisect_right(starts, after))
        except ValueError:
            return None
        kept, most = first, min(first + _FORGOTTEN_AT_ONCE, len(counts))
        while kept < most and not counts[kept]:
            # each by itself: what was just removed lies right behind what went before
            end = starts[kept + 1] if kept + 1 < len(starts) else b"\0"
            if self._keys.may_have_rows(starts[kept], end):
                break
            kept += 1
        after = starts[kept if kept < most else first - 1]
        del starts[first:kept], counts[first:kept], self._news[first:kept]
        return after

    def _counted(self, end: bytes) -> bool:
        """Whether all keys before ``end`` are counted."""
        return self._cursor is None or b"\0" < end <= self._cursor

    def _ends(self, start: bytes, end: bytes) -> tuple[int, bool, int, bool]:
        """The block where a range begins, and whether within it; the same of where it ends."""
        starts = self._starts
        first = bisect_right(starts, start) - 1
        last = len(starts) if end == b"\0" else bisect_right(starts, end) - 1
        return (
            first,
            start > b"\0" and start != starts[first],  # b"\0" is never within
            last,
            last < len(starts) and starts[last] != end,
        )

    def knows(self, start: bytes, end: bytes) -> bool:
        """Whether :meth:`count` is not None; walks nothing."""
        if not self._came or not self._counted(end):
            return self._counted(end)
        first, head, last, tail = self._ends(start, end)
        starts, came = self._starts, self._came
        return not ((head and starts[first] in came) or (tail and starts[last] in came))

    def count(self, start: bytes, end: bytes) -> int | None:
        """Live keys in ``[start, end)``, ``end`` a zero byte: to the end. None: not all are counted yet."""
        if not self.knows(start, end):
            return None
        starts, counts = self._starts, self._counts
        first, head, last, tail = self._ends(start, end)
        if first + head > last:
            return self._keys.count(start, end)
        found = sum(counts[first + head : last])
        if head:
            found += self._keys.count(start, starts[first + 1] if first + 1 < len(starts) else b"\0")
        return found + (self._keys.count(max(start, starts[last]), end) if tail else 0)

    def at_most(self, start: bytes, end: bytes) -> int | None:
        """As :meth:`count`, without the walk in the blocks at both ends: not less than there are."""
        if not self._counted(end):
            return None
        starts = self._starts
        first = bisect_right(starts, start) - 1
        return sum(self._counts[max(first, 0) : None if end == b"\0" else bisect_left(starts, end)])

    def marks(self, most: int) -> list[bytes]:
        """Keys, ``most`` of them, that cut the live keys into parts of about one size; none while not all are
        counted. 0.2 ms for a million keys."""
        total = sum(self._counts)
        if not self.ready or not total:
            return []
        found: list[bytes] = []
        at = 0
        for start, count in zip(self._starts, self._counts, strict=True):
            if at * most >= len(found) * total and len(found) < most:
                found.append(start)
            at += count
        return found

    def keys(self) -> int:
        """How many keys there are; -1 while not all are counted."""
        return sum(self._counts) if self._cursor is None else -1
