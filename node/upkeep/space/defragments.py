"""Defragmentation for clients: this replica's files are rewritten without what was deleted.

It runs in a thread of its own, beside requests and truncation. Clients that ask while one is under way share
the next one, which begins after they asked: their answer means that what they deleted is gone. Where another
shard of the host is being rewritten, they wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.histogram import DEFRAG_S, Histogram
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.storage.errors import NoRoom, SyncFailed, outlived
from node.upkeep.space.rewriting import AGAIN_S, Busy

if TYPE_CHECKING:
    from node.machine import NodeMachine
    from node.storage import StateStore
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("defragment")

_MOST = 1000  # requests that wait for the next one


class DefragmentsNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    store: StateStore
    raft: Raft
    upkeep: Upkeep
    stopping: bool

    def mark_dirty(self, link: FrontLink) -> None: ...

    def fail(self, reason: str) -> None: ...


class Defragments:
    def __init__(self, node: DefragmentsNode) -> None:
        self._node = node
        self._thread = node.machine.thread("defragment")
        self._waiting: list[tuple[FrontLink, int]] = []
        self._asked: list[tuple[FrontLink, int]] = []  # for the one that is under way
        self._left = False
        self.running = False
        self.took = Histogram(DEFRAG_S)

    def ask(self, link: FrontLink, rid: int) -> None:
        """Answer once the files have been rewritten."""
        if len(self._waiting) >= _MOST:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        if self._left:
            raise EtcdError(errors.STOPPED)
        self._waiting.append((link, rid))
        if not self.running:
            self._begin()

    def leave(self) -> None:
        """This node is about to end, and its fronts were told: nobody waits any more."""
        self._left = True
        waiting, self._asked, self._waiting = [*self._asked, *self._waiting], [], []
        for link, rid in waiting:
            if link.alive:
                link.answer(rid, Status.ERROR, EtcdError(errors.STOPPED).encode())
                self._node.mark_dirty(link)

    def _begin(self) -> None:
        self.running = True
        node = self._node
        log.info("defragmenting", shard=node.settings.shard, size_bytes=node.store.size_bytes())
        self._try()

    def _try(self) -> None:
        node = self._node
        if node.stopping or not self._waiting:
            return  # closed meanwhile
        self._asked, self._waiting = self._waiting, []
        began = node.machine.monotonic()
        done = node.loop.run_in_executor(self._thread, node.upkeep.rewriting.rewrite)
        done.add_done_callback(lambda done: self._ended(done, node.machine.monotonic() - began))

    def _ended(self, done: asyncio.Future[None], took_s: float) -> None:
        node = self._node
        asked, self._asked = self._asked, []
        if done.cancelled() or node.stopping:
            self.running = False
            return
        error = done.exception()
        if isinstance(error, Busy):
            self._waiting = [*asked, *self._waiting]
            node.loop.call_later(AGAIN_S, self._try)
            return
        self.running = False
        if outlived(error):
            error = None  # as for an install that ends one
        if isinstance(error, SyncFailed):
            node.fail(f"defragmenting failed: {error}")
            return
        if isinstance(error, NoRoom):
            log.warning("not defragmented", shard=node.settings.shard, why=str(error))
            status, body = Status.ERROR, EtcdError(errors.UNMAPPED, str(error)).encode()
        elif error is not None:
            raise error
        else:
            self.took.observe(took_s)
            log.info(
                "defragmented", shard=node.settings.shard, size_bytes=node.store.size_bytes(),
                took_s=round(took_s, 3))
            status, body = Status.OK, HEAD.pack(node.store.revision, node.raft.term)
        node.upkeep.quota.in_use()
        for link, rid in asked:
            if link.alive:
                link.answer(rid, status, body)
                node.mark_dirty(link)
        if self._waiting:
            self._begin()

    def close(self) -> None:
        self._waiting.clear()
        self._thread.shutdown(wait=True)
