"""Rows of several shards put in order, in runs.

Shards hold disjoint directories: rows of one directory come out of one shard. Such a *run* goes on as it
stands until another shard's next key, found by looking 1, 2, 4, ... rows further on, then between.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heapreplace

from cluster.evaluate.reading.row_parts import row_key

_NO_LIMIT = 1 << 62


class _Source:
    __slots__ = ("at", "data", "ended", "key", "parts", "passed", "starts")

    def __init__(self) -> None:
        self.parts: deque[tuple[bytes, list[int]]] = deque()  # after the one that is being merged
        self.data = b""
        self.starts = [0]  # of data's rows, and the last one's end
        self.at = 0  # the next row
        self.key = b""  # its key
        self.ended = False  # no further part comes
        self.passed = 0  # bytes of parts that are not needed here any more

    def next_part(self) -> bool:
        """Done with a part. Whether there is another one."""
        self.passed += len(self.data)
        if not self.parts:
            self.data, self.starts, self.at = b"", [0], 0
            return False
        self.data, self.starts = self.parts.popleft()
        self.at, self.key = 0, row_key(self.data, self.starts[0])
        return True


class RowMerge:
    """Rows in the order of their keys out of parts of several sources, at most ``limit`` (0: all)."""

    __slots__ = ("_left", "_sources", "rows")

    def __init__(self, sources: int, limit: int = 0) -> None:
        self.rows = 0  # that have come, beyond the limit too
        self._sources = [_Source() for _ in range(sources)]
        self._left = limit or _NO_LIMIT

    def add(self, source: int, data: bytes, starts: list[int], *, last: bool) -> None:
        """The next part of a source; ``starts``: of its rows, and the end of the last one."""
        found = self._sources[source]
        found.ended = last
        rows = len(starts) - 1
        self.rows += rows
        if not rows or not self._left:
            found.passed += len(data)
            return
        found.parts.append((data, starts))
        if not found.data:
            found.next_part()

    def passed(self, source: int) -> int:
        """Bytes of a source's parts that are done with."""
        return self._sources[source].passed

    @property
    def ended(self) -> bool:
        return all(s.ended and not s.data for s in self._sources)

    def take(self, runs: list[bytes], most_bytes: int = _NO_LIMIT) -> int:
        """Append the rows that are certainly next, about so many bytes at most. Returns their bytes."""
        heap: list[tuple[bytes, int]] = []
        for number, source in enumerate(self._sources):
            if source.data:
                heap.append((source.key, number))
            elif not source.ended:
                return 0  # its next row may come before the others'
        heapify(heap)
        size, left = 0, self._left
        while heap and size < most_bytes:
            number = heap[0][1]
            source = self._sources[number]
            data, starts, at = source.data, source.starts, source.at
            rows = len(starts) - 1
            upto, key = rows, None
            if len(heap) > 1:
                bound = heap[1][0] if len(heap) == 2 or heap[1][0] < heap[2][0] else heap[2][0]
                upto = at + 1
                if upto < rows and (key := row_key(data, starts[upto])) < bound:
                    upto, key = _run_end(data, starts, upto, bound)
            if upto - at >= left:
                upto = at + left
                runs.append(data[starts[at] : starts[upto]])
                self._drop()
                return size + starts[upto] - starts[at]
            left -= upto - at
            runs.append(data[starts[at] : starts[upto]])
            size += starts[upto] - starts[at]
            if upto < rows:
                source.at = upto
                source.key = key = key or row_key(data, starts[upto])
                heapreplace(heap, (key, number))
            elif source.next_part():
                heapreplace(heap, (source.key, number))
            elif source.ended:
                heappop(heap)
            else:
                break
        self._left = left
        return size

    def _drop(self) -> None:
        self._left = 0
        for source in self._sources:
            while source.data:
                source.next_part()


def _run_end(data: bytes, starts: list[int], low: int, bound: bytes) -> tuple[int, bytes | None]:
    """The first row after ``low``, whose key is below the bound, with a key that is not, and this key; else
    the number of rows and None."""
    rows, step = len(starts) - 1, 1
    high, found = low + 1, None
    while high < rows:
        key = row_key(data, starts[high])
        if key >= bound:
            found = key
            break
        low, step = high, step * 2
        high = low + step
    high = min(high, rows)
    while high - low > 1:
        middle = (low + high) >> 1
        key = row_key(data, starts[middle])
        if key < bound:
            low = middle
        else:
            high, found = middle, key
    return high, found
