"""What a watch has missed, gathered into one answer, as an etcd's unsynced watcher gets it.

An etcd tells such a watch up to 1000 revisions at once, whatever their size. Here it is about as many events,
and :data:`MOST_BYTES`: room for ten values of the largest size (1.5 MiB). The past is still read in slices
that nobody else waits for (``history``), each in its turn. What has come of it is counted as its client's, as
pieces of other answers are (``proxy.routing.pieces``). Where there is no room for more, or the client takes
nothing, a watch gets what is there. No bytes are copied for it: the slices are sent one behind the other.
"""

from __future__ import annotations

from typing import Protocol

from proxy.watch.encode import Batch
from proxy.watch.history import Slice

MOST_BYTES = 16 << 20
MOST_EVENTS = 1000  # an etcd counts revisions


class Taker(Protocol):
    """The call of a watch stream."""

    large_answers: bool  # whether it passes on what is sent without a copy

    @property
    def room_to_gather(self) -> bool: ...
    def gather(self, size: int) -> None: ...


class Gathered:
    """Slices of the past for one cohort."""

    __slots__ = ("_call", "_events", "_size_bytes", "_slice_bytes", "applied", "batches", "next_revision")

    def __init__(self, call: Taker, from_revision: int, slice_bytes: int) -> None:
        """``slice_bytes``: about the most that the next slice brings."""
        self.batches: list[Batch] = []
        self.next_revision = from_revision  # complete below it
        self.applied = 0  # the revision that the slowest replica had applied
        self._call = call
        self._slice_bytes = slice_bytes
        self._size_bytes = 0
        self._events = 0

    def add(self, found: Slice) -> bool:
        """Take in a slice. Whether there is more, and room for it."""
        went_on = found.next_revision > self.next_revision
        self.next_revision, self.applied = found.next_revision, found.applied
        if found.batch is not None:
            self.batches.append(found.batch)
            self._events += found.batch.count
            self._size_bytes += found.batch.size_bytes
            self._call.gather(found.batch.size_bytes)
        return (
            went_on
            and self.next_revision <= self.applied
            and self._call.large_answers
            and self._events < MOST_EVENTS
            and self._size_bytes + self._slice_bytes <= MOST_BYTES
            and self._call.room_to_gather
        )

    def release(self) -> None:
        """It is about to be sent, or nobody wants it any more: it counts here no longer."""
        self._call.gather(-self._size_bytes)
        self._size_bytes = 0
