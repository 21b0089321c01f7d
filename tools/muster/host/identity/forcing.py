"""``--force-new-cluster``: a host goes on alone with its data; the other members are lost for good.

The logs change before any node runs: each group gets this host as its only member, in a term that is new.
That voter elects itself, and all that its logs hold is committed. ``cluster.order.salvage`` decides how much
of the logs can be kept where the last seconds of other hosts are missing (H18), or where a host that is alone
already has lost the end of a log.

What is dropped is first written into a file (``node.backup.stopped.dropped``). The order log also gets the
rows of the removed members. After a crash halfway the same is made again.

What may come of dropped records goes from the states, too: a copy of keys that move, which may be further on
than its target's state (G5), and rows of an apply that did not end. So does what a born shard would begin
with, whose node here has not begun (G12).
"""

from __future__ import annotations

import contextlib
import heapq
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path

from cluster import errors
from cluster.effects import records
from cluster.effects.newer import NewerRecord
from cluster.members.table import Host, Table
from cluster.order.log import Fold
from cluster.order.passing import Piece, behind, own_part
from cluster.order.salvage import CannotBeKept, Plan, planned
from cluster.placement import Table as PlacementTable
from cluster.placement.changes import shard_state
from cluster.placement.table import State
from cluster.raft import Configuration, Entry, EntryKind, HardState
from cluster.settings import genesis_file
from node.backup.stopped import dropped
from node.backup.stopped.carrying import fold_of
from node.durable import sync_directory
from node.links.promises import NAME as PROMISES
from node.replica.moving.moved import MovedKeys
from node.storage import NoRoom, Position, RaftLog, StateStore, genesis
from node.storage.errors import StorageCorruption, StorageError
from node.storage.kept import FOLDER, KeptFiles, pieces_of
from node.storage.log.walk import walk
from node.storage.state.changes.above import drop_above
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity.bootstrap import Identity, known, member_dir, note_born, shard_dir
from tools.muster.host.supervising.born import drop_files
from tools.muster.host.supervising.supervisor import Logger
from tools.muster.machine.disk import seal

_CACHE_BYTES = 1 << 20


@dataclass(slots=True)
class _Replica:
    log: RaftLog
    position: Position
    fold: Fold  # of the order up to there
    table: PlacementTable | None  # there; None: as in the beginning
    has_more: bool  # than its position tells: a copy of keys that move to it, or rows of a half apply


def force(data_dir: str, identity: Identity, log: Logger, *, alone: bool = False) -> Identity:
    """Make this host the only member of its cluster; its identity then. ConfigError; what a failed write
    leaves, the next forced start makes again. ``alone``: it takes no peers, so it may know no others."""
    for shard in identity.first:
        if seal.read(shard_dir(data_dir, shard))[1] == seal.NEW:
            raise ConfigError(
                f"--force-new-cluster: no node of this host has begun ({shard_dir(data_dir, shard)}), so "
                "there is nothing to keep: empty the data directory, and start a new cluster")
    new = {shard for shard, _ in identity.born if seal.read(shard_dir(data_dir, shard))[1] == seal.NEW}
    begun = replace(identity, born=tuple(born for born in identity.born if born[0] not in new))
    with contextlib.ExitStack() as opened:
        try:
            replicas, tables = _open(data_dir, begun, opened)
            if alone and _others(replicas, tables, identity.member_id):
                raise ConfigError(
                    f"--force-new-cluster: {errors.TAKES_NO_PEER.text}: its data knows other members. "
                    "Nothing was changed")
            kept = Path(shard_dir(data_dir, 0), FOLDER)
            KeptFiles(kept).found()  # its node 0 will read all of them, also those that nothing wants here
            pieces = pieces_of(kept)
            _force(data_dir, replicas, tables[0], begun, log, pieces, partial(_drop_rest, data_dir, new))
        except CannotBeKept as e:
            raise ConfigError(
                f"--force-new-cluster cannot continue with this host: {e}. Nothing was changed: try it with "
                "another host that is left, or have a backup made of what this one has without a gap "
                f"(musterctl snapshot save FILE --data-dir={data_dir}), and restore that to a new data "
                "directory (musterctl snapshot restore)") from None
        except StorageCorruption as e:
            raise ConfigError(
                f"--force-new-cluster cannot continue with this host: {e}. What its nodes have applied can "
                f"be saved if their states are whole: musterctl snapshot save FILE --data-dir={data_dir}"
            ) from None
        except (StorageError, NewerRecord) as e:
            raise ConfigError(f"--force-new-cluster cannot continue with this host: {e}") from None
        except (OSError, NoRoom) as e:
            raise ConfigError(
                f"--force-new-cluster: cannot write: {e}. Once it can, start again with the flag") from None
    # as etcd: the host may have been removed
    Path(shard_dir(data_dir, 0), seal.REMOVED).unlink(missing_ok=True)
    if new:  # a born shard whose node here has not begun begins with this host alone
        note_born(data_dir, {
            shard: (identity.member_id,) if shard in new else voters
            for shard, voters in known(data_dir).born})
    return known(data_dir)


def _open(
    data_dir: str, identity: Identity, opened: contextlib.ExitStack
) -> tuple[dict[int, _Replica], dict[int, Table]]:
    replicas: dict[int, _Replica] = {}
    tables: dict[int, Table] = {}  # of members, as far as each state is
    for shard in identity.shards:
        folder = shard_dir(data_dir, shard)
        store = StateStore.open(
            os.path.join(folder, "state"), block_cache_bytes=_CACHE_BYTES, range_cache_bytes=0
        )
        with contextlib.closing(store):
            position, fold, placement = store.position, fold_of(store), store.placement()
            has_more = store.staged is not None or store.applying
            tables[shard] = Table(identity.peers, store.hosts())
        log = RaftLog.open(
            os.path.join(folder, "log"), initial=Configuration(frozenset({identity.member_id}))
        )
        opened.callback(log.close)
        log.verify(position.shard_index)
        replicas[shard] = _Replica(log, position, fold, placement, has_more)
    return replicas, tables


def _others(replicas: dict[int, _Replica], tables: dict[int, Table], own: int) -> set[int]:
    """The members that a node would know once it runs, or hears of as its log is applied."""
    order = replicas[0].log
    # each shard's node applies the order's rows itself, and may be behind shard 0's
    first = max(order.first_index(), min(r.position.order_index for r in replicas.values()) + 1)
    rows = map(Host.decode, _host_rows(order, first, order.last_index()))
    found = {host.member_id for table in tables.values() for host in table.members}
    return found.union(host.member_id for host in rows if not host.removed) - {own}


def _force(
    data_dir: str, replicas: dict[int, _Replica], table: Table, identity: Identity, log: Logger,
    pieces: Callable[[int], Iterable[Piece]],
    drop_rest: Callable[[list[int], int, Collection[int]], None],
) -> None:
    """``drop_rest``: takes shards whose states have more, the last order record that is kept, and the shards
    that it knows."""
    found = _planned(replicas, pieces)
    order = replicas[0]
    there = _present(replicas, found, identity)
    first = order.log.first_index()
    table.take(_host_rows(order.log, order.position.order_index + 1, found.order_index))
    only = Configuration(frozenset({identity.member_id}))
    rows = [
        replace(host, removed=True).encode()
        for host in table.members
        if host.member_id != identity.member_id
    ]
    own = table.hosts.get(identity.member_id)
    if own is not None and (own.learner or own.removed):  # the only member stays, though it was to go
        rows.append(replace(own, learner=False, removed=False).encode())
    whole = found.order_index == order.log.last_index() and not found.made_up
    if whole and not rows and all(_is_alone(r.log, only) for r in replicas.values()):
        log.info("--force-new-cluster: this host is the only member already")
        return
    try:
        lost = _keep_dropped(data_dir, replicas, found)
    except OSError as e:
        raise ConfigError(
            f"--force-new-cluster: cannot write the file of what is dropped: {e}. Nothing was "
            "changed") from None
    log.warning(
        "forcing a new cluster of this host alone: the other members are removed",
        member=f"{identity.member_id:x}",
        removed=[f"{h.member_id:x}" for h in table.members if h.member_id != identity.member_id],
        order_records=[first, found.order_index],
        dropped_records=order.log.last_index() - found.order_index,
        lost_entries={
            shard: [entries[0].index, entries[-1].index] for shard, entries in found.made_up.items()
        },
        dropped_changes=lost.changes if lost is not None else 0,
        dropped_keys=lost.keys if lost is not None else [],
        dropped_file=str(lost.path) if lost is not None else "")
    drop_rest([shard for shard, replica in replicas.items() if replica.has_more], found.order_index, there)
    # the order last: it names what the others hold
    for shard in sorted(replicas, reverse=True):
        _log_alone(replicas[shard], shard, found, only, identity, [] if shard else rows)


def _host_rows(order: RaftLog, first: int, last: int) -> list[bytes]:
    """Of members."""
    return [data[pos:end] for data, pos, end in _items(order, first, last, records.Item.HOST)]


def _items(order: RaftLog, first: int, last: int, wanted: records.Item) -> Iterator[tuple[bytes, int, int]]:
    """Items of a kind in these records: record, begin and end."""
    for _, data in _records(order, first, last):
        for kind, pos, end in records.items(data):
            if kind == wanted:
                yield data, pos, end


def _log_alone(
    replica: _Replica, shard: int, found: Plan, only: Configuration, identity: Identity, rows: list[bytes],
) -> None:
    """Log that this host is the only member; ``rows``: of members that are removed."""
    end = found.last[shard] if shard else found.order_index
    term = max(replica.log.hard_state().term, found.terms.get(shard, 0)) + 1
    entries = [*found.made_up.get(shard, ()), Entry(end + 1, term, EntryKind.CONFIG, only.encode())]
    if rows:
        entries.append(Entry(end + 2, term, EntryKind.RECORD, b"".join(map(records.host, rows))))
    commit = min(replica.log.hard_state().commit, entries[0].index - 1)
    # this host has acknowledged what is dropped: by that, new members would refuse it (H10)
    replica.log.set_meta(PROMISES, b"")
    replica.log.append(entries, HardState(term, identity.member_id, commit))
    replica.log.sync()


def _present(replicas: dict[int, _Replica], found: Plan, identity: Identity) -> Collection[int]:
    """The shards that the kept order knows. G12: one that serves has its state here, or all that it is made
    of. CannotBeKept."""
    order = replicas[0]
    states = dict.fromkeys(range(identity.shard_count), State.SERVING) if order.table is None else {
        shard: known.state for shard, known in order.table.shards.items()}
    behind_state = order.position.order_index + 1
    for data, pos, _ in _items(order.log, behind_state, found.order_index, records.Item.SHARD):
        shard, state = shard_state(data, pos)
        states[shard] = State(state)
    for shard, state in sorted(states.items()):
        if state not in (State.SERVING, State.RETIRING):
            continue
        if shard < identity.shard_count:
            if shard not in replicas:
                raise CannotBeKept(
                    f"shard {shard} has retired, and this host's order can be kept up to before that only")
        elif shard not in replicas or (not replicas[shard].position.order_index and shard in found.made_up):
            raise CannotBeKept(f"shard {shard} was added, and this host has nothing of it yet")
    return states.keys()


def _drop_rest(
    data_dir: str, new: Collection[int], more: list[int], kept: int, there: Collection[int]
) -> None:
    """Drop what other files have of the order behind ``kept``. ``more``: shards whose states may have some of
    it. ``new``: born shards whose nodes have not begun. One of those ``there`` that loses its genesis never
    leads, and another id is tried."""
    _drop_more(data_dir, more)
    first = Path(shard_dir(data_dir, 0))
    for shard in new:
        begins = Path(genesis_file(str(first), shard))
        if shard not in there:
            drop_files(data_dir, shard)
        elif not begins.exists() or genesis.read(begins)[0].order_index > kept:
            begins.unlink(missing_ok=True)
            folder = Path(shard_dir(data_dir, shard))
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / "state")  # its node may have taken it, and died before it began
            if folder.exists():  # it may have gone before a crash
                sync_directory(folder)
    sync_directory(first)


def _drop_more(data_dir: str, shards: list[int]) -> None:
    for shard in shards:
        store = StateStore.open(
            os.path.join(shard_dir(data_dir, shard), "state"), block_cache_bytes=_CACHE_BYTES,
            range_cache_bytes=0, shard=shard)
        with contextlib.closing(store):
            for _ in MovedKeys(store).drop_copy():
                pass
            drop_above(store)
            store.flush()


def _keep_dropped(data_dir: str, replicas: dict[int, _Replica], found: Plan) -> dropped.Dropped | None:
    """Write what the logs lose into a file beside them."""
    last = {
        shard: found.made_up[shard][0].index - 1 if shard in found.made_up else index
        for shard, index in found.last.items() if shard
    }  # fmt: skip
    logs = {shard: replica.log for shard, replica in replicas.items()}
    if logs[0].last_index() <= found.order_index and all(logs[s].last_index() <= last[s] for s in last):
        return None
    folded = replicas[0].position.order_index
    lines = dropped.lines(logs, replicas[0].fold, folded, found.order_index, last)
    return dropped.write(Path(member_dir(data_dir)), lines)


def _planned(replicas: dict[int, _Replica], pieces: Callable[[int], Iterable[Piece]]) -> Plan:
    order = replicas[0].log
    begins, ends = order.snapshot_position().index, order.last_index()
    before: list[tuple[int, bytes]] = []  # dropped from the order log, and needed by a node
    for shard, replica in replicas.items():
        at = replica.position.order_index
        if at > ends:  # a power cut: others had these records, and this host's log was not synced
            raise CannotBeKept(
                f"its node of shard {shard} has applied the order up to {at}, and its order log ends with "
                f"record {ends}")
        if at < begins:
            found = behind(pieces(shard), at, begins)
            if found is None:
                raise CannotBeKept(
                    f"its node of shard {shard} has applied the order up to {at}, "
                    f"and it keeps the order's records behind {begins} only")
            # a run that goes on behind the log's beginning names nothing of its shard
            before += [(record.last, own_part(record, shard)) for record in found if record.last <= begins]
    before.sort(key=itemgetter(0))
    table = replicas[0].table

    return planned(
        lambda: heapq.merge(
            before, _records(order, order.first_index(), order.last_index()), key=itemgetter(0)),
        {shard: replica.position.shard_index for shard, replica in replicas.items()},
        [begins, *(replica.position.order_index for replica in replicas.values())],
        lambda shard, index: replicas[shard].log.term_at(index),
        None if table is None else table.move,
    )


def _records(log: RaftLog, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    for entry in walk(log, first, last):
        yield entry.index, entry.data if entry.kind == EntryKind.RECORD else b""


def _is_alone(log: RaftLog, only: Configuration) -> bool:
    return _configuration(log) == only


def _configuration(log: RaftLog) -> Configuration:
    found = log.snapshot_position().configuration
    for entry in walk(log, log.first_index()):
        if entry.kind == EntryKind.CONFIG:
            found = Configuration.decode(entry.data)
    return found
