"""A host's log on its disk, which loses at a crash what was not synced, and the thread that syncs it. They
have the faces of ``node.storage.RaftLog`` and ``tools.muster.machine.disk.syncer.Syncer``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from cluster.order.passing import Piece
from cluster.raft import Configuration, Entry, HardState, SnapshotPosition
from node.storage.kept import Span, decode, encode
from tests.raft_log import MemoryLog
from tests.sim.world.order_world import DiskBroke, Process, Violation


class KeptDisk:
    """``node.storage.kept.KeptFiles``: what is written is durable when the thread has done it."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[int, int, int], Piece] = {}
        self.removed: list[Span] = []  # and not looked at yet

    def found(self) -> list[Span]:
        return [self._span(piece) for _, piece in sorted(self.pieces.items())]

    def read(self, span: Span) -> Piece:
        return decode(encode(self.pieces[span[:3]]))

    def write(self, piece: Piece) -> Span:
        self.pieces[piece.shard, piece.first, piece.last] = piece
        return self._span(piece)

    def remove(self, spans: list[Span]) -> None:
        for span in spans:
            if self.pieces.pop(span[:3], None) is not None:
                self.removed.append(span)

    @staticmethod
    def _span(piece: Piece) -> Span:
        return Span(piece.shard, piece.first, piece.last, len(encode(piece)), piece.fold)

    def covers(self, shard: int, after: int, last: int) -> bool:
        """Whether all records of a shard behind ``after`` are here, up to the last one."""
        for (of, first, to), _ in sorted(self.pieces.items()):
            if of == shard and first <= after + 1:
                after = max(after, to)
        return after >= last


class Durable:
    """What a crash leaves of a log."""

    __slots__ = ("hard", "log", "metas", "position")

    def __init__(self, hard: HardState, position: SnapshotPosition, log: list[Entry],
                 metas: dict[str, bytes]) -> None:
        self.hard, self.position, self.log, self.metas = hard, position, log, metas


class LogDisk(MemoryLog):
    """The log as the process sees it, and as a crash leaves it."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.metas: dict[str, bytes] = {}
        self.kept = KeptDisk()  # beside the order log
        self.notes = [(0, 0)]  # of what was committed, the latest last
        self.had_applied = 0  # by a node 0 that was killed: its notes are whole
        self.writes = 0
        self.failing = False  # no sync succeeds, no write finds room
        self.perhaps_dies: Callable[[str], None] = lambda where: None
        self._durable = Durable(self.hard, self.position, [], {})
        self._unsynced: list[Callable[[LogDisk | Durable], object]] = []

    def begin(self, configuration: Configuration) -> None:
        """A node opens it. ``configuration``: with which an empty log begins."""
        if not (self.writes or self.log or self.position.index):
            self.position = replace(self._durable.position, configuration=configuration)
            self._durable.position = self.position

    # -- LogStorage

    def term(self, index: int) -> int:
        if index == self.position.index:
            return self.position.term
        if not self.position.index < index <= self.last_index():
            raise IndexError(f"entry {index} outside of ({self.position.index}, {self.last_index()}]")
        return super().term(index)

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if not self.position.index < first <= last <= self.last_index():
            raise IndexError(
                f"entries [{first}, {last}] outside of ({self.position.index}, {self.last_index()}]"
            )
        return super().entries(first, last, max_bytes)

    def bytes_after(self, index: int) -> int:
        return sum([len(entry.data) for entry in self.log[max(0, index - self.position.index):]])

    def file_bytes(self) -> int:
        return self.bytes_after(0)

    def index_before(self, size: int) -> int:
        for entry in reversed(self.log):
            if size <= 0:
                return entry.index
            size -= len(entry.data)
        return self.position.index

    # -- writes

    def _write(self, change: Callable[[LogDisk | Durable], object]) -> None:
        if self.failing:
            raise DiskBroke("no space left for the log")
        change(self)
        self._unsynced.append(change)
        self.writes += 1

    def committed(self) -> tuple[int, int]:
        return self.notes[-1]

    def mark_is_behind(self) -> bool:
        return False  # there is none: no crash here damages what was synced

    def note_committed(self, index: int) -> None:
        self.notes = [*self.notes[-8:], (index, self.term(index))]

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        entries = list(entries)

        def change(disk: LogDisk | Durable) -> None:
            if entries:
                keep = entries[0].index - disk.position.index - 1
                assert 0 <= keep <= len(disk.log), "a gap in the log"
                disk.log[keep:] = entries
            if hard_state is not None:
                assert hard_state.term >= disk.hard.term, "I2: a term never falls"
                disk.hard = hard_state

        self._write(change)

    def sync(self, writes: int | None = None) -> None:
        """Everything written so far (up to that many writes) is durable."""
        covered = (
            len(self._unsynced) if writes is None else max(0, len(self._unsynced) - (self.writes - writes))
        )
        for change in self._unsynced[:covered]:
            change(self._durable)
        del self._unsynced[:covered]

    def crash(self, survivors: int) -> None:
        """The first ``survivors`` of the unsynced writes reached the disk, the others are lost."""
        self.sync(self.writes - len(self._unsynced) + min(survivors, len(self._unsynced)))
        self._unsynced.clear()
        left = self._durable
        self.hard, self.position = left.hard, left.position
        self.log, self.metas = list(left.log), dict(left.metas)

    def copied(self) -> LogDisk:
        """Another disk with what a crash would leave on this one."""
        left = self._durable
        copy = LogDisk(left.position.configuration)
        copy._durable = Durable(left.hard, left.position, list(left.log), dict(left.metas))
        copy.kept.pieces = dict(self.kept.pieces)
        copy.crash(0)
        copy.notes, copy.perhaps_dies = [(0, 0)], self.perhaps_dies
        return copy

    def lose_notes(self, random: Random) -> None:
        """A power cut: an older note is left, or none."""
        self.notes = random.choice(([(0, 0)], self.notes[: random.randint(1, len(self.notes))]))

    @property
    def unsynced(self) -> int:
        return len(self._unsynced)

    @property
    def durable_hard(self) -> HardState:
        """The hard state that a crash would leave."""
        return self._durable.hard

    def holds(self, index: int, term: int) -> bool:
        """Whether a crash would leave this entry, or a snapshot that covers it."""
        left = self._durable
        at = index - left.position.index - 1
        return at < 0 or (at < len(left.log) and left.log[at].term == term)

    def truncate_prefix(self, position: SnapshotPosition) -> None:
        if position.index <= self.position.index:
            return
        assert self.term(position.index) == position.term

        def change(disk: LogDisk | Durable) -> None:
            disk.log = disk.log[position.index - disk.position.index :]
            disk.position = position

        self._write(change)

    def begin_install(self, position: SnapshotPosition) -> None:
        def change(disk: LogDisk | Durable) -> None:
            disk.metas["installing"] = b"1"

        self.installing = position
        self._write(change)
        self.perhaps_dies("before an install is logged")
        self.sync()
        self.perhaps_dies("when an install is logged")

    def finish_install(self, position: SnapshotPosition) -> None:
        self.perhaps_dies("when a state is installed")
        if position.index > self.position.index:
            if position.index <= self.last_index() and self.term(position.index) == position.term:
                self.truncate_prefix(position)
            else:
                def change(disk: LogDisk | Durable) -> None:
                    disk.log, disk.position = [], position

                self._write(change)
                self.sync()
        self._write(lambda disk: disk.metas.pop("installing", None))

    def verify(self, applied_index: int) -> None:
        if "installing" in self.metas:
            if applied_index >= self.installing.index:
                self.finish_install(self.installing)
            else:
                self._write(lambda disk: disk.metas.pop("installing", None))
        if not self.position.index <= applied_index <= self.last_index():
            raise Violation(
                "H10 log and state meet",
                f"state at {applied_index}, log ({self.position.index}, {self.last_index()}]",
            )

    def meta(self, name: str) -> bytes | None:
        return self.metas.get(name)

    def set_meta(self, name: str, value: bytes) -> None:
        self._write(lambda disk: disk.metas.__setitem__(name, value))

    def close(self) -> None:
        """The process ends."""


class Syncer:
    """``tools.muster.machine.disk.syncer.Syncer``: a sync covers what was written when it began, and takes a
    while."""

    def __init__(self, loop: Process, sync: Callable[[], None], done: Callable[[int], None]) -> None:
        self._loop = loop
        self._disk: LogDisk = sync.__self__  # type: ignore[attr-defined]
        self._done = done
        self._running = False
        self._wanted = 0
        self.slow = False
        self.takes_s: tuple[float, float] | None = None  # how long each takes; None: not long
        self.hangs_until = 0.0  # no sync that begins before this time ends before it
        self._inline = loop.random.random() < 0.3

    @property
    def busy(self) -> bool:
        return self._running

    def request(self, sequence: int, *, quiet: bool) -> bool:
        self._wanted = sequence
        if self._running:
            return False
        if quiet and self._inline and not self.takes_s and self.hangs_until <= self._loop.world.now:
            if self._disk.failing:
                raise DiskBroke("a sync failed")
            self._disk.sync()
            return True
        self._start()
        return False

    def again(self) -> None:
        if not self._running:
            self._start()

    def _start(self) -> None:
        self._running = True
        sequence, covered = self._wanted, self._disk.writes
        random = self._loop.random
        delay = random.uniform(*self.takes_s or ((0.05, 0.3) if self.slow else (0.0002, 0.004)))
        delay += max(0.0, self.hangs_until - self._loop.world.now)
        self._loop.world.at(delay, self._loop, lambda: self._finished(sequence, covered))

    def _finished(self, sequence: int, covered: int) -> None:
        if self._disk.failing:
            raise DiskBroke("a sync failed")
        self._disk.sync(covered)
        self._running = False
        if self._wanted > sequence:
            self._start()
        self._done(sequence)

    def close(self) -> None:
        """The process ends."""
