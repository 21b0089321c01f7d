"""The machine of a node: directories with RocksDB in them."""

from __future__ import annotations

from pathlib import Path

from cluster.raft import Configuration
from node.storage import RaftLog, StateStore
from node.storage.kept import KeptFiles
from node.storage.snapshot import SnapshotSink, SnapshotSource
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

    def open_kept(self, path: str) -> KeptFiles:
        return KeptFiles(path)

    def snapshot_of(self, store: StateStore, folder: Path) -> SnapshotSource:
        return SnapshotSource.create(store, folder)

    def snapshot_into(self, folder: Path) -> SnapshotSink:
        return SnapshotSink(folder)

    def remove_left_snapshots(self, folder: Path) -> None:
        SnapshotSource.remove_left(folder)
