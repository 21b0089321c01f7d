"""What a node keeps on its disk: the Raft log and everything that was applied.

Read in this order: ``keys`` (the rows), ``options`` and ``opening`` (the two databases), ``log`` (the Raft
log), ``state`` (what is applied), ``snapshot`` with ``directory`` and ``defragment``, ``genesis`` (what a
born shard begins with), ``kept`` (files beside node 0's log). Nothing here knows of sockets, Raft messages or
requests; errors are those of ``errors``.
"""

from cluster.evaluate.view import Current
from node.storage.errors import (
    ApplyFailed,
    Compacted,
    DirectoryLocked,
    DiskFull,
    FutureRevision,
    NoRoom,
    SnapshotRefused,
    StorageCorruption,
    StorageError,
    SyncFailed,
)
from node.storage.keys import Position
from node.storage.log.raft_log import RaftLog
from node.storage.state.blocks import LEAST_ROWS
from node.storage.state.changes.apply import Applying, Prepared
from node.storage.state.changes.late import PreparedRows
from node.storage.state.changes.puts import PreparedPuts
from node.storage.state.changes.run import Applied, Event
from node.storage.state.history import HistorySlice
from node.storage.state.reader import Reader
from node.storage.state.store import RETIRE_S, StateStore

__all__ = [
    "LEAST_ROWS",
    "RETIRE_S",
    "Applied",
    "ApplyFailed",
    "Applying",
    "Compacted",
    "Current",
    "DirectoryLocked",
    "DiskFull",
    "Event",
    "FutureRevision",
    "HistorySlice",
    "NoRoom",
    "Position",
    "Prepared",
    "PreparedPuts",
    "PreparedRows",
    "RaftLog",
    "Reader",
    "SnapshotRefused",
    "StateStore",
    "StorageCorruption",
    "StorageError",
    "SyncFailed",
]
