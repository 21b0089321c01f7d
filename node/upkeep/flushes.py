"""Flushes of the state: after so many entries, and after so many bytes, in a thread.

Truncation follows what a *finished flush* of the state covers (H9), never what is merely applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.settings import NodeSettings
from node.machine import Machine
from node.upkeep.space.disks import Logged

if TYPE_CHECKING:
    from node.storage import Position, StateStore

log = structlog.get_logger("upkeep")

# of --order-log-bytes: a sibling of node 0 flushes so often at least, that what is kept for it may go
_FLUSH_SHARE = 16


class FlushesNode(Protocol):
    """What flushes need of their node besides."""

    stopping: bool
    applied_index: int
    order_index: int

    def fail(self, reason: str) -> None: ...


class Flushes:
    """Of one node's state."""

    def __init__(self, node: FlushesNode, settings: NodeSettings, machine: Machine, store: StateStore, *,
                 logged: Logged, flushed: Callable[[], None]) -> None:
        """``flushed`` is called after each one."""
        self._node = node
        self._loop = machine.loop
        self._thread = machine.thread("flush")
        self._store = store
        self._logged = logged
        self._done = flushed
        self._running = False
        self._entries = settings.snapshot_count
        # Large entries count by their bytes too: most of the log is then truncated before RocksDB would write
        # it a second time, when the log's write buffer, of half as much again as the state's, is full
        self.each_bytes = settings.write_buffer_bytes * 3 // 4
        # of other shards' writes a sibling has no rows, so it flushes for them when that helps node 0, and no
        # sooner
        self.each_ordered_bytes = min(4 * self.each_bytes, settings.order_log_bytes // _FLUSH_SHARE)
        self._began_at = (store.position.shard_index, store.position.order_index)
        self._began_bytes = self._began_ordered = 0  # what had been logged then

    def applied(self) -> None:
        """Something was applied: is it time to flush?"""
        if self._running:
            return
        node, logged, began = self._node, self._logged, self._began_at
        if (
            max(node.applied_index - began[0], node.order_index - began[1]) >= self._entries
            or logged.own - self._began_bytes >= self.each_bytes
            or logged.ordered - self._began_ordered >= self.each_ordered_bytes
        ):
            self._running = True
            self._began_at = (node.applied_index, node.order_index)
            self._began_bytes, self._began_ordered = logged.own, logged.ordered
            flushing = self._loop.run_in_executor(self._thread, self._store.flush)
            flushing.add_done_callback(self._flushed)

    def _flushed(self, done: asyncio.Future[Position]) -> None:
        self._running = False
        if done.cancelled() or self._node.stopping:
            return
        if done.exception() is not None:
            log.error("flushing the state failed", error=str(done.exception()))
            self._node.fail(f"flushing the state failed: {done.exception()}")
            return
        self._done()

    def close(self) -> None:
        """Wait for the one that runs."""
        self._thread.shutdown(wait=True)
