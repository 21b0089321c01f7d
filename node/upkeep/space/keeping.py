"""What a shard without a majority needs of the order lies in files of node 0 (decision 115), so the order log
may go.

Once a shard's majority lacks more than is usually kept (I17, ``floors``), its records are read from the log,
in parts between turns of the loop, and written into a file in a thread (``cluster.order.passing``,
``node.storage.kept``). A file goes once a majority of the shard's replicas has durably applied its end.

The fold is known where this node has applied the order. Up to the place where it stood when keeping began, a
file has plain projections; from there on most records are passed over.

Beyond ``--order-kept-bytes`` nothing more is written: the log keeps it, and NOSPACE comes as it would. After
a failure the next try waits for 5 s, and for twice as long after each other one, up to 60 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.order.log import Fold
from cluster.order.passing import KeptRecord, Passing, Piece
from cluster.order.sound import Place, sound
from cluster.raft import EntryKind
from cluster.repeats import Repeats
from node.storage.kept import KeptFiles, Span
from node.upkeep.log.floors import Floors

if TYPE_CHECKING:
    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.machine import NodeMachine
    from node.storage import RaftLog, StateStore

log = structlog.get_logger("upkeep")

_RUN = 128  # records read from the log in one turn of the loop
_RUN_BYTES = 1 << 20
# a file is started again then: it is read and decoded in one turn of the loop (10 ms)
_PIECE_BYTES = 512 << 10
_PIECE_RECORDS = 8_000
_JOINED_BYTES = 128 << 10  # a smaller file is written once more, with what follows
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0  # after a failure


class KeepingNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    raft: Raft
    log: RaftLog
    store: StateStore
    applied_index: int


@dataclass(slots=True)
class _Work:
    """A piece that is being made."""

    shard: int
    passing: Passing
    target: int
    replaces: Span | None


class Keeping:
    def __init__(self, node: KeepingNode, files: KeptFiles, floors: Floors,
                 folded: Callable[[], tuple[int, Fold]]) -> None:
        """``folded``: a place of the order, and the fold there."""
        self._node = node
        self._files = files
        self._floors = floors
        self._folded = folded
        self._most = node.settings.order_kept_bytes
        self._thread = node.machine.thread("keeping")
        self._busy = self._closed = False
        self._repeats = Repeats()
        self._pause_s = self._again_at = 0.0
        self._unremoved: list[Span] = []  # files that do not count, and may be there still
        # places of the order with the fold there, until the files of a shard come that far
        self._folds: dict[int, tuple[int, Fold]] = {}
        self._spans: dict[int, list[Span]] = {}
        for span in files.found():
            self._spans.setdefault(span.shard, []).append(span)
        for shard in self._spans:
            self._claim(shard)

    @property
    def bytes(self) -> int:
        return sum(span.size for spans in (*self._spans.values(), self._unremoved) for span in spans)

    @property
    def shards(self) -> list[int]:
        return sorted(self._spans)

    # -- for the feed

    def records(self, shard: int, index: int) -> list[KeptRecord]:
        """What is kept from this record on, as far as one file goes. Raises StorageCorruption, Scarce."""
        for span in self._spans.get(shard, ()):
            if span.first <= index <= span.last:
                return [record for record in self._files.read(span).records if record.last >= index]
        return []

    def has(self, shard: int, index: int) -> bool:
        return any(span.first <= index <= span.last for span in self._spans.get(shard, ()))

    # -- looks

    def look(self, least: int, voters: Collection[int]) -> None:
        """Each heartbeat. ``least``: usually the order log is kept behind this record."""
        node, floors = self._node, self._floors
        floors.begins = node.log.snapshot_position().index
        if self._busy or self._closed:
            return
        for shard, spans in self._spans.items():
            applied = floors.durable(shard, voters)
            # all, once the shard is dropped
            gone = [span for span in spans if span.last <= applied or shard not in floors.shards]
            if gone:
                self._remove(shard, gone)
                return
        if node.loop.time() < self._again_at:
            return
        if self._unremoved:  # a new file might have the same name
            self._remove_files()
            return
        for shard in floors.shards:
            # what this host's replica has on disk counts by itself
            have = max(floors.durable(shard, voters), floors.own_of(shard), self._end(shard))
            if have < least:
                # no further than a crash would leave this host's own log and state
                durable = node.store.durable_position.order_index
                self._begin(shard, min((least + node.applied_index) // 2, durable))
                if self._busy:
                    return

    def _end(self, shard: int) -> int:
        spans = self._spans.get(shard)
        return spans[-1].last if spans else 0

    def _claim(self, shard: int) -> None:
        """Tell others, and the own log, what is on the disk without a gap."""
        first = last = 0
        for span in self._spans.get(shard, ()):
            first, last = first if span.first == last + 1 and first else span.first, span.last
        self._floors.own_keeps(shard, first, last)

    def _remove(self, shard: int, gone: list[Span]) -> None:
        gone_too = set(gone)
        left = [span for span in self._spans[shard] if span not in gone_too]
        if left:
            self._spans[shard] = left
        else:
            del self._spans[shard]
            self._folds.pop(shard, None)
            if shard in self._floors.shards:  # not dropped
                log.info("a majority of a shard's replicas has the records kept for it", shard=shard)
        self._claim(shard)
        self._unremoved += gone
        self._remove_files()

    def _remove_files(self) -> None:
        self._busy = True
        done = self._node.loop.run_in_executor(self._thread, self._files.remove, self._unremoved)
        done.add_done_callback(self._removed)

    def _removed(self, done: asyncio.Future[None]) -> None:
        self._busy = False
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._failed("a file of kept order records could not be removed", error)
            return
        self._unremoved = []

    def _failed(self, what: str, error: BaseException) -> None:
        now = self._node.loop.time()
        self._pause_s = min(max(_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self._again_at = now + self._pause_s
        if self._repeats.news(what, now):
            log.warning(what, error=str(error))

    # -- a piece

    def _begin(self, shard: int, target: int) -> None:
        begins = self._node.log.snapshot_position().index
        if not self._most:
            return
        if self.bytes >= self._most:
            if self._repeats.news((shard,), self._node.loop.time()):
                log.warning("--order-kept-bytes is used up: no more records are kept for a shard",
                            shard=shard, kept_bytes=self.bytes)
            return
        spans = self._spans.get(shard, ())
        before = spans[-1] if spans and spans[-1].last >= begins else None
        first = before.last + 1 if before is not None else begins + 1
        fold = Fold.decode(before.fold) if before is not None and before.fold else None
        if fold is None and self._folds.get(shard, (0,))[0] < first - 1:
            known, at = self._folded()
            if known < first - 1:
                return  # this node has started again, and is not as far yet
            self._folds[shard] = known, at.copy()
        if target < first:
            return
        passing = Passing(shard, first, fold)
        if before is not None and before.size < _JOINED_BYTES:
            passing.again(self._files.read(before))
        else:
            before = None
        if not spans and self._repeats.news(("begins", shard), self._node.loop.time()):
            log.warning("a shard has no majority: a file keeps the order records that it needs", shard=shard,
                        order_index=first)
        self._busy = True
        self._step(_Work(shard, passing, target, before))

    def _step(self, work: _Work) -> None:
        """Read a part, between two turns of the loop."""
        node, passing = self._node, work.passing
        if self._closed:
            return
        if passing.next <= node.log.snapshot_position().index:  # a state was installed
            self._busy = False
            return
        for entry in node.raft.log_entries(
            passing.next, min(work.target, passing.next + _RUN - 1), _RUN_BYTES):
            self._know(work)
            data = sound(entry.data, Place.ORDER) if entry.kind == EntryKind.RECORD else b""
            passing.take(entry.index, entry.term, len(entry.data), data)
        if passing.next <= work.target and passing.size < _PIECE_BYTES and len(passing) < _PIECE_RECORDS:
            node.loop.call_soon(self._step, work)
            return
        self._know(work)
        piece = passing.finished()
        done = node.loop.run_in_executor(self._thread, self._files.write, piece)
        done.add_done_callback(lambda done: self._written(work, piece, done))

    def _know(self, work: _Work) -> None:
        known, fold = self._folds.get(work.shard, (0, None))
        if fold is not None and work.passing.next == known + 1:
            work.passing.known(fold.copy())

    def _written(self, work: _Work, piece: Piece, done: asyncio.Future[Span]) -> None:
        self._busy = False
        if done.cancelled() or self._closed:
            return
        if (error := done.exception()) is not None:
            # what was not synced is thrown away, and written again
            self._unremoved.append(Span(piece.shard, piece.first, piece.last, work.passing.size, b""))
            self._failed("what a shard needs of the order could not be kept in a file", error)
            return
        self._pause_s = 0.0
        span = done.result()
        spans = self._spans.setdefault(span.shard, [])
        spans.append(span)
        self._claim(span.shard)
        log.info("kept order records for a shard", shard=span.shard, first=span.first, last=span.last,
                 kept_bytes=self.bytes)
        if work.replaces is not None:
            self._remove(span.shard, [work.replaces])

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True)
