"""Flushes of the state in a thread: after so many entries or bytes, while a change of members waits for
them, and some time after an install.

Truncation follows what a *finished flush* of the state covers (H9), never what is merely applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.repeats import Repeats
from cluster.settings import NodeSettings
from node.machine import Machine
from node.storage import RETIRE_S
from node.storage.errors import Scarce, outlived
from node.upkeep.space.disks import Logged

if TYPE_CHECKING:
    from node.storage import Position, StateStore
    from node.upkeep.owner import UpkeepNode

log = structlog.get_logger("upkeep")

# of --order-log-bytes: a sibling of node 0 flushes so often at least, that what is kept for it may go
_FLUSH_SHARE = 16
# between flushes for one change of members, at first and at most: it may wait for a host that is down
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 16.0
_ANEW_S = 4.0  # between two times that these pauses start again
_REST_S = 10.0  # from the beginning of the one before, where another is wanted for what was removed
_LONG_S = 10.0  # a flush that takes longer is told of: the log grows meanwhile
_HURRY_S = 1.6  # longest pause while which it is worth having the order's records at once


class Flushes:
    def __init__(self, node: UpkeepNode, settings: NodeSettings, machine: Machine, store: StateStore, *,
                 logged: Logged, flushed: Callable[[], None]) -> None:
        """``flushed`` is called after each one."""
        self._node = node
        self._loop = machine.loop
        self._thread = machine.thread("flush")
        self._store = store
        self._logged = logged
        self._done = flushed
        self._running = False
        self._since, self._complaints = 0.0, Repeats()  # when the last one began
        self._entries = settings.snapshot_count
        # Large entries count by their bytes too: most of the log is then truncated before RocksDB would write
        # it a second time, when the log's write buffer, of half as much again as the state's, is full
        self.each_bytes = settings.write_buffer_bytes * 3 // 4
        # of other shards' writes a sibling has no rows, so it flushes for them when that helps node 0, and no
        # sooner
        self.each_ordered_bytes = min(4 * self.each_bytes, settings.order_log_bytes // _FLUSH_SHARE)
        self._began_at = (store.position.shard_index, store.position.order_index)
        self._began_bytes = self._began_ordered = 0  # what had been logged then
        self._hasten_at, self._pause_s = 0.0, _PAUSE_S
        self._owed = False  # a source of what moved here waits until it is durable, or a drop does
        self._due_at = 0.0  # when one is, whatever was applied: for databases that are to go; 0: at no time
        self._wanted = self._anew = False  # a change of members waits for them; another one than before
        self._wanted_at = self._anew_at = -_LONGEST_PAUSE_S  # the last wait; when the pauses started again

    def applied(self) -> None:
        """Something was applied: begin a flush if it is time."""
        if self._running:
            return
        node, logged, began = self._node, self._logged, self._began_at
        if (
            max(node.applied_index - began[0], node.order_index - began[1]) >= self._entries
            or logged.own - self._began_bytes >= self.each_bytes
            or logged.ordered - self._began_ordered >= self.each_ordered_bytes
        ):
            self._begin()

    def owe(self) -> None:
        """What is applied by the next heartbeat is flushed then, once: a source of what moved here drops its
        rows only behind that (G10), and a host a dropped shard's files."""
        self._owed = True

    def want(self) -> None:
        """One begins at a heartbeat soon, whatever was applied: small tables are costly to merge."""
        self._due_at = max(self._loop.time(), self._since + _REST_S)

    def replaced(self) -> None:
        """A snapshot was installed. A flush removes the database of before once it is overdue, though nothing
        may be written any more, or a later one does, once it has no readers. Further installs delay none."""
        self._due_at = self._due_at or self._loop.time() + 2 * RETIRE_S

    def hasten(self, *, wanted: bool, anew: bool = False) -> None:
        """Every heartbeat at least; ``wanted``: a change of members waits until what is applied is durable
        (I17). ``anew``: another change than before.

        A change that stops waiting while a host is out of reach finds the pause that it left.
        """
        took_s = self._loop.time() - self._since
        if self._running and took_s > _LONG_S and self._complaints.news("", self._loop.time()):
            log.warning("a flush of the state has not ended yet; the disk may hang", took_s=round(took_s))
        if self._owed and not self._running:
            self._owed = False
            if self._store.durable_position.order_index < self._node.order_index:
                self._begin()
        if 0 < self._due_at <= self._loop.time() and not self._running:
            self._due_at = 0.0
            self._begin()
        self._wanted, self._anew = wanted, self._anew or anew
        if not wanted:
            return
        now = self._loop.time()
        if now - self._wanted_at >= _LONGEST_PAUSE_S:
            self._hasten_at, self._anew = 0.0, True
        self._wanted_at = now
        behind = self._store.durable_position.order_index < self._node.order_index
        if behind and not self._running and now >= self._hasten_at:
            if self._anew and now - self._anew_at >= _ANEW_S:
                self._pause_s, self._anew, self._anew_at = _PAUSE_S, False, now
            self._hasten_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._begin()

    @property
    def hurried(self) -> bool:
        """Whether a change of members waits that began just now: one that waits long may wait for a host."""
        return self._wanted and self._pause_s <= _HURRY_S

    def _begin(self) -> None:
        node, logged = self._node, self._logged
        self._running = True
        self._since = self._loop.time()
        self._began_at = (node.applied_index, node.order_index)
        self._began_bytes, self._began_ordered = logged.own, logged.ordered
        flushing = self._loop.run_in_executor(self._thread, self._store.flush)
        flushing.add_done_callback(self._flushed)

    def _flushed(self, done: asyncio.Future[Position]) -> None:
        self._running = False
        if done.cancelled() or self._node.stopping:
            return
        error = done.exception()
        if error is not None and not outlived(error):
            log.error("flushing the state failed", error=str(error))
            if isinstance(error, Scarce):
                raise error
            self._node.fail(f"flushing the state failed: {error}")
            return
        if self._store.retired and not self._due_at:
            self._due_at = self._loop.time() + RETIRE_S
        self._done()

    def close(self) -> None:
        self._thread.shutdown(wait=True)
