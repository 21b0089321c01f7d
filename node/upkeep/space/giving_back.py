"""Gives freed space back to the file system while the store is short of it: RocksDB does so in its own time.

That is long work, in a thread of its own, so that flushes do not wait for it. One piece runs at a time, and
takes a fifth of the time at most. Work that is wanted meanwhile is done once. What the disk lacks the room
for, or may lack it for all its hosts, is tried again while the store is short of space, as the host has its
turn (``rewriting``): other shards, hosts and programs may have made room. One that filled the disk is left to
RocksDB. What another shard of the host is busy with waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import structlog

from node.machine import Machine
from node.storage.errors import Filled, NoRoom
from node.upkeep.space.rewriting import AGAIN_S, Busy, Deferred

log = structlog.get_logger("defragment")

Work = Callable[[], None]
_PAUSES = 4  # times as long as the work before took
# after a try that found no room, at least: it looks at every file
_ROOM_AGAIN_S = 6.0


class GivingBack:
    def __init__(self, machine: Machine, failed: Callable[[str], None]) -> None:
        """``failed``: ends the node, for a reason."""
        self._loop = machine.loop
        self._failed = failed
        self._thread = machine.thread("give-back")
        self._wanted: dict[Work, None] = {}  # each once, in their order
        # what waits for this host's turn, and has not been wanted since: when it is due, by the loop's clock
        self._waiting: dict[Work, float] = {}
        # all tries of a shortage that find no room are one line, and all that wait for a turn
        self._told: set[tuple[Work, type[BaseException]]] = set()
        self._busy = self._closed = False  # busy: something runs, or the pause behind it

    def want(self, work: Work) -> None:
        """Have it done, once more than was begun before this call."""
        self._waiting.pop(work, None)
        self._wanted[work] = None
        self._next()

    def try_in_turn(self, work: Work) -> None:
        """Have it done once the host has its turn, while the store is short of space."""
        self._waiting.setdefault(work, self._loop.time())

    def second(self, short: Callable[[], bool], turn: Callable[[], bool]) -> None:
        """``short``: whether the store is short of space. ``turn``: whether this host may try again."""
        if not (self._waiting or self._told):
            return
        if not short():
            self._told.clear()
            return
        now_s = self._loop.time()
        due = [work for work, at_s in self._waiting.items() if at_s <= now_s]
        if due and turn():
            for work in due:
                self._waiting[work] = math.inf  # until it has ended
                self._wanted[work] = None
            self._next()

    def _next(self) -> None:
        if self._busy or self._closed or not self._wanted:
            return
        self._busy = True
        work = next(iter(self._wanted))
        del self._wanted[work]
        began_s = self._loop.time()
        done = self._loop.run_in_executor(self._thread, work)
        done.add_done_callback(lambda done: self._ended(done, work, self._loop.time() - began_s))

    def _ended(self, done: asyncio.Future[None], work: Work, took_s: float) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if isinstance(error, Busy):
            if isinstance(error, Deferred):
                self._wanted.pop(work, None)
                if self._news(work, error):
                    log.info("disk space is freed later", why=str(error))
                self._waiting[work] = self._loop.time()
            elif work in self._waiting:
                self._waiting[work] = self._loop.time()
            else:
                self._wanted[work] = None
            self._loop.call_later(AGAIN_S, self._rested)
            return
        self._waiting.pop(work, None)
        if isinstance(error, NoRoom):
            filled = isinstance(error, Filled)
            if self._news(work, error) or filled:
                log.warning("disk space is not freed", why=str(error))
            if not filled:
                self._waiting[work] = self._loop.time() + _ROOM_AGAIN_S
        elif error is not None:
            self._failed(f"freeing disk space failed: {error}")
            return
        else:
            self._told = {told for told in self._told if told[0] != work}
        self._loop.call_later(_PAUSES * took_s, self._rested)

    def _news(self, work: Work, error: BaseException) -> bool:
        told = work, type(error)
        if told in self._told:
            return False
        self._told.add(told)
        return True

    def _rested(self) -> None:
        self._busy = False
        self._next()

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True)
