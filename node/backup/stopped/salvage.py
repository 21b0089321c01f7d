"""A backup out of the files of one host whose nodes do not run, and have not all come equally far (decision
68).

Each state is carried on by the logs (``carrying``), up to the furthest place of the order that all of them
reach without a gap (``cluster.order.salvage.common_with_files``). A state that is further on can show what
was there: history has the keys, and a shard that stands at the place has the leases, users and members. Only
shard 0's v2 tree has neither. An *uneven* backup has of each shard as much as there is.

It changes the files that it is given: they are copies.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.bolt.etcd import Around, Lease
from cluster.features.rows import RowsOf
from cluster.members.table import Table
from cluster.order.passing import Piece
from cluster.order.salvage import CannotBeKept, Kept, common_with_files
from cluster.order.sound import Place, sound
from cluster.raft.types import Configuration, EntryKind
from cluster.settings import Peer
from node.backup import spool
from node.backup.rows import Checkpoint
from node.backup.stopped.carrying import carry
from node.backup.stopped.dropped import Dropped
from node.backup.stopped.moving import pass_switches
from node.backup.users import auth_in
from node.storage import Position, RaftLog, StateStore, StorageCorruption
from node.storage.kept import FOLDER, pieces_of
from node.storage.log.walk import walk

_CACHE_BYTES = 4 << 20
_BUDGET_BYTES = 32 << 20  # of rows in memory
_NEVER = 1 << 64  # the order log begins behind everything: it cannot be read


@dataclass(slots=True, frozen=True)
class Share:
    """What the backup has of one shard, and what it leaves out."""

    shard: int
    revision: int  # the backup shows it as of then
    changes: int  # of keys behind it, which were applied
    entries: int  # of its log, which were not applied and could not be
    unreadable: str = ""  # why its log could not be read


@dataclass(slots=True)
class Salvaged:
    """What a backup holds."""

    revision: int
    compact_revision: int
    order_index: int  # the record of the order that it ends with
    order_end: int  # the last one that is here
    ends: str  # why it ends there; empty: all that is here is in it
    rows: int = 0
    leases: int = 0
    v2_revision: int = 0  # the v2 tree is of a later moment; 0: it is not, or there is none
    shards: list[Share] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)  # by forced starts, before; not in the backup
    absent: dict[int, str] = field(default_factory=dict)  # shards with keys: why nothing of them is in it


@dataclass(slots=True)
class _Replica:
    """What one node has left."""

    shard: int
    store: StateStore
    log: RaftLog | None
    unreadable: str

    @property
    def position(self) -> Position:
        return self.store.position

    def term_at(self, index: int) -> int | None:
        return self.log.term_at(index) if self.log is not None else None

    def left(self, revision: int) -> Share:
        """What is behind a revision, or behind what it has applied."""
        shown = min(revision, self.store.revision)
        changes = sum(1 for _ in self.store.changes(shown + 1)) if self.store.revision > shown else 0
        entries = self.log.last_index() - self.position.shard_index if self.log is not None else 0
        return Share(self.shard, shown, changes, max(entries, 0), self.unreadable)


def salvage(
    folders: Mapping[int, Path], output: Path, peers: Sequence[Peer], member_id: int, uneven: bool,
    tell: Callable[[str], None],
) -> Salvaged:
    """Write the database ``output`` of the states and logs in ``folders``, by shard, 0 first; sorted runs lie
    beside it meanwhile. An uneven backup is made again without a shard that turns out to be damaged. Raises
    CannotBeKept, StorageError, NewerRecord, OSError."""
    unread: dict[int, str] = {}
    while True:
        here = {shard: folder for shard, folder in folders.items() if shard not in unread}
        try:
            return _salvaged(here, unread, output, peers, member_id, uneven, tell)
        except StorageCorruption as error:
            damaged = next((shard for shard, folder in here.items() if f"{folder}{os.sep}" in str(error)), 0)
            if not damaged:  # shard 0 has the order, members, leases and users
                raise
            if not uneven:
                raise CannotBeKept(str(error)) from None
            unread[damaged] = str(error)
            output.unlink(missing_ok=True)


def _salvaged(
    folders: Mapping[int, Path], unread: Mapping[int, str], output: Path, peers: Sequence[Peer],
    member_id: int, uneven: bool, tell: Callable[[str], None],
) -> Salvaged:
    """``unread``: why other shards cannot be read."""
    with contextlib.ExitStack() as opened:
        replicas = [_open(shard, folder, member_id, opened) for shard, folder in folders.items()]
        pieces = pieces_of(folders[0] / FOLDER)
        goals, ends = _goals(replicas, uneven, pieces)
        order = replicas[0].log
        absent: dict[int, str] = {}
        _pass_switches(replicas, goals, pieces, uneven, tell)
        for replica in replicas:  # shard 0 first, whose table says which shards have keys
            goal, at = goals[replica.shard], replica.position.order_index
            if goal > at:
                assert order is not None, "it is what the goal was found in"
                tell(f"shard {replica.shard}: applying the order behind record {at} up to {goal}")
                _carry(replica, order, goal, pieces)
            if not replica.shard:
                absent = {**_absent(replica.store, folders.keys()), **unread}
                if absent and not uneven:
                    raise CannotBeKept(f"shard {min(absent)} has keys, and nothing of it is here")
        found, around = _around(replicas, peers, max(goals.values()), ends)
        found.shards = [replica.left(found.revision) for replica in replicas]
        paths = [Path(replica.store.path) for replica in replicas]
    with contextlib.ExitStack() as opened:
        shards = [Checkpoint(path, replica.shard) for path, replica in zip(paths, replicas, strict=True)]
        for shard in shards:
            opened.callback(shard.close)
        found.absent = absent
        around.v2 = shards[0].v2()
        shown = [(shard, min(found.revision, shard.position.revision)) for shard in shards]
        alive: Iterator[None] = itertools.repeat(None)
        with tempfile.TemporaryDirectory(prefix="rows-", dir=output.parent) as folder:
            rows = Path(folder)
            plan = spool.spool(shown, around, found.revision, rows, _BUDGET_BYTES, alive)
            with output.open("xb") as file:
                spool.write(plan, rows, file.write, alive)
        found.rows = plan.rows
    return found


def _open(shard: int, folder: Path, member_id: int, opened: contextlib.ExitStack) -> _Replica:
    store = StateStore.open(
        folder / "state", block_cache_bytes=_CACHE_BYTES, range_cache_bytes=0, shard=shard)
    opened.callback(store.close)
    try:
        log = RaftLog.open(folder / "log", initial=Configuration(frozenset({member_id})))
        opened.callback(log.close)
        log.verify(store.position.shard_index)
    except StorageCorruption as error:  # what is applied is there all the same
        return _Replica(shard, store, None, str(error))
    return _Replica(shard, store, log, "")


def _carry(replica: _Replica, order: RaftLog, last: int, pieces: Callable[[int], list[Piece]]) -> None:
    before = replica.position.order_index < order.snapshot_position().index
    carry(replica.store, replica.shard, replica.log, order, last, pieces(replica.shard) if before else ())


def _pass_switches(
    replicas: list[_Replica], goals: dict[int, int], pieces: Callable[[int], list[Piece]], uneven: bool,
    tell: Callable[[str], None],
) -> None:
    order = replicas[0].log
    behind = [r.position.order_index for r in replicas if r.position.order_index < goals[r.shard]]
    if order is None or not behind:
        return
    by_shard = {replica.shard: replica for replica in replicas}
    first = max(min(behind), order.snapshot_position().index) + 1

    def carry_up_to(shard: int, last: int) -> None:
        tell(f"shard {shard}: applying the order up to {last}, where keys move")
        _carry(by_shard[shard], order, last, pieces)

    pass_switches(
        {shard: replica.store for shard, replica in by_shard.items()}, goals, _records(order, first),
        carry_up_to, uneven)


def _records(log: RaftLog, first: int) -> Iterator[tuple[int, bytes]]:
    for entry in walk(log, first):
        yield entry.index, sound(entry.data, Place.ORDER) if entry.kind == EntryKind.RECORD else b""


def _absent(first: StateStore, here: Collection[int]) -> dict[int, str]:
    """Shards that have keys by shard 0's table, and no files here."""
    table = first.placement()
    return {} if table is None else {
        shard: "nothing of it is here"
        for shard in table.shards if shard not in here and table.may_be_asked_of(shard)}


def _goals(
    replicas: list[_Replica], uneven: bool, pieces: Callable[[int], list[Piece]],
) -> tuple[dict[int, int], str]:
    """How far each state is to be carried, and why not further."""
    by_shard = {replica.shard: replica for replica in replicas}
    log = by_shard[0].log
    begins = log.snapshot_position().index if log is not None else _NEVER

    def records(first: int) -> Iterator[tuple[int, bytes]]:
        assert log is not None
        return _records(log, first)

    def furthest(some: list[_Replica]) -> Kept:
        ordered = {replica.shard: replica.position.order_index for replica in some}
        return common_with_files(
            records, begins, applied, ordered, lambda s, index: by_shard[s].term_at(index), pieces)

    applied = {replica.shard: replica.position.shard_index for replica in replicas}
    if uneven:
        return {replica.shard: furthest([replica]).order_index for replica in replicas}, ""
    found = furthest(replicas)
    behind = min(replicas, key=lambda replica: replica.position.order_index)
    short = by_shard[found.shard].log
    return dict.fromkeys(applied, found.order_index), _why(short, found, begins, behind)


def _why(log: RaftLog | None, found: Kept, begins: int, behind: _Replica) -> str:
    """What keeps all of them from going further; empty: nothing. ``log``: of the shard that is found."""
    if found.shard:
        index = found.cut.index
        if log is None:
            has = "that log cannot be read"
        elif log.last_index() < index:
            has = f"that log ends with {log.last_index()}"
        else:
            has = "that log has another one there"
        return f"the order wants entry {index} of shard {found.shard}'s log next, and {has}"
    if begins == _NEVER:
        return "the order log cannot be read"
    if behind.position.order_index < begins and found.order_index < begins:
        return f"the order log is kept behind record {begins} only, and shard {behind.shard} is not as far"
    return ""


def _around(
    replicas: list[_Replica], peers: Sequence[Peer], place: int, ends: str
) -> tuple[Salvaged, Around]:
    """All that the backup holds besides keys, of a shard that stands at its place."""
    at = next(replica for replica in replicas if replica.position.order_index == place)
    position, store = at.position, at.store
    beyond = max(replicas, key=lambda replica: replica.store.compact_revision)
    compacted = beyond.store.compact_revision
    if compacted > position.revision:
        raise CannotBeKept(
            f"shard {at.shard} goes up to revision {position.revision}, and shard {beyond.shard} is "
            f"compacted up to {compacted}: no revision can be read of both"
        )
    order, first = replicas[0].log, replicas[0]
    end = max(replica.position.order_index for replica in replicas)
    found = Salvaged(
        position.revision, compacted, place, max(end, order.last_index()) if order is not None else end, ends)
    if first.position.order_index > place and first.store.feature_rows(RowsOf.V2):
        found.v2_revision = first.store.revision
    # where shards do not go equally far, a key may hang on a lease that another one knows
    leases = {
        lease: Lease(lease, ttl_s, remaining_s)
        for replica in replicas if replica.position.order_index <= place
        for lease, ttl_s, remaining_s in replica.store.leases()
    }  # fmt: skip
    leases |= {lease: Lease(lease, ttl_s, remaining_s) for lease, ttl_s, remaining_s in store.leases()}
    found.leases = len(leases)
    table = Table(peers, store.hosts())
    around = Around(
        consistent_index=place, term=first.position.term, compact_revision=compacted,
        finished_compact_revision=compacted, leases=list(leases.values()), alarms=store.alarms(),
        auth=auth_in(store.feature_rows(RowsOf.AUTH)), removed=table.former,
        members=table.listed(first.store.members()))
    return found, around
