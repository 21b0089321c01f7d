"""What a watch has missed, gathered into one answer. An etcd sends up to 1000 revisions at once; here it is
as many events, and :data:`MOST_BYTES`: room for ten values of the largest size (1.5 MiB). The slices count as
their client's memory (``proxy.routing.pieces``), and are sent without a copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.watch.encode import Batch
from proxy.watch.history import Slice

MOST_BYTES = 16 << 20
MOST_EVENTS = 1000


@dataclass(slots=True, eq=False)
class Gathered:
    call: Any
    next_revision: int  # complete below it
    slice_bytes: int  # that a slice brings, about, at most
    applied: int = 0  # the revision that the slowest replica had applied
    batches: list[Batch] = field(default_factory=list)
    _size_bytes: int = 0
    _events: int = 0

    def add(self, found: Slice) -> bool:
        """Returns whether there is more, and room for it."""
        went_on = found.next_revision > self.next_revision
        self.next_revision, self.applied = found.next_revision, found.applied
        if found.batch is not None:
            self.batches.append(found.batch)
            self._events += found.batch.count
            self._size_bytes += found.batch.size_bytes
            self.call.gather(found.batch.size_bytes)
        return (
            went_on
            and self.next_revision <= self.applied
            and self.call.large_answers
            and self._events < MOST_EVENTS
            and self._size_bytes + self.slice_bytes <= MOST_BYTES
            and self.call.room_to_gather
        )

    def release(self) -> None:
        self.call.gather(-self._size_bytes)
        self._size_bytes = 0
