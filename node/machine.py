"""What a node needs of its machine besides ``cluster.machine``: its loop, and disks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cluster import machine
from cluster.raft import Configuration

if TYPE_CHECKING:
    from node.storage import Position, RaftLog, StateStore
    from node.storage.kept import KeptFiles
    from node.storage.snapshot import SnapshotSink, SnapshotSource


class Machine(machine.Machine, Protocol):
    """For parts of a node that touch no disk."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The process's event loop; its clock is :meth:`monotonic`."""


class NodeMachine(Machine, Protocol):
    """For the node. The real one: ``tools.muster.machine.disk.disks``."""

    def open_log(
        self, path: str, *, initial: Configuration, no_fsync: bool, write_buffer_bytes: int
    ) -> RaftLog:
        """The Raft log of this directory, made if missing."""

    def open_state(
        self, path: str, *, block_cache_bytes: int, write_buffer_bytes: int, range_cache_bytes: int,
        shard: int,
    ) -> StateStore:
        """The applied state of this directory, made if missing; it shows what the shard owns."""

    def begin_state(self, path: str, genesis: Path) -> None:
        """Begin a state that has applied nothing with this file, if it is there."""

    def genesis(
        self, store: StateStore, path: Path, position: Position, fold: tuple[bytes, bytes]
    ) -> Callable[[], None]:
        """What a new shard begins with, as the state is now: written into a file when it is called, in a
        thread."""

    def has_begun(self, folder: Path) -> bool:
        """Whether a node has a state in this directory of its own."""

    def open_kept(self, path: str) -> KeptFiles:
        """The files of kept order records in this directory, which may be missing."""

    def snapshot_of(self, store: StateStore, folder: Path) -> SnapshotSource:
        """A snapshot of the state, to be sent."""

    def snapshot_into(self, folder: Path, spare_bytes: int) -> SnapshotSink:
        """What takes a snapshot in, beside the state, if the disk keeps so much room."""

    def remove_left_snapshots(self, folder: Path) -> None:
        """Remove the snapshots that a process of this data directory was sending or receiving as it ended."""
