"""The machine of a node: directories with RocksDB in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

from cluster.raft import Configuration
from node.storage import Position, RaftLog, StateStore
from node.storage.genesis import Source, begin, write
from node.storage.kept import KeptFiles
from node.storage.snapshot import SnapshotSink, SnapshotSource
from tools.muster.machine.disk import seal
from tools.muster.machine.disk.threads import lower_compactions
from tools.muster.machine.real import RealMachine


class NodesMachine(RealMachine):
    """See ``node.machine.NodeMachine``."""

    def open_log(
        self, path: str, *, initial: Configuration, no_fsync: bool, write_buffer_bytes: int
    ) -> RaftLog:
        return RaftLog.open(path, initial=initial, no_fsync=no_fsync, write_buffer_bytes=write_buffer_bytes)

    def open_state(
        self, path: str, *, block_cache_bytes: int, write_buffer_bytes: int, range_cache_bytes: int,
        shard: int,
    ) -> StateStore:
        """RocksDB's compactions give way to the loop once their threads exist."""
        return StateStore.open(
            path, block_cache_bytes=block_cache_bytes, write_buffer_bytes=write_buffer_bytes,
            range_cache_bytes=range_cache_bytes, opened=lower_compactions, shard=shard)

    def begin_state(self, path: str, genesis: Path) -> None:
        begin(Path(path), genesis)

    def genesis(
        self, store: StateStore, path: Path, position: Position, fold: tuple[bytes, bytes]
    ) -> Callable[[], None]:
        rows = (row for row in Source(store).rows() if row[0] != fold[0])
        return lambda: write(path, position, chain(rows, [fold]))

    def has_begun(self, folder: Path) -> bool:
        with suppress(OSError):
            return (folder / "state" / "current").exists() and seal.read(folder)[1] == seal.BEGUN
        return False  # it cannot be told now

    def open_kept(self, path: str) -> KeptFiles:
        return KeptFiles(path)

    def snapshot_of(self, store: StateStore, folder: Path) -> SnapshotSource:
        return SnapshotSource.create(store, folder)

    def snapshot_into(self, folder: Path, spare_bytes: int) -> SnapshotSink:
        return SnapshotSink(folder, spare_bytes)

    def remove_left_snapshots(self, folder: Path) -> None:
        SnapshotSink.remove_left(folder / "state")
        for name in seal.TRANSFERS:
            SnapshotSource.remove_left(folder / name)
