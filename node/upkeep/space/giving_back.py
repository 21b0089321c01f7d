"""Gives freed space back to the file system while the store is short of it, or where it is much: RocksDB does
so in its own time.

That is long work, in a thread of its own, so that flushes do not wait for it. One piece runs at a time, and
takes a fifth of the time at most. Work that is wanted meanwhile is done once. What the disk lacks the room
for is tried again while the store is short of space: other shards, hosts and programs may have made room. One
that filled the disk is left to RocksDB. What another shard of the host is busy with waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from node.machine import Machine
from node.storage.errors import Filled, NoRoom, Scarce, outlived
from node.upkeep.space.rewriting import AGAIN_S, Busy

log = structlog.get_logger("defragment")

Work = Callable[[bool], None]  # told whether it may have found no room before
_PAUSES = 4  # times as long as the work before took
# after a try that found no room, at least: it looks at every file
_ROOM_AGAIN_S = 10.0


class GivingBack:
    def __init__(self, machine: Machine, failed: Callable[[str], None]) -> None:
        """``failed``: ends the node, for a reason."""
        self._loop = machine.loop
        self._failed = failed
        self._thread = machine.thread("give-back")
        self._wanted: dict[Work, bool] = {}  # each once, in their order: what it is told
        # what found no room, and has not been wanted since: when it is due, by the loop's clock
        self._lacked: dict[Work, float] = {}
        self._told: set[Work] = set()  # all tries of a shortage that find no room are one line
        self._busy = self._closed = False  # busy: something runs, or the pause behind it

    def want(self, work: Work, again: bool = False) -> None:
        """Have it done, once more than was begun before this call."""
        self._lacked.pop(work, None)
        self._wanted[work] = again
        self._next()

    def second(self, short: Callable[[], bool]) -> None:
        """``short``: whether the store is short of space."""
        if not (self._lacked or self._told):
            return
        if not short():
            self._told.clear()
            return
        now_s = self._loop.time()
        for work in [work for work, due_s in self._lacked.items() if due_s <= now_s]:
            self.want(work, again=True)

    def _next(self) -> None:
        if self._busy or self._closed or not self._wanted:
            return
        self._busy = True
        work = next(iter(self._wanted))
        again = self._wanted.pop(work)
        began_s = self._loop.time()
        done = self._loop.run_in_executor(self._thread, work, again)
        done.add_done_callback(lambda done: self._ended(done, work, again, self._loop.time() - began_s))

    def _ended(self, done: asyncio.Future[None], work: Work, again: bool, took_s: float) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if isinstance(error, Busy):
            self._wanted.setdefault(work, again)
            self._loop.call_later(AGAIN_S, self._rested)
            return
        if isinstance(error, NoRoom):
            filled = isinstance(error, Filled)
            if filled or work not in self._told:
                log.warning("disk space is not freed", why=str(error))
            if not filled:
                self._told.add(work)
                if work not in self._wanted:
                    self._lacked[work] = self._loop.time() + _ROOM_AGAIN_S
        elif error is not None and not outlived(error):
            if isinstance(error, Scarce):
                raise error
            self._failed(f"freeing disk space failed: {error}")
            return
        else:
            self._told.discard(work)
        self._loop.call_later(_PAUSES * took_s, self._rested)

    def _rested(self) -> None:
        self._busy = False
        self._next()

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True)
