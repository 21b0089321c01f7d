"""When written data is synced: the loop never waits for a slow disk.

The log is written unsynced, messages that may leave before the sync leave, and one thread syncs
(``flush_wal(sync)`` releases the GIL). The next sync covers entries that arrive meanwhile.

On a fast and idle disk the hand-over to a thread costs as much as the sync. So the loop itself syncs while
few requests are under way and syncs take well under a millisecond. So does an ``unserved`` loop, of a replica
without leader, reads or watches, while a sync is much shorter than a heartbeat (decision 7).

A failed sync ends the process, and is never retried.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable

import structlog

from cluster.histogram import DISK_S, Histogram
from tools.muster.machine.process.crash import FAULT_EXIT

log = structlog.get_logger("disk")

_INLINE_LIMIT_S = 0.0005
_UNSERVED_LIMIT_S = 0.005
# the quicker syncs tell the disk's time: the others waited for a CPU or the interpreter
_FALLING, _RISING = 0.3, 0.03


class Syncer:
    """See ``cluster.machine.Syncs``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sync: Callable[[], None], done: Callable[[int], None],
                 perf_counter: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._sync = sync
        self._perf_counter = perf_counter
        self._done = done
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._running = False
        self._wanted = 0
        self._typical_s = 0.0
        self.unserved = False  # no client waits for this loop, as its owner says
        self.took = Histogram(DISK_S)
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._running

    def request(self, sequence: int, *, quiet: bool) -> bool:
        """Sync what is written by now. ``quiet``: little else is under way. True: done. False:
        ``done(sequence)`` follows on the loop."""
        self._wanted = sequence
        if self._running:
            return False
        if quiet and self._typical_s < (_UNSERVED_LIMIT_S if self.unserved else _INLINE_LIMIT_S):
            self._timed_sync()
            return True
        self._start()
        return False

    def again(self) -> None:
        """Sync once more; the last number is reported again."""
        if not self._running:
            self._start()

    def _start(self) -> None:
        self._running = True
        self._queue.put(self._wanted)

    def _timed_sync(self) -> None:
        started = self._perf_counter()
        try:
            self._sync()
        except Exception:
            log.exception("a sync failed, so the disk's content is unknown: this process ends")
            os._exit(FAULT_EXIT)
        took = self._perf_counter() - started
        self._typical_s += (took - self._typical_s) * (_FALLING if took < self._typical_s else _RISING)
        self.took.observe(took)

    def _run(self) -> None:
        while (sequence := self._queue.get()) is not None:
            self._timed_sync()
            try:
                self._loop.call_soon_threadsafe(self._finished, sequence)
            except RuntimeError:  # the loop is closed: the node stops
                return

    def _finished(self, sequence: int) -> None:
        self._running = False
        if self._wanted > sequence:
            self._start()
        self._done(sequence)

    def close(self) -> None:
        """Let the thread end after its work."""
        self._queue.put(None)
        self._thread.join(timeout=10)
