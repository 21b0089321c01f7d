"""Backups for clients: this shard's state, streamed as far as the receiver gives credit.

SNAPSHOT is answered by PARTIAL records ``remaining bytes u64 | chunk``, at most a window's worth ahead of what the
front has acknowledged (CREDIT), then OK with the revision of what was sent: a slow client holds up nobody and
fills no memory. A backup ends when its front goes, cancels, or gives no credit for long, and when there are as many as
may be and its receiver is slow: then it makes room for a newcomer.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.serving.streams import slow
from node.storage.snapshot import SnapshotSource

if TYPE_CHECKING:
    from node.replica.server import Node

log = structlog.get_logger("backups")

_WINDOW_BYTES = 512 * 1024
_CHUNK_BYTES = 128 * 1024
_MOST = 4  # backups under way at once; each holds a checkpoint on the disk


class Backup:
    """One backup under way."""

    __slots__ = ("began", "credited", "link", "moved_at", "rid", "sent", "source")

    def __init__(self, link: FrontLink, rid: int, source: SnapshotSource, now: float) -> None:
        self.link = link
        self.rid = rid
        self.source = source
        self.sent = 0
        self.credited = 0
        self.began = self.moved_at = now


class Backups:
    """All backups of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running: dict[tuple[bytes, int], Backup] = {}
        self._preparing = 0
        self._wanted: set[tuple[bytes, int]] = set()  # of those, who has not cancelled
        self.completed = 0

    def start(self, link: FrontLink, rid: int) -> None:
        """Make a checkpoint and begin to stream it."""
        node = self._node
        if self._preparing + len(self._running) >= _MOST and not self._made_room():
            node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
            return
        self._preparing += 1
        self._wanted.add((link.identity, rid))
        made = node.loop.run_in_executor(
            None, node.machine.snapshot_of, node.store, Path(node.settings.data_dir, "outgoing"))
        made.add_done_callback(lambda done: self._made(link, rid, done))

    def _made_room(self) -> bool:
        """Whether a slow one has ended for a newcomer's sake."""
        now = self._node.loop.time()
        found = min(self._running.values(), key=lambda one: one.moved_at, default=None)
        if found is None or not slow(found.began, found.moved_at, found.credited, now):
            return False
        self._give_up(found)
        return True

    def _give_up(self, backup: Backup) -> None:
        self.end(backup.link, backup.rid)
        if backup.link.alive:
            self._node.reads.refuse(backup.link, backup.rid, EtcdError(errors.TOO_MANY_REQUESTS))

    def _made(self, link: FrontLink, rid: int, done: asyncio.Future[SnapshotSource]) -> None:
        self._preparing -= 1
        wanted = (link.identity, rid) in self._wanted
        self._wanted.discard((link.identity, rid))
        error = done.exception()
        if error is not None:
            log.error("a backup could not be made", error=str(error))
            self._node.reads.refuse(link, rid, EtcdError(errors.UNMAPPED, f"a backup could not be made: {error}"))
            return
        backup = Backup(link, rid, done.result(), self._node.loop.time())
        if not wanted or not link.alive or self._node.stopping:
            backup.source.close()
            return
        self._running[link.identity, rid] = backup
        self._pump(backup)

    def credit(self, link: FrontLink, rid: int, size: int) -> None:
        """The front has passed on so many bytes in all."""
        backup = self._running.get((link.identity, rid))
        if backup is not None:
            backup.moved_at = self._node.loop.time()
            if size <= backup.credited:
                backup.began = backup.moved_at  # another shard's turn: it is not this one that is slow
            backup.credited = max(backup.credited, size)
            self._pump(backup)

    def _pump(self, backup: Backup) -> None:
        link, rid, source = backup.link, backup.rid, backup.source
        while backup.sent - backup.credited < _WINDOW_BYTES:
            chunk = source.next_chunk(_CHUNK_BYTES)
            if not chunk:
                link.answer(rid, Status.OK, HEAD.pack(source.position.revision, self._node.raft.term))
                self.completed += 1
                self.end(link, rid)
                break
            backup.sent += len(chunk)
            link.answer(rid, Status.PARTIAL, (source.size_bytes - backup.sent).to_bytes(8, "little") + chunk)
        self._node._mark_dirty(link)

    def end(self, link: FrontLink, rid: int) -> None:
        """Finished, cancelled, or its front is gone."""
        self._wanted.discard((link.identity, rid))
        backup = self._running.pop((link.identity, rid), None)
        if backup is not None:
            backup.source.close()

    def sweep(self) -> None:
        """Every second: end those that nobody reads."""
        now = self._node.loop.time()
        for backup in list(self._running.values()):
            if not backup.link.alive or now - backup.moved_at > self._node.settings.common.client_stall_timeout_ms / 1000:
                self._give_up(backup)

    def close(self) -> None:
        """End them all."""
        for backup in list(self._running.values()):
            self.end(backup.link, backup.rid)
