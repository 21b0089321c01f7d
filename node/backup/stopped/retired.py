"""Which shards the files of a stopped host say are dropped."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cluster.order.sound import Place, sound
from cluster.placement.changes import dropped_in
from cluster.placement.table import State
from cluster.raft import Configuration, EntryKind
from node.storage import RaftLog, StateStore
from node.storage.log.walk import walk

_CACHE_BYTES = 1 << 20


def dropped_by(first: Path) -> set[int]:
    """``first``: the directory of its node 0, whose state and log say it. A shard whose drop is logged never
    serves again, whether that is committed or not. StorageError, NewerRecord."""
    opened = StateStore.open(first / "state", block_cache_bytes=_CACHE_BYTES, range_cache_bytes=0)
    with closing(opened) as store:
        at, table = store.position.shard_index, store.placement()
    found = set() if table is None else {
        shard for shard, known in table.shards.items() if known.state == State.DROPPED}
    with closing(RaftLog.open(first / "log", initial=Configuration(frozenset()))) as log:
        for entry in walk(log, max(at + 1, log.first_index())):
            if entry.kind == EntryKind.RECORD:
                found.update(dropped_in(sound(entry.data, Place.ORDER)))
    return found
