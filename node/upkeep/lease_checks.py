"""Each replica checks from time to time whether its keys and leases agree
(``node.storage.state.slices.lease_check``).

Beside requests, in slices, and each host at a time of its own. Mismatches are logged as errors and counted
(``muster_node_lease_mismatches_total``). Many stale rows are removed afterwards
(``node.storage.state.slices.stale_rows``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from node.slicing.slicer import Slicer, Slices
from node.storage.state.slices.lease_check import SLICE_US, check_leases
from node.storage.state.slices.stale_rows import drop_stale_rows

if TYPE_CHECKING:
    from node.storage import StateStore

log = structlog.get_logger("leases")

_STALE = 100  # fewer stale rows may stay


class LeaseChecks:
    def __init__(self, store: StateStore, slicer: Slicer, interval_s: float, now: Callable[[], float],
                 member_id: int, corrupt: Callable[[], None] = lambda: None) -> None:
        """``interval_s`` 0: none. ``member_id``: hosts with others check at other times. ``corrupt`` is
        called on a mismatch."""
        self._store = store
        self._slicer = slicer
        self._interval_s = interval_s
        self._now = now
        self._next = now() + interval_s * (1 + member_id % 64 / 64) / 2
        self._corrupt = corrupt
        self._running = False
        self.done = self.mismatches = 0
        self.removed = 0  # rows

    def second(self) -> None:
        if self._interval_s and not self._running and self._now() >= self._next:
            self._running = True
            self._slicer.start(self._check(), part=True)

    def _check(self) -> Slices:
        began = self._now()
        path = self._store.path
        found = yield from check_leases(self._store)
        if found.stale > _STALE and self._store.path == path:
            for removed in drop_stale_rows(self._store, SLICE_US):
                self.removed += removed
                yield
        self._running = False
        self._next = self._now() + self._interval_s
        if self._store.path != path:
            return  # a snapshot took its place meanwhile: what was found is of no interest any more
        self.done += 1
        self.mismatches += found.mismatches
        if found.mismatches:
            self._corrupt()
            log.error(
                "keys and leases do not agree", mismatches=found.mismatches,
                order_index=found.position.order_index, revision=found.position.revision,
                examples=[f"{m.key!r} and {m.lease:x}: {m.fault.value}" for m in found.examples])
        else:
            log.debug("keys and leases agree", keys=found.keys, on_leases=found.attached, rows=found.rows,
                      took_s=round(self._now() - began, 3))
