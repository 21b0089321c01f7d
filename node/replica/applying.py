"""A run of committed records being applied: at once, or in slices when many keys are deleted (D8).

Between slices the loop serves heartbeats, votes, acknowledgements, reads of what is applied, and the
evaluation of writes. Later entries wait. Nothing of the run shows before its last slice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from time import perf_counter

import structlog

from cluster.effects.records import Item, items
from cluster.grain import GRAIN
from cluster.histogram import APPLY_S, Histogram
from cluster.order.sound import Place, sound
from cluster.raft import Entry, EntryKind
from node.storage import Applied, Applying, Event

log = structlog.get_logger("apply")

_GROWTH = bytes((Item.GROWTH,))
_RUN_BYTES = 1 << 20  # committed entries are applied in runs of about this size


def one_run(entries: Iterable[Entry]) -> list[tuple[int, int, bytes]]:
    """The entries of a store's only shard to apply together: index, term, the sound part of the record
    (empty: another kind of entry)."""
    run: list[tuple[int, int, bytes]] = []
    size = 0
    for entry in entries:
        data = sound(entry.data, Place.ALONE) if entry.kind == EntryKind.RECORD else b""
        run.append((entry.index, entry.term, data))
        size += len(entry.data)
        if size >= _RUN_BYTES or (_GROWTH in data and _grows(data)):
            break
    return run


def _grows(data: bytes) -> bool:
    """Whether a record has an item GROWTH: what follows may be of the order of several shards. Called for
    nearly no record: first one byte is looked for."""
    return any(kind == Item.GROWTH for kind, _, _ in items(data))


def is_full(run: list[tuple[int, int, bytes]], most: int) -> bool:
    """Whether a run has all it may have, of at most ``most`` entries."""
    return len(run) >= most > 1 or sum([len(data) for _, _, data in run]) >= _RUN_BYTES


class Applies:
    """The long apply that is under way in one replica, if any."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, gather: Callable[[list[Event]], None],
        go_on: Callable[[], None], warning_s: float = math.inf,
        perf_counter: Callable[[], float] = perf_counter,
    ) -> None:
        """``warning_s``: an apply that takes longer is logged."""
        self._loop = loop
        self._gather = gather
        self._go_on = go_on
        self._work: Applying | None = None
        self._done: Callable[[Applied], None]
        self.took = Histogram(APPLY_S)
        self.slow = 0  # that took longer than ``warning_s``
        self._warning_s = warning_s
        self._perf_counter = perf_counter
        self._began = 0.0

    @property
    def busy(self) -> bool:
        return self._work is not None

    def run(self, work: Applying, done: Callable[[Applied], None]) -> None:
        """Apply; ``done`` is called within this call or later, and then ``go_on`` after it."""
        assert self._work is None, "one run after the other"
        began = self._perf_counter()
        try:
            events = next(work)
        except StopIteration as finished:
            self._ended(began)
            done(finished.value)
            return
        self._began = began
        self._gather(events)
        self._work, self._done = work, done
        self._loop.call_soon(self._slice, work)

    def at_once(self, apply: Callable[[], Applied]) -> Applied:
        began = self._perf_counter()
        applied = apply()
        self._ended(began)
        return applied

    def _ended(self, began: float) -> None:
        took = self._perf_counter() - began
        self.took.observe(took)
        if took > self._warning_s:
            self.slow += 1
            log.warning("apply request took too long", took_s=round(took, 4), expected_s=self._warning_s)

    def _slice(self, work: Applying) -> None:
        if work is not self._work:
            return  # abandoned
        until = self._perf_counter() + GRAIN.apply_slice_s
        try:
            while self._perf_counter() < until:
                self._gather(next(work))
        except StopIteration as finished:
            self._work = None
            self._ended(self._began)
            self._done(finished.value)
            self._go_on()
        else:
            self._loop.call_soon(self._slice, work)

    def abandon(self) -> None:
        self._work = None
