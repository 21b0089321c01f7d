"""The counts of keys (``node.storage.state.counts``), built, cut and cleared beside requests, in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.slicing.slicer import Slicer, Slices

if TYPE_CHECKING:
    from node.storage import StateStore


# Behind a compaction: RocksDB merges what it removed at the first flush, and has done so by the second
_FLUSHES = 2


class Counting:
    def __init__(self, store: StateStore, slicer: Slicer) -> None:
        self._store = store
        self._slicer = slicer
        self._cutting = self._forgetting = False
        self._flushes = 0  # at which there may be something to forget

    def begin(self) -> None:
        """Count all keys: about a second of CPU a million keys."""
        self._slicer.start(self._count())

    def _count(self) -> Slices:
        counts = self._store.counts
        while counts is self._store.counts and not counts.build_step():
            yield

    def cut(self) -> None:
        if not self._cutting:
            self._cutting = True
            self._slicer.start(self._cut())

    def _cut(self) -> Slices:
        while not self._store.counts.cut_step():
            yield
        self._cutting = False

    def compacted(self) -> None:
        self._flushes = _FLUSHES
        self._begin_to_forget()

    def flushed(self) -> None:
        if self._flushes:
            self._flushes -= 1
            self._begin_to_forget()

    def _begin_to_forget(self) -> None:
        """What has no rows any more needs no counts."""
        if not self._forgetting and self._store.counts.hollow:
            self._forgetting = True
            self._slicer.start(self._forget())

    def _forget(self) -> Slices:
        counts, after = self._store.counts, b""
        while counts is self._store.counts and (going := counts.forget_step(after)) is not None:
            after = going
            yield
        self._forgetting = False
