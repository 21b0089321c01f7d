"""Order records of the feed, until they are applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from cluster.order.log import Cut, passed_from

# index and term of the record, its projection, what it puts in order of this shard, its bytes in node 0's log
Fed = tuple[int, int, bytes, Cut | None, int]
Run = list[tuple[int, int, bytes]]  # index, term, projection

_RUN_RECORDS = 256  # applied in one batch
_RUN_BYTES = 1 << 20  # or of so many bytes


class FeedQueue:
    def __init__(self, applied: int) -> None:
        """``applied``: the order index that the state has."""
        self._records: deque[Fed] = deque()
        # whether a record needs a base that is not here (G5); None: nothing moves to this shard
        self.lacks: Callable[[bytes], bool] | None = None
        self.taken = applied  # the last one that was handed out
        self.next = applied + 1  # the next one that may come

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Fed]:
        return iter(self._records)

    def add(self, record: Fed) -> None:
        assert self.due(record[0], record[2]), f"order record {record[0]} where {self.next} was due"
        self._records.append(record)
        self.next = record[0] + 1

    def due(self, index: int, projection: bytes) -> bool:
        """Whether this record is the next one, or stands for it."""
        since = None if index == self.next else passed_from(projection)
        return index == self.next or (since is not None and since <= self.next < index)

    def count(self, announced: int) -> int:
        """Changes of this shard up to the last cut that can be applied; 0: none can. ``announced``: as in
        :meth:`run`."""
        cuts = (record[3] for record in reversed(self._records))
        return next((cut.count for cut in cuts if cut is not None and cut.index <= announced), 0)

    def skipped_to(self, applied: int) -> None:
        """A snapshot took the place of the state: the next feed begins behind it."""
        self.taken = applied

    def again(self) -> None:
        """Another feed begins behind what was handed out."""
        self._records.clear()
        self.next = self.taken + 1

    def run(self, announced: int) -> tuple[Run, int, Cut | None]:
        """What can be applied together, its bytes in node 0's log, and the cut that further records wait for.

        ``announced``: the last entry of this shard that is known to be committed. A cut beyond it waits (I6).
        """
        run: Run = []
        in_log = size = 0
        for index, term, projection, cut, record_bytes in self._records:
            if self.lacks is not None and self.lacks(projection):
                break
            if cut is not None and cut.index > announced:
                return self._out(run), in_log, cut
            run.append((index, term, projection))
            in_log += record_bytes
            size += len(projection)
            if len(run) >= _RUN_RECORDS or size >= _RUN_BYTES:
                break
        return self._out(run), in_log, None

    def _out(self, run: Run) -> Run:
        for _ in run:
            self._records.popleft()
        if run:
            self.taken = run[-1][0]
        return run
