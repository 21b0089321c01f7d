"""When what was written is synced: the loop never waits for a slow disk.

The log is written unsynced, messages that may leave before the sync leave, and one thread syncs
(``flush_wal(sync)`` releases the GIL). Entries that arrive while a sync runs are covered by the next one.

On a disk that is fast and idle the hand-over to a thread costs as much as the sync itself: a lone client
waits for two wake-ups. So while few requests are about and syncs take well under a millisecond, the loop
syncs itself. So does a loop that nobody waits for (``unserved``: a replica where nobody leads, reads or
watches), as long as a sync takes less than a heartbeat does by far (decision 7).

A failed sync ends the process; it is never retried (review (b), Disk).
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
# what a sync takes is told by the quicker ones: the others have waited for a CPU, or for the interpreter
_FALLING, _RISING = 0.3, 0.03


class Syncer:
    """Syncs on request and reports up to which sequence number everything is on disk."""

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
        self.unserved = False  # nobody waits for this loop, as its owner says
        self.took = Histogram(DISK_S)
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a sync is under way in the thread."""
        return self._running

    def request(self, sequence: int, *, quiet: bool) -> bool:
        """Sync what has been written by now. ``quiet``: little else is going on.

        True: it has been done at once. False: ``done(sequence)`` will be called on the loop.
        """
        self._wanted = sequence
        if self._running:
            return False
        if quiet and self._typical_s < (_UNSERVED_LIMIT_S if self.unserved else _INLINE_LIMIT_S):
            self._timed_sync()
            return True
        self._start()
        return False

    def _start(self) -> None:
        self._running = True
        self._queue.put(self._wanted)

    def _timed_sync(self) -> None:
        started = self._perf_counter()
        try:
            self._sync()
        except Exception:
            log.exception("a sync failed: this process must end, nobody knows what is on disk")
            os._exit(FAULT_EXIT)
        took = self._perf_counter() - started
        self._typical_s += (took - self._typical_s) * (_FALLING if took < self._typical_s else _RISING)
        self.took.observe(took)

    def _run(self) -> None:
        while (sequence := self._queue.get()) is not None:
            self._timed_sync()
            try:
                self._loop.call_soon_threadsafe(self._finished, sequence)
            except RuntimeError:  # the loop is closed: the node is stopping
                return

    def _finished(self, sequence: int) -> None:
        self._running = False
        if self._wanted > sequence:
            self._start()
        self._done(sequence)

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._queue.put(None)
        self._thread.join(timeout=10)
