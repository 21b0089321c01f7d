"""Backups for clients (decision 68): the whole store at one revision, streamed as the receiver takes it.

A front asks in two steps. First every shard's node of a host holds a checkpoint: shard 0's, which decides the
revision, then the others'. The answer is one PARTIAL record, :data:`HELD` and the checkpoint's name. Then
node 0 builds one file of them in a process of its own (``node.backup.process``) and streams it: PARTIAL
records ``remaining bytes u64 | chunk``, a window ahead of the front's acks (CREDIT), then OK.

A checkpoint or stream ends when its front goes, cancels, or gives no sign of life for long; and when there
are too many and its receiver is slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.settings import NodeSettings
from cluster.wire.messages import HEAD, Status
from node.backup.build import Job
from node.backup.sorting import shrink
from node.links.fronts import FrontLink
from node.machine import NodeMachine
from node.serving.reads import Reads
from node.serving.streams import slow
from node.slicing.yielding import Others
from node.storage import StateStore
from node.storage.snapshot import SnapshotSource

if TYPE_CHECKING:
    from cluster.raft import Raft
    from node.members.roster import Roster
    from node.serving.ranges import Ranges

log = structlog.get_logger("backups")

HELD = struct.Struct("<QQQQ")  # order index, revision, compact revision, member ID; then the name
_WINDOW_BYTES = 512 * 1024
_CHUNK_BYTES = 128 * 1024
_CHUNK_EVERY_S = 0.002
# While others ask: a chunk of 128 KB takes the loops of node and front 0.4 ms, and a receiver on the same
# CPUs longer. Small ones are met more often, but each is soon over, and p99 is made by long ones.
_BESIDE_BYTES = 32 * 1024
_BESIDE_EVERY_S = 0.003
_MOST = 4  # of each kind at once; each holds a checkpoint, or a file, on the disk
_BUDGET_BYTES = 32 << 20  # of rows in the memory of what builds
_NAME = re.compile(r"checkpoint-\d+")


class HasRanges(Protocol):
    @property
    def ranges(self) -> Ranges:
        ...


class BackupsNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore
    reads: Reads

    @property
    def serve(self) -> HasRanges:
        ...

    roster: Roster
    stopping: bool

    def mark_dirty(self, link: FrontLink) -> None: ...


class _Taken:
    """What a front has asked for and not ended."""

    def __init__(self, link: FrontLink, rid: int, now: float) -> None:
        self.link = link
        self.rid = rid
        self.sent = 0
        self.credited = 0
        self.began = self.moved_at = now

    def end(self) -> None:
        """Nothing more of it is built or sent."""

    def free(self, at_once: bool) -> None:
        """Give back its disk space, in a thread unless ``at_once``: a large file takes its time."""


class Hold(_Taken):
    def __init__(self, link: FrontLink, rid: int, source: SnapshotSource, now: float) -> None:
        super().__init__(link, rid, now)
        self.source = source

    def free(self, at_once: bool) -> None:
        self.source.close()


class Backup(_Taken):
    """One file: being built, then streamed."""

    def __init__(self, link: FrontLink, rid: int, names: dict[int, str], folder: Path, now: float) -> None:
        super().__init__(link, rid, now)
        self.names = names  # of the checkpoints, by shard
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.file: BinaryIO | None = None
        self.size_bytes = 0
        self.revision = 0
        self.timer: asyncio.TimerHandle | None = None  # until its next chunk
        self.ended = False

    def end(self) -> None:
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()
        if self.process is not None:
            _kill(self.process)

    def free(self, at_once: bool) -> None:
        if self.file is not None:
            if not at_once:
                shrink(self.file)
            self.file.close()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


class Backups:
    def __init__(self, node: BackupsNode) -> None:
        self._node = node
        self._held: dict[tuple[bytes, int], Hold] = {}
        self._running: dict[tuple[bytes, int], Backup] = {}
        self._queue: deque[Backup] = deque()  # to be built, one after the other
        self._building: Backup | None = None
        self._preparing = 0
        self._wanted: set[tuple[bytes, int]] = set()  # preparing, and not cancelled
        self._serial = 0
        self._folder = Path(node.settings.data_dir) / "backups"
        node.machine.remove_left_snapshots(self._folder)  # by a process that was killed
        self._others = Others(
            node.machine.perf_counter, lambda: (node.raft.last_index, node.serve.ranges.count))
        self.completed = 0

    def ask(self, link: FrontLink, rid: int, body: bytes) -> None:
        """A front's question: empty: hold a checkpoint; names of checkpoints, in JSON: build and stream."""
        if not body:
            self._hold(link, rid)
            return
        names = json.loads(body)  # by shard; a list where they are all of the beginning
        if isinstance(names, list):
            whole = len(names) == self._node.settings.common.shard_count
            names = dict(enumerate(names))
        else:
            names = {int(shard): name for shard, name in names.items()}
            whole = 0 in names
        if not whole or not all(_NAME.fullmatch(name) for name in names.values()):
            raise EtcdError(errors.UNMAPPED, "these are no checkpoints")
        self._build(link, rid, dict(sorted(names.items())))

    # -- checkpoints

    def _hold(self, link: FrontLink, rid: int) -> None:
        node = self._node
        if self._preparing + len(self._held) >= _MOST and not self._made_room(self._held):
            node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
            return
        self._preparing += 1
        self._wanted.add((link.identity, rid))
        made = node.loop.run_in_executor(
            None, node.machine.snapshot_of, node.store, Path(node.settings.data_dir, "outgoing"))
        made.add_done_callback(lambda done: self._made(link, rid, done))

    def _made(self, link: FrontLink, rid: int, done: asyncio.Future[SnapshotSource]) -> None:
        self._preparing -= 1
        wanted = (link.identity, rid) in self._wanted
        self._wanted.discard((link.identity, rid))
        error = done.exception()
        if error is not None:
            self._failed(link, rid, str(error))
            return
        source = done.result()
        if not wanted or not link.alive or self._node.stopping:
            self._free(Hold(link, rid, source, 0.0))
            return
        self._held[link.identity, rid] = Hold(link, rid, source, self._node.loop.time())
        position = source.position
        link.answer(rid, Status.PARTIAL, HELD.pack(
            position.order_index, position.revision, position.compact_revision,
            self._node.settings.common.member_id) + source.directory.name.encode())
        self._node.mark_dirty(link)

    # -- building

    def _build(self, link: FrontLink, rid: int, names: dict[int, str]) -> None:
        if len(self._running) >= _MOST and not self._made_room(self._running):
            self._node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
            return
        self._serial += 1
        backup = Backup(link, rid, names, self._folder / str(self._serial), self._node.loop.time())
        self._running[link.identity, rid] = backup
        self._queue.append(backup)
        self._build_next()

    def _build_next(self) -> None:
        while self._building is None and self._queue:
            backup = self._queue.popleft()
            if backup.ended:
                continue
            self._building = backup
            own = Path(self._node.settings.data_dir)
            checkpoints = [str(own.with_name(f"shard-{shard}") / "outgoing" / name)
                           for shard, name in backup.names.items()]
            members = [member.SerializeToString().hex() for member in self._node.roster.listed()]
            removed = self._node.roster.table.former
            job = Job(checkpoints, str(backup.folder / "backup.db"), members, _BUDGET_BYTES, removed,
                      list(backup.names))
            done = self._node.loop.run_in_executor(None, _run, backup, job)
            done.add_done_callback(partial(self._built, backup))

    def _built(self, backup: Backup, done: asyncio.Future[tuple[dict[str, Any], BinaryIO | None]]) -> None:
        self._building = None
        error = done.exception()
        result: dict[str, Any] = {"error": str(error)}
        if error is None:
            result, backup.file = done.result()
        if not self._node.stopping:
            self._build_next()
        if backup.ended:
            self._free(backup)  # what it has left meanwhile
            return
        if "size_bytes" not in result:
            self.end(backup.link, backup.rid)
            self._failed(backup.link, backup.rid, result.get("unfit") or result.get("error") or "no result")
            return
        log.info("built a backup", **result)
        backup.size_bytes, backup.revision = result["size_bytes"], result["revision"]
        backup.began = backup.moved_at = self._node.loop.time()
        self._pump(backup)

    def _failed(self, link: FrontLink, rid: int, why: str) -> None:
        log.error("a backup could not be made", error=why)
        if link.alive:
            error = EtcdError(errors.UNMAPPED, f"a backup could not be made: {why}")
            self._node.reads.refuse(link, rid, error)

    # -- streaming

    def credit(self, link: FrontLink, rid: int, size: int) -> None:
        """The front has passed on ``size`` bytes in all; as many as before: it still wants it."""
        taken = self._running.get((link.identity, rid)) or self._held.get((link.identity, rid))
        if taken is None:
            return
        taken.moved_at = self._node.loop.time()
        if size <= taken.credited:
            taken.began = taken.moved_at  # its client takes something else first
        taken.credited = max(taken.credited, size)
        if isinstance(taken, Backup) and taken.file is not None:
            self._pump(taken)

    def _pump(self, backup: Backup) -> None:
        link, rid, file = backup.link, backup.rid, backup.file
        assert file is not None
        if backup.timer is not None or backup.sent - backup.credited >= _WINDOW_BYTES:
            return
        beside = self._others.about()
        chunk = file.read(_BESIDE_BYTES if beside else _CHUNK_BYTES)
        if chunk:
            backup.sent += len(chunk)
            link.answer(rid, Status.PARTIAL, (backup.size_bytes - backup.sent).to_bytes(8, "little") + chunk)
            every_s = _BESIDE_EVERY_S if beside else _CHUNK_EVERY_S
            backup.timer = self._node.loop.call_later(every_s, self._next, backup)
        else:
            link.answer(rid, Status.OK, HEAD.pack(backup.revision, self._node.raft.term))
            self.completed += 1
            self.end(link, rid)
        self._node.mark_dirty(link)

    def _next(self, backup: Backup) -> None:
        backup.timer = None
        self._pump(backup)

    # -- ends

    def end(self, link: FrontLink, rid: int) -> None:
        self._wanted.discard((link.identity, rid))
        for kind in (self._held, self._running):
            taken = kind.pop((link.identity, rid), None)
            if taken is not None:
                taken.end()
                self._free(taken)

    def _free(self, taken: _Taken) -> None:
        if self._node.stopping:
            taken.free(True)
        else:
            # not of the pool, which others wait for; the process may end meanwhile
            threading.Thread(target=taken.free, args=(False,), daemon=True).start()

    def _made_room(self, kind: dict[tuple[bytes, int], Any]) -> bool:
        """Whether a slow one has ended for a newcomer's sake."""
        now = self._node.loop.time()
        found = min(kind.values(), key=lambda one: one.moved_at, default=None)
        if found is None or not slow(found.began, found.moved_at, found.credited, now):
            return False
        self._give_up(found)
        return True

    def _give_up(self, taken: _Taken) -> None:
        self.end(taken.link, taken.rid)
        if taken.link.alive:
            self._node.reads.refuse(taken.link, taken.rid, EtcdError(errors.TOO_MANY_REQUESTS))

    def sweep(self) -> None:
        """Every second: end those that are not read."""
        now = self._node.loop.time()
        stall_s = self._node.settings.common.client_stall_timeout_ms / 1000
        for taken in [*self._held.values(), *self._running.values()]:
            if not taken.link.alive or now - taken.moved_at > stall_s:
                self._give_up(taken)

    def close(self) -> None:
        for taken in [*self._held.values(), *self._running.values()]:
            self.end(taken.link, taken.rid)


def _run(backup: Backup, job: Job) -> tuple[dict[str, Any], BinaryIO | None]:
    """In a helper thread: have the file built by a process, and open it."""
    backup.folder.mkdir(parents=True)
    backup.process = process = subprocess.Popen(
        [sys.executable, "-P", "-m", "node.backup.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        process_group=0)
    if backup.ended:
        _kill(process)
    out, _ = process.communicate(job.encode())
    if process.returncode:
        return {"error": f"it ended with code {process.returncode}"}, None
    found: dict[str, Any] = json.loads(out)
    if "size_bytes" not in found:
        return found, None
    file = (backup.folder / "backup.db").open("r+b")
    shutil.rmtree(backup.folder)  # what is open stays until it is closed
    return found, file


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its child, which would write on into a folder that is being removed."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
