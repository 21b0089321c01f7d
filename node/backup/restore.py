"""A backup written into the directories of nodes, which then start as the members of a new cluster.

The rows of etcd's bucket ``key`` become the rows of each shard's state (``node.storage.keys``), at their
revisions. Log and state of every shard begin behind index 1: a host that joins later finds no entry 1 and
gets the state. Cost: 5 us a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rocksdict import WriteBatch

from cluster.bolt import Database
from cluster.bolt.etcd import KEY, Around, NoBackup, key_in, read_around, read_revision
from cluster.effects.records import BOOTSTRAP, PENDING_REVISION, key_offset
from cluster.features.rows import RowsOf
from cluster.grain import GRAIN
from cluster.order.log import Cut, Fold
from cluster.placement import Placement
from cluster.raft.types import Configuration, HardState, SnapshotPosition
from cluster.wire.protobuf import read_varint, tombstone
from node.backup.users import auth_rows
from node.storage import Position, RaftLog, StateStore, StorageError
from node.storage.keys import (
    ALARM_PREFIX,
    BOOTSTRAP_ROW,
    COMPACTION_ROW,
    DELETE,
    ENTRY,
    FOLD_ROW,
    LEASE_KEY,
    LEASE_VALUE,
    MAX32,
    POSITION,
    POSITION_ROW,
    PUT,
    RUN,
    RUN_BYTES,
    feature_row,
    parse_current,
    version_row,
)
from node.storage.state.slices.compaction import PROGRESS

LAYOUT_VERSION = 1
INDEX, TERM = 1, 1  # where log and state begin
_BATCH_BYTES = 1 << 20
_TELL_EVERY = 4096  # rows
_WRITE_BUFFER_BYTES = 32 << 20
_MOST_REVISION = PENDING_REVISION >> 1  # as many are left for writes
_MOST_AUTH_REVISION = 1 << 63  # as many are left for changes
_MOST_DELTA = 1 << 31  # between a run's first revision and its last
_NUMBERS, _VALUE, _LEASE = (0x10, 0x18, 0x20), b"\x2a", b"\x30"  # tags of a KeyValue, behind its key
Tell = Callable[[int, int], None]  # rows read, bytes of keys and values in them


@dataclass(slots=True, frozen=True)
class Changed:
    """What the restored cluster is to have otherwise than the backup."""

    bump_revision: int = 0  # so much is added to the last revision
    mark_compacted: bool = False  # and everything before is compacted


@dataclass(slots=True)
class Restored:
    revision: int = 0
    compact_revision: int = 0
    rows: int = 0
    keys_bytes: int = 0
    leases: int = 0


class _Shard:
    """The state of one shard, being written."""

    def __init__(self, folder: Path) -> None:
        self._store = StateStore.open(
            folder, write_buffer_bytes=_WRITE_BUFFER_BYTES, block_cache_bytes=1 << 20, range_cache_bytes=0)
        self._batch = WriteBatch(raw_mode=True)
        self._size = 0
        self._run: list[bytes] = []
        self._run_bytes = 0
        self._first = (0, 0)

    def put(self, row: bytes, value: bytes) -> None:
        self._batch.put(row, value)
        self._size += len(row) + len(value)
        if self._size >= _BATCH_BYTES:
            self._write()

    def change(self, revision: int, sub: int, kind: int, key: bytes) -> None:
        """Put a change into the run of changes, which watches of the past and compactions read."""
        if self._run and revision - self._first[0] >= _MOST_DELTA:
            self._end_run()
        if not self._run:
            self._first = (revision, sub)
        self._run.append(ENTRY.pack(revision - self._first[0], sub, kind, len(key)) + key)
        self._run_bytes += len(key)
        if len(self._run) >= GRAIN.run_entries or self._run_bytes >= RUN_BYTES:
            self._end_run()

    def _end_run(self) -> None:
        self.put(RUN.pack(b"r", *self._first), b"".join(self._run))
        self._run, self._run_bytes = [], 0

    def _write(self) -> None:
        self._store.write(self._batch)
        self._batch, self._size = WriteBatch(raw_mode=True), 0

    def finish(self, position: Position) -> None:
        if self._run:
            self._end_run()
        self._batch.put(POSITION_ROW, POSITION.pack(*position))
        self._write()
        self._store.flush()
        self._store.close()

    def abandon(self) -> None:
        with suppress(StorageError):  # what went wrong before is told
            self._store.close()


def restore(
    database: Database, folders: Sequence[Path], depth: int, voters: Sequence[int], changed: Changed,
    tell: Tell,
) -> Restored:
    """Write log and state of each shard into ``folders``, one each. Raises NoBackup where the file is
    none."""
    around = read_around(database)
    if (users := around.auth.revision) >= _MOST_AUTH_REVISION:
        raise NoBackup(f"cannot read the snapshot: auth revision {users} is beyond what may be")
    if KEY not in database.buckets():
        raise NoBackup("cannot read the snapshot: it has no bucket of keys")
    shards = [_Shard(folder / "state") for folder in folders]
    try:
        restored = _write_keys(database, shards, Placement(len(shards), depth), around, tell)
        if changed.bump_revision:
            restored.revision += changed.bump_revision
        if changed.mark_compacted:
            restored.compact_revision = restored.revision
        if restored.revision >= _MOST_REVISION:
            raise NoBackup(f"cannot read the snapshot: revision {restored.revision} is beyond what may be")
        _write_rest(shards, depth, around, restored)
    finally:
        for shard in shards:
            shard.abandon()
    for folder in folders:
        _begin_log(folder / "log", voters)
    return restored


def _write_keys(
    database: Database, shards: list[_Shard], placement: Placement, around: Around, tell: Tell,
) -> Restored:
    compacted = max(around.compact_revision, around.finished_compact_revision)
    restored = Restored(1, compacted, 0, 0, len(around.leases))
    one = shards[0] if len(shards) == 1 else None
    cleared = around.finished_compact_revision
    granted = {one.lease for one in around.leases}
    last = (0, -1)
    for at, value in database.rows(KEY):
        main, sub, deleted = read_revision(at)
        if (main, sub) <= last or sub > MAX32:
            raise NoBackup(f"cannot read the snapshot: revision {main}.{sub} is not in its place")
        last = (main, sub)
        restored.revision = main
        restored.rows += 1
        if restored.rows % _TELL_EVERY == 0:
            tell(restored.rows, restored.keys_bytes)
        if not value:
            continue  # a revision that `etcdutl snapshot restore --bump-revision` has taken
        key = _key_of(value, main, sub)
        restored.keys_bytes += len(value)
        shard = one or shards[placement.shard_of(key)]
        if deleted:
            shard.put(version_row(key, main, sub, DELETE), tombstone(key, main))
        else:
            if not _is_sound(value, len(key), main):
                raise NoBackup(f"cannot read the snapshot: revision {main}.{sub} does not hold a key of it")
            shard.put(version_row(key, main, sub, PUT), value)
            if (lease := parse_current(value, len(key)).lease) in granted:  # others ended: history names them
                shard.put(LEASE_KEY.pack(b"l", lease) + key, b"")
        if main >= cleared:  # as compactions leave them
            shard.change(main, sub, DELETE if deleted else PUT, key)
    restored.revision = max(restored.revision, restored.compact_revision)
    return restored


def _key_of(value: bytes, main: int, sub: int) -> bytes:
    try:
        key = key_in(value)
    except IndexError:
        key = b""
    if not key:
        raise NoBackup(f"cannot read the snapshot: revision {main}.{sub} does not hold a key")
    return key


def _is_sound(kv: bytes, key_len: int, main: int) -> bool:
    """Whether a KeyValue has the fields that etcd writes, in their order, with sound numbers: leaders count
    on from them."""
    numbers, at = [], key_offset(key_len) + key_len
    try:
        for tag in _NUMBERS:
            if kv[at] != tag:
                return False
            number, at = read_varint(kv, at + 1)
            numbers.append(number)
        if kv[at : at + 1] == _VALUE:
            size, at = read_varint(kv, at + 1)
            at += size
        if kv[at : at + 1] == _LEASE:
            lease, at = read_varint(kv, at + 1)
            if lease >> 64:
                return False
    except IndexError:
        return False
    create, mod, version = numbers
    return at == len(kv) and mod == main and 0 < create <= main and 0 < version <= main - create + 1


def _write_rest(shards: list[_Shard], depth: int, around: Around, restored: Restored) -> None:
    """What every shard knows besides its keys; then its position, which makes it all count."""
    cuts = {shard: Cut(INDEX, TERM, 0) for shard in range(1, len(shards))}
    fold = Fold(restored.revision, cuts).encode()
    position = Position(INDEX, INDEX, TERM, restored.revision, restored.compact_revision)
    done = around.finished_compact_revision
    for name, value in around.v2:
        shards[0].put(feature_row(RowsOf.V2, name), value)
    for shard in shards:
        for lease in around.leases:
            shard.put(LEASE_KEY.pack(b"L", lease.lease), LEASE_VALUE.pack(lease.ttl_s, lease.remaining_ttl_s))
        for member, kind in around.alarms:
            shard.put(ALARM_PREFIX + bytes((kind,)) + member.to_bytes(8, "big"), b"")
        for name, value in auth_rows(around.auth):
            shard.put(feature_row(RowsOf.AUTH, name), value)
        shard.put(BOOTSTRAP_ROW, BOOTSTRAP.pack(LAYOUT_VERSION, len(shards), depth))
        if len(shards) > 1:
            shard.put(FOLD_ROW, fold)
        if done:
            shard.put(COMPACTION_ROW, PROGRESS.pack(done, done, done, 0))
        shard.finish(position)


def _begin_log(folder: Path, voters: Sequence[int]) -> None:
    configuration = Configuration(frozenset(voters))
    log = RaftLog.open(folder, initial=configuration)
    try:
        log.reset(SnapshotPosition(INDEX, TERM, configuration))
        log.append([], HardState(TERM, 0, INDEX))
    finally:
        log.close()
