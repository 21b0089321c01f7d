"""Backups for clients (decision 68): the whole store at one revision, streamed as the receiver takes it.

A front asks in two steps. First every shard's node of a host holds a checkpoint: shard 0's, which decides the
revision, then the others'. The answer is one PARTIAL record, HELD and the checkpoint's name. Then
node 0 starts a process (``node.backup.process``), which writes one file of them to a pipe, and passes it on:
PARTIAL records ``remaining bytes u64 | chunk``, a window ahead of the front's acks (CREDIT), then OK.

A checkpoint or stream ends when its front goes, cancels, or gives no sign of life for long; and when there
are too many and its receiver is slow.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.histogram import CHECKPOINT_S, Histogram
from cluster.settings import NodeSettings
from cluster.wire.messages import HEAD, HELD, Status
from node.backup.build import Job
from node.backup.sorting import shrink
from node.links.fronts import FrontLink
from node.machine import NodeMachine
from node.serving.reads import Reads
from node.serving.streams import slow
from node.slicing.yielding import Others
from node.storage import StateStore
from node.storage.directory import free_bytes
from node.storage.snapshot import SnapshotSource

if TYPE_CHECKING:
    from cluster.raft import Raft
    from node.members.roster import Roster
    from node.serving.ranges import Ranges

log = structlog.get_logger("backups")

_WINDOW_BYTES = 512 * 1024
_CHUNK_BYTES = 128 * 1024
_CHUNK_EVERY_S = 0.001
# While others ask: a chunk of 128 KB takes the loops of node and front 0.4 ms, and a receiver on the same
# CPUs longer. Small ones are met more often, but each is soon over, and p99 is made by long ones.
_BESIDE_BYTES = 64 * 1024
_BESIDE_EVERY_S = 0.001
_DRY_S = 0.005  # until a pipe that had less than a chunk is looked at again: many small ones cost more
_MOST = 4  # of each kind at once; each holds a checkpoint, or a process and rows on the disk
_BUDGET_BYTES = 32 << 20  # of rows in the memory of what builds
_PIPE_BYTES = 1 << 20
_SPARE_BYTES = 32 << 20  # of the disk, at least
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
        self.made_at = now

    def free(self, at_once: bool) -> None:
        self.source.close()


class Backup(_Taken):
    """One file: its rows are being gathered, then it is streamed."""

    def __init__(self, link: FrontLink, rid: int, names: dict[int, str], folder: Path, now: float) -> None:
        super().__init__(link, rid, now)
        self.names = names  # of the checkpoints, by shard
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = False  # no thread reads the pipe any more
        self.pipe = -1  # the file comes out of it; -1: not yet, or no more
        self.size_bytes = 0
        self.revision = 0
        self.timer: asyncio.TimerHandle | None = None  # until its next chunk
        self.ended = False

    def end(self) -> None:
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()
        self.pipe = -1
        if self.process is not None:
            _kill(self.process)

    def free(self, at_once: bool) -> None:
        if self.process is not None and self.begun:
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process.wait()
        if not at_once:
            with suppress(OSError):
                for path in self.folder.iterdir():
                    with path.open("r+b") as file:
                        shrink(file)
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
        self._others = Others(
            node.machine.perf_counter, lambda: (node.raft.last_index, node.serve.ranges.count))
        self.completed = 0
        self.lives = Histogram(CHECKPOINT_S)  # of checkpoints

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
            spare_bytes = spare(own, self._node.settings.min_free_disk_bytes)
            job = Job(checkpoints, str(backup.folder), members, _BUDGET_BYTES, removed, list(backup.names),
                      spare_bytes)
            backup.began = self._node.loop.time()
            done = self._node.loop.run_in_executor(None, _begin, backup, job)
            done.add_done_callback(partial(self._built, backup))

    def _built(self, backup: Backup, done: asyncio.Future[dict[str, Any]]) -> None:
        self._building = None
        backup.begun = True
        error = done.exception()
        result: dict[str, Any] = {"error": str(error)} if error is not None else done.result()
        if not self._node.stopping:
            self._build_next()
        if backup.ended:
            self._free(backup)  # what it has left meanwhile
            return
        if "size_bytes" not in result:
            self.end(backup.link, backup.rid)
            unfit = result.get("unfit")
            self._failed(backup.link, backup.rid, unfit or result["error"],
                         errors.BACKUP_UNFIT if unfit else errors.UNMAPPED)
            return
        assert backup.process is not None
        assert backup.process.stdout is not None
        now = self._node.loop.time()
        log.info("sending a backup", seconds=round(now - backup.began, 3), **result)
        backup.size_bytes, backup.revision = result["size_bytes"], result["revision"]
        backup.pipe = backup.process.stdout.fileno()
        os.set_blocking(backup.pipe, False)
        backup.began = backup.moved_at = now
        self._pump(backup)

    def _failed(
        self, link: FrontLink, rid: int, why: str, kind: errors.ErrorKind = errors.UNMAPPED
    ) -> None:
        log.error("a backup could not be made", error=why)
        if link.alive:
            error = EtcdError(kind, f"a backup could not be made: {why}")
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
        if isinstance(taken, Backup) and taken.pipe >= 0:
            self._pump(taken)

    def _pump(self, backup: Backup) -> None:
        if backup.timer is not None or backup.sent - backup.credited >= _WINDOW_BYTES:
            return
        link, rid = backup.link, backup.rid
        beside = self._others.about()
        wanted = _BESIDE_BYTES if beside else _CHUNK_BYTES
        chunk: bytes | None = None
        with suppress(BlockingIOError):
            chunk = os.read(backup.pipe, wanted)
        if chunk is None or len(chunk) > 0:
            every_s = _BESIDE_EVERY_S if beside else _CHUNK_EVERY_S
            if chunk is None or len(chunk) < wanted:
                every_s = _DRY_S
            backup.timer = self._node.loop.call_later(every_s, self._next, backup)
            if chunk is None:
                if backup.credited >= backup.sent:  # its process pauses: no fault of its client
                    backup.began = backup.moved_at = self._node.loop.time()
                return
            backup.sent += len(chunk)
            left = max(backup.size_bytes - backup.sent, 0)
            link.answer(rid, Status.PARTIAL, left.to_bytes(8, "little") + chunk)
        elif backup.sent != backup.size_bytes:
            self.end(link, rid)
            self._failed(link, rid, f"its process wrote {backup.sent} bytes of {backup.size_bytes}")
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
                if isinstance(taken, Hold):
                    self.lives.observe(self._node.loop.time() - taken.made_at)
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


def spare(data_dir: Path, margin_bytes: int) -> int:
    """How much of the disk a backup leaves free, so that it neither makes the host short of space, nor very
    short where it is short already (``node.upkeep.space.disks``). A quarter more is for other writes."""
    with suppress(OSError):
        if free_bytes(data_dir) < margin_bytes:
            margin_bytes //= 2
    return max(margin_bytes + margin_bytes // 4, _SPARE_BYTES)


def _begin(backup: Backup, job: Job) -> dict[str, Any]:
    """In a helper thread: start the process, and wait for what it says before the file."""
    backup.folder.mkdir(parents=True)
    backup.process = process = subprocess.Popen(
        [sys.executable, "-P", "-m", "node.backup.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        bufsize=0, process_group=0)  # unbuffered: behind the line nothing is read here
    if backup.ended:
        _kill(process)
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # a user may have used up its share of pipes
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with suppress(BrokenPipeError), process.stdin as told:
        told.write(job.encode())
    said = process.stdout.readline()
    if not said.endswith(b"\n"):
        return {"error": f"it ended with code {process.wait()}"}
    found: dict[str, Any] = json.loads(said)
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its child, which would write on into a folder that is being removed."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
