"""What is restored is what was backed up, spread over any number of shards; what is no backup is refused."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest

from cluster.bolt import Database, etcd, write
from cluster.bolt.etcd import NoBackup, checked_size, read_around
from cluster.effects import records
from cluster.features.rows import RowsOf, encode
from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import Tree
from cluster.order.log import Fold
from cluster.pb import auth_pb2, kv_pb2, rpc_pb2
from cluster.placement import Placement
from node.backup.restore import INDEX, Changed, restore
from node.storage import Position, RaftLog, StateStore
from tests.unit.backup.test_build import built, checkpoint, filled
from tests.unit.storage.conftest import OpenStore, open_store
from tests.unit.storage.state.stores import do, history
from tests.unit.storage.state.test_lease_check import checked
from tests.unit.storage.workload import CONFIGURATION
from tests.unit.v2.tree.random_writes import NOW_NS
from tests.unit.v2.tree.test_tree import everything

__all__ = ["open_store"]
KEYS = [b"/%d/%d" % (a, b) for a in range(3) for b in range(40)]
VOTERS = sorted(CONFIGURATION.voters)


def restored(database: Database, root: Path, shards: int, changed: Changed | None = None) -> list[StateStore]:
    folders = [root / f"shard-{n}" for n in range(shards)]
    for folder in folders:
        folder.mkdir(parents=True)
    told: list[int] = []
    restore(database, folders, 1, VOTERS, changed or Changed(), lambda rows, size: told.append(rows))
    stores = [StateStore.open(folder / "state") for folder in folders]
    for folder, store in zip(folders, stores, strict=True):
        log = RaftLog.open(folder / "log", initial=CONFIGURATION)
        log.verify(store.position.shard_index)
        assert (log.first_index(), log.last_index()) == (INDEX + 1, INDEX)
        assert log.snapshot_position().configuration == CONFIGURATION
        log.close()
    return stores


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_every_revision_reads_as_before_on_any_number_of_shards(
        open_store: OpenStore, tmp_path: Path, seed: int, shards: int) -> None:
    store = open_store()
    filled(store, seed, 300)
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    stores = restored(Database(path.read_bytes()), tmp_path / "new", shards)
    placement = Placement(shards, 1)
    for one in stores:
        assert one.position == Position(INDEX, INDEX, 1, store.revision, store.compact_revision)
        assert set(one.leases()) == set(store.leases())
        assert one.bootstrap() == (1, shards, 1)
        if shards > 1:
            fold = one.meta("fold")
            assert fold is not None
            assert Fold.decode(fold).revision == store.revision
    for revision in range(max(store.compact_revision, 1), store.revision + 1):
        for key in KEYS:
            assert stores[placement.shard_of(key)].get(key, revision) == store.get(key, revision)
    _same_history(store, stores)
    _attached(store, stores)
    for one in stores:
        while not one.compaction_step(10_000):
            pass
        one.close()


def test_keys_and_leases_agree_though_history_names_leases_that_ended(
        open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    do(store, records.lease_grant(5, 60), records.lease_grant(7, 60), records.put(b"live", 0, 1, b"", 7))
    do(store, records.put(b"ended", 0, 1, b"", 5))
    do(store, records.lease_revoke(5, [b"ended"]))
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    (new,) = restored(Database(path.read_bytes()), tmp_path / "new", 1)
    check = checked(new)
    assert (check.mismatches, check.attached, check.rows) == (0, 1, 1), check.examples
    new.close()


def _same_history(store: StateStore, stores: list[StateStore]) -> None:
    since = max(store.compact_revision, 1)
    events = sorted(e for one in stores for e in _history(one, since))
    assert events == sorted(_history(store, since))


def _history(store: StateStore, since: int) -> list[tuple[int, int, bytes, int, bytes]]:
    out = []
    while since <= store.revision:
        part = history(store, b"\0", b"\0", since, max_events=1000, max_bytes=1 << 20, want_prev=False)
        out += [(e[0], e[5], e[2], e[1], e[3]) for e in part.events]
        since = part.next_revision
    return out


def _attached(store: StateStore, stores: list[StateStore]) -> None:
    for lease, _, _ in store.leases():
        hanging = sorted(key for one in stores for key in one.lease_keys(lease))
        assert hanging == store.lease_keys(lease)


def test_a_bumped_revision_leaves_keys_and_compacts_the_past(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    filled(store, 4, 200)
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    changed = Changed(bump_revision=1_000_000, mark_compacted=True)
    (new,) = restored(Database(path.read_bytes()), tmp_path / "new", 1, changed)
    assert new.revision == new.compact_revision == store.revision + 1_000_000
    assert [new.get(key) for key in KEYS] == [store.get(key) for key in KEYS]
    while not new.compaction_step(10_000):
        pass
    assert [new.get(key) for key in KEYS] == [store.get(key) for key in KEYS]
    new.close()
    reopened = open_store("new/shard-0/state")
    again, told = built(tmp_path / "again", [checkpoint(reopened, tmp_path)])
    assert told["rows"] == sum(store.get(key) is not None for key in KEYS)
    assert read_around(Database(again.read_bytes())).compact_revision == store.revision + 1_000_000


@pytest.mark.parametrize("revision", [records.PENDING_REVISION, records.PENDING_REVISION - 1])
def test_a_revision_that_no_store_may_have_is_refused(
        open_store: OpenStore, tmp_path: Path, revision: int) -> None:
    """What is logged and not in order yet is told from the rest by its revision; and writes come after it."""
    store = open_store()
    filled(store, 4, 50)
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    changed = Changed(bump_revision=revision - store.revision, mark_compacted=True)
    with pytest.raises(NoBackup, match=f"revision {revision} is beyond"):
        restored(Database(path.read_bytes()), tmp_path / "new", 1, changed)


def test_a_file_without_its_hash_or_with_another_is_refused_in_etcdutls_words(tmp_path: Path) -> None:
    with pytest.raises(NoBackup, match=r"^snapshot missing hash but --skip-hash-check=false$"):
        checked_size(bytes(4096), skip_hash_check=False)
    with pytest.raises(NoBackup, match=r"^expected sha256 \[0 0 0 .*\], got \[\d+ "):
        checked_size(bytes(4096 + 32), skip_hash_check=False)
    assert checked_size(bytes(4096 + 32), skip_hash_check=True) == 4096


def test_a_row_that_is_not_of_its_revision_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    filled(store, 4, 100)
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    database = Database(path.read_bytes())
    rows = list(itertools.islice(database.rows(b"key"), 2))
    size = len(rows[0][1])
    swapped = path.read_bytes().replace(rows[0][1], rows[1][1][:size].ljust(size, b"\0"), 1)
    with pytest.raises(NoBackup):
        restored(Database(swapped), tmp_path / "new", 1)


def written(bucket: bytes, rows: list[etcd.Row]) -> Database:
    """A file with one key, and this bucket."""
    file = io.BytesIO()
    kv = kv_pb2.KeyValue(key=b"k", create_revision=2, mod_revision=2, version=1)
    of_keys = [(etcd.revision_key(2, 0), kv.SerializeToString())]
    write(lambda: [
        (name, [*of_keys, *rows] if name == bucket == etcd.KEY else some)
        for name, some in sorted({etcd.KEY: of_keys, bucket: rows}.items())
    ], file.write)  # fmt: skip
    database = Database(file.getvalue())
    assert database.check() == []
    return database


def test_alarms_that_no_version_of_etcd_knows_are_left_out(tmp_path: Path) -> None:
    """In etcd they do nothing."""
    alarms = [rpc_pb2.AlarmMember(memberID=5, alarm=kind)  # type: ignore[arg-type]
              for kind in (rpc_pb2.NOSPACE, rpc_pb2.CORRUPT, 0, 3, 300, -1)]
    rows = sorted((alarm.SerializeToString(), b"") for alarm in alarms)
    (store,) = restored(written(etcd.ALARM, rows), tmp_path, 1)
    assert sorted(store.alarms()) == [(5, rpc_pb2.NOSPACE), (5, rpc_pb2.CORRUPT)]
    store.close()


@pytest.mark.parametrize(("bucket", "key", "value"), [
    (etcd.ALARM, b"\xff", b""),
    (etcd.USERS, b"u", b"\xff"),
    (etcd.USERS, b"u", auth_pb2.User(name=b"\xff").SerializeToString()),
    (etcd.ROLES, b"r", b"\xff"),
    (etcd.ROLES, b"r", auth_pb2.Role(name=b"\xff").SerializeToString()),
    (etcd.AUTH, b"authRevision", b"\xff" * 8),  # changes would have no number
    (etcd.LEASE, b"l", b"\x0a"),
    (etcd.MEMBERS, b"1", b"[" * 100_000),
    (etcd.META, etcd.STORAGE_VERSION, b"3.8.0"),  # etcd 3.7 restores it, and then does not start
    (etcd.META, etcd.STORAGE_VERSION, b"4.0.0"),
    (etcd.KEY, etcd.revision_key(3, 1 << 32), b"\x0a\x01k\x10\x02\x18\x03\x20\x02"),
    (etcd.KEY, etcd.revision_key(3, 0), b"\x0a\x01k\x10\x02\x18\x03\x20\x03"),  # put more often than it can
    (etcd.KEY, etcd.revision_key(3, 0), b"\x0a\x01k\x10\x02\x18\x03\x20\x00"),
    (etcd.KEY, etcd.revision_key(3, 0), b"\x0a\x01k\x10\x02\x18\x03\x2a\x01v"),
    (etcd.KEY, etcd.revision_key(3, 0), b"\x0a\x01k\x10\x02\x18\x03\x20\x02\x2a\x09v"),
    (etcd.KEY, etcd.revision_key(3, 0), b"\x0a\x01k\x10\x02\x18\x03\x20\x02\x30" + b"\xff" * 9 + b"\x7f"),
])
def test_a_row_that_cannot_be_read_is_refused(
        tmp_path: Path, bucket: bytes, key: bytes, value: bytes) -> None:
    with pytest.raises(NoBackup, match=r"^cannot read the snapshot"):
        restored(written(bucket, [(key, value)]), tmp_path, 1)


@pytest.mark.parametrize("version", [b"3.6.0", b"3.7.1", b"", b"of nobody"])
def test_the_storage_of_a_known_version_or_of_none_is_read(tmp_path: Path, version: bytes) -> None:
    (store,) = restored(written(etcd.META, [(etcd.STORAGE_VERSION, version)]), tmp_path, 1)
    assert store.get(b"k") is not None
    store.close()


def test_the_v2_tree_goes_along_to_shard_0(open_store: OpenStore, tmp_path: Path) -> None:
    store, tree = open_store(), Tree()
    for number in range(1200):  # more than its history keeps
        write = Write(Op.SET, b"/1/%d/k" % (number % 40), b"%d" % number, expires_ns=NOW_NS * (number % 2))
        rows = evaluate(tree, write).rows
        tree.take(rows)
        store.apply([(number + 1, 1, records.rows(encode(RowsOf.V2, rows)))])
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    database = Database(path.read_bytes())
    assert database.check() == []
    first, *others = restored(database, tmp_path / "new", 2)
    again = Tree(first.feature_rows(RowsOf.V2))
    assert everything(again) == everything(tree)
    assert not any(one.feature_rows(RowsOf.V2) for one in others)
    for one in (first, *others):
        one.close()
