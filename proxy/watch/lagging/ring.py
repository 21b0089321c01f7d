"""What a watched range has emitted lately, for cohorts that lag. All rings of a front have bounded room: a
client that reads nothing may watch any number of ranges. Beyond it, rings of the longest lag are emptied, and
their cohorts go on from history."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from proxy.watch.encode import BATCH_BYTES, Batch, joined

_RING_BYTES = 4 << 20
_GONE = Batch(0, 0, 0, b"", b"")


@dataclass(slots=True, eq=False)
class Ring:
    """What was emitted while a cohort lagged: complete from ``begin`` on, of bounded size."""

    begin: int
    size_bytes: int = 0
    events: int = 0
    _batches: list[Batch] = field(default_factory=list)
    _dropped: int = 0  # places of dropped batches at the front, removed many at once

    def append(self, batch: Batch) -> None:
        batches = self._batches
        batches.append(batch)
        self.events += batch.count
        self.size_bytes += batch.size_bytes + BATCH_BYTES
        while self.size_bytes > _RING_BYTES:
            dropped, batches[self._dropped] = batches[self._dropped], _GONE
            self._dropped += 1
            self.events -= dropped.count
            self.size_bytes -= dropped.size_bytes + BATCH_BYTES
            self.begin = dropped.last + 1
        if self._dropped > 64 and self._dropped * 2 > len(batches):
            del batches[: self._dropped]
            self._dropped = 0

    def empty(self) -> None:
        if self._dropped < len(self._batches):
            self.begin = self._batches[-1].last + 1
        self._batches, self._dropped, self.size_bytes, self.events = [], 0, 0, 0

    def after(self, revision: int, size_bytes: int) -> Iterator[Batch]:
        """The batches of later revisions (the first may hold earlier ones), small ones joined to about this
        size."""
        size, found = 0, []
        for batch in self._batches[bisect_right(self._batches, revision, self._dropped, key=_last) :]:
            found.append(batch)
            size += batch.size_bytes
            if size >= size_bytes:
                yield joined(found)
                size, found = 0, []
        if found:
            yield joined(found)


def _last(batch: Batch) -> int:
    return batch.last


@dataclass(slots=True)
class Rings:
    """Those of a front."""

    limit_bytes: int
    held_bytes: int = 0
    held_events: int = 0
    # that hold something, longest lag first; a dict's first one costs a look at all that went before it
    _rings: OrderedDict[Ring, None] = field(default_factory=OrderedDict)

    def append(self, ring: Ring, batch: Batch) -> None:
        self._rings.setdefault(ring)
        before, events = ring.size_bytes, ring.events
        ring.append(batch)
        self.held_bytes += ring.size_bytes - before
        self.held_events += ring.events - events
        while self.held_bytes > self.limit_bytes:
            oldest = next(iter(self._rings))
            self.drop(oldest)
            oldest.empty()

    def drop(self, ring: Ring) -> None:
        """It holds nothing from here on."""
        if ring in self._rings:
            del self._rings[ring]
            self.held_bytes -= ring.size_bytes
            self.held_events -= ring.events
