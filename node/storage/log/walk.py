"""Looking through a log, a bounded part of it in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.raft import Entry
from node.storage.log.raft_log import RaftLog

_CHUNK_BYTES = 4 << 20


def walk(log: RaftLog, first: int, last: int | None = None) -> Iterator[Entry]:
    """Entries from ``first`` on, to ``last`` or the log's last."""
    if last is None:
        last = log.last_index()
    while first <= last:
        for entry in log.entries(first, last, _CHUNK_BYTES):
            yield entry
            first = entry.index + 1
