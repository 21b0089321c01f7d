"""A made order of two shards in which a key moves from one to the other, and the files that one host has of
it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cluster.effects import records
from cluster.features import growth
from cluster.features.rows import RowsOf, encode
from cluster.order.log import Cut, encode_cut, entry
from cluster.order.moving.copier import Copier
from cluster.placement.base import Base
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from cluster.raft.types import Entry, EntryKind, HardState
from node.backup.stopped.carrying import carry
from node.storage import RaftLog, StateStore
from node.storage.state.moving import staging
from tests.unit.backup.orders import GROUP, OWN

BASE = Base(2)
MOVES, SWITCHES, END = 3, 5, 7  # records of the order
KEYS = {BASE.shard_of(b"/%d/k" % n): b"/%d/k" % n for n in range(9)}  # one of each shard


def moved(source: int) -> tuple[list[bytes], list[bytes]]:
    """An order in which a key moves away after its second put, and the entries of shard 1's log."""
    key = KEYS[source]
    puts = [records.put(key, 0, 1, b"old", 0), records.put(key, 2, 2, b"new", 0)]
    entries = [entry(n + 1, put) for n, put in enumerate(puts)] if source else []
    ordered = [encode_cut({1: Cut(n, 1, n)}) for n in (1, 2)] if source else puts
    said = records.rows(encode(RowsOf.VERSIONS, [growth.row(OWN, growth.OWN.encode())]))
    move = Move(1, key, key + b"\0", (source,), 1 - source)
    return [
        records.bootstrap(1, BASE.shards, BASE.depth) + said + growth.item(growth.LEVEL, (OWN,)),
        ordered[0], move_item(move), ordered[1], moved_item(Moved(1, True, 3, 1)),
        records.put(KEYS[0] + b"2", 0, 1, b"x", 0), records.compact(4),
    ], entries


def copied(target: StateStore, source: StateStore) -> None:
    table = target.placement()
    assert table is not None
    assert table.move is not None
    copier = Copier(table.move)
    begun = copier.begin(None)
    assert begun is not None
    staging.begin_copy(target, table.move, begun.staging)
    while not copier.level:
        for ask in copier.asks():
            batch = copier.take(ask, staging.answer(source, table.move, ask))
            if batch is not None:
                staging.stage(target, batch)


def logged(folder: Path, data: list[bytes]) -> RaftLog:
    log = RaftLog.open(folder / "log", initial=GROUP)
    log.append([Entry(n + 1, 1, EntryKind.RECORD, one) for n, one in enumerate(data)], HardState(1, OWN, 0))
    log.sync()
    return log


def opened_state(folder: Path, shard: int) -> StateStore:
    return StateStore.open(folder / "state", range_cache_bytes=0, shard=shard)


def host(root: Path, source: int, place: int, *, copies: bool) -> dict[int, Path]:
    """Its source is at ``place``, its target where the key begins to move, perhaps with a copy of then."""
    folders = {shard: root / f"shard-{shard}" for shard in range(2)}
    with contextlib.ExitStack() as opened:
        stores, logs = [], []
        for shard, data in enumerate(moved(source)):
            logs.append(logged(folders[shard], data))
            opened.callback(logs[-1].close)
            stores.append(opened_state(folders[shard], shard))
            opened.callback(stores[-1].close)
        for shard, store in enumerate(stores):
            carry(store, shard, logs[shard], logs[0], MOVES)
        if copies:
            copied(stores[1 - source], stores[source])
            stores[1 - source].flush()
        carry(stores[source], source, logs[source], logs[0], place)
    return folders
