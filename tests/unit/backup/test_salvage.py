"""A backup of the files of a host that does not run holds the order up to the furthest place that all of its
shards reach, however unequally far they have come."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.bolt import Database
from cluster.bolt.etcd import checked_size, read_around, read_revision
from cluster.effects import records
from cluster.order.log import Attempt, Cut, Multi, Part, encode_cut, encode_multi
from cluster.order.salvage import CannotBeKept
from cluster.pb import kv_pb2
from cluster.raft.types import Entry, EntryKind, HardState
from node.backup.rows import Checkpoint
from node.backup.stopped import salvage as module
from node.backup.stopped.salvage import Salvaged, salvage
from node.storage import StateStore, StorageCorruption
from tests.unit.backup.orders import OTHERS, OWN, PEERS, SHARDS, Order, Version, host_with, written
from tests.unit.backup.test_build import built, checkpoint
from tests.unit.bolt.test_bolt import etcdutl
from tests.unit.storage.workload import open_both, stream
from tools.muster.config.parse import ConfigError
from tools.muster.host import salvaging
from tools.muster.host.identity import forcing
from tools.muster.host.identity.bootstrap import Identity
from tools.musterctl import cli


def salvaged(root: Path, uneven: bool = False) -> tuple[Salvaged, Database]:
    output = root / "out" / "backup.db"
    output.parent.mkdir()
    folders = {shard: root / f"shard-{shard}" for shard in range(SHARDS)}
    found = salvage(folders, output, PEERS, OWN, uneven, lambda text: None)
    assert [path.name for path in output.parent.iterdir()] == ["backup.db"]
    database = Database(output.read_bytes())
    assert database.check() == []
    return found, database


def versions_in(database: Database) -> set[Version]:
    found: set[Version] = set()
    for at, value in database.rows(b"key"):
        main, sub, deleted = read_revision(at)
        kv = kv_pb2.KeyValue.FromString(value)
        if deleted:
            found.add((main, sub, kv.key, 0, 0, b"", 0))
        else:
            assert kv.mod_revision == main
            found.add((main, sub, kv.key, kv.create_revision, kv.version, kv.value, kv.lease))
    return found


def leases_in(database: Database) -> dict[int, int]:
    return {lease.lease: lease.ttl_s for lease in read_around(database).leases}


def unequal(order: Order, seed: int) -> tuple[dict[int, int], dict[int, int], int]:
    """Places of states, ends of logs, and the furthest place of the order that all of them reach."""
    rng = random.Random(seed)
    end = len(order.records)
    places = {shard: rng.randrange(10, end + 1) for shard in range(SHARDS)}
    ends = {}
    for shard in OTHERS:
        applied = order.cuts[places[shard]][shard]
        ends[shard] = rng.choice([applied, rng.randrange(applied, len(order.entries[shard]) + 1)])

    def reached(place: int) -> bool:
        return all(place <= places[s] or order.cuts[place][s] <= ends[s] for s in OTHERS)

    return places, ends, max(place for place in range(end + 1) if reached(place))


@pytest.mark.parametrize("seed", range(8))
def test_it_holds_the_longest_beginning_of_the_order_that_all_shards_reach(tmp_path: Path, seed: int) -> None:
    order = Order.made(seed)
    places, ends, place = unequal(order, seed)
    written(order, tmp_path, places, ends)
    found, database = salvaged(tmp_path)
    assert (found.order_index, found.order_end) == (place, len(order.records))
    assert found.revision == order.revisions[place]
    assert versions_in(database) == order.shown(found.revision)
    assert leases_in(database) == order.leases[place]
    assert bool(found.ends) == (place < len(order.records))
    around = read_around(database)
    assert [member.ID for member in around.members] == [peer.member_id for peer in PEERS]
    later = places[0] > place and any(b"of version 2" in record for record in order.records[: places[0]])
    assert found.v2_revision == (order.revisions[places[0]] if later else 0)
    for share in found.shards:
        behind = [v for v in order.versions if v[2].startswith(b"s%d/" % share.shard)]
        applied = order.revisions[max(places[share.shard], place)]
        assert share.changes == sum(found.revision < version[0] <= applied for version in behind)


@pytest.mark.parametrize("seed", range(4))
def test_an_uneven_one_holds_of_each_shard_as_much_as_there_is(tmp_path: Path, seed: int) -> None:
    order = Order.made(seed)
    places, ends, _ = unequal(order, seed)
    written(order, tmp_path, places, ends)
    found, database = salvaged(tmp_path, uneven=True)
    end = len(order.records)
    reached = {0: end}
    for shard in OTHERS:
        log = [place for place in range(end + 1) if order.cuts[place][shard] <= ends[shard]]
        reached[shard] = max(places[shard], *log)
    assert found.revision == order.revisions[end]
    wanted = {
        version for version in order.versions
        if version[0] <= order.revisions[reached[int(version[2][1:2])]]
    }  # fmt: skip
    assert versions_in(database) == wanted
    assert leases_in(database).items() >= order.leases[end].items()


def test_where_a_shard_is_compacted_beyond_another_only_an_uneven_one_can_be_made(tmp_path: Path) -> None:
    order = Order.made(3, compacts=[55])
    places = {0: 60, 1: 30, 2: 60}
    ends = {1: order.cuts[30][1], 2: len(order.entries[2])}
    written(order, tmp_path, places, ends)
    with pytest.raises(CannotBeKept, match=r"shard 1 goes up to revision .* compacted up to"):
        salvaged(tmp_path)
    (tmp_path / "out").rmdir()
    found, database = salvaged(tmp_path, uneven=True)
    assert found.compact_revision == order.revisions[54]
    live = {kv[2]: kv for kv in sorted(order.shown(found.revision)) if not kv[2].startswith(b"s1/")}
    kept = {kv[2]: kv for kv in sorted(versions_in(database)) if not kv[2].startswith(b"s1/")}
    assert {k: v for k, v in kept.items() if v[4]} == {k: v for k, v in live.items() if v[4]}


def test_missing_files_of_a_shard_with_keys_are_told_before_others_are_carried_on(tmp_path: Path) -> None:
    order = Order.made(5)
    written(order, tmp_path, {0: 30, 1: 60, 2: 30}, {shard: len(order.entries[shard]) for shard in OTHERS})
    folders = {shard: tmp_path / f"shard-{shard}" for shard in (0, 2)}
    told: list[str] = []
    with pytest.raises(CannotBeKept, match="shard 1 has keys, and nothing of it is here"):
        salvage(folders, tmp_path / "backup.db", PEERS, OWN, False, told.append)
    assert [text[:8] for text in told] == ["shard 0:"]


def test_a_log_that_cannot_be_read_leaves_what_is_applied(tmp_path: Path) -> None:
    order = Order.made(5)
    places = {0: 60, 1: 41, 2: 50}
    written(order, tmp_path, places, {shard: len(order.entries[shard]) for shard in OTHERS})
    (tmp_path / "shard-0/log/synced").unlink()
    for path in (tmp_path / "shard-0/log/db").iterdir():
        path.unlink()
    found, database = salvaged(tmp_path)
    assert "there is no log" in found.ends or "cannot be read" in found.ends
    assert found.shards[0].unreadable
    assert found.revision == order.revisions[41]
    assert versions_in(database) == order.shown(found.revision)


def test_of_one_shard_all_that_is_logged_is_there(tmp_path: Path) -> None:
    logged = list(itertools.islice(stream(4), 300))
    folder = tmp_path / "shard-0"
    log, store = open_both(folder)
    log.append([Entry(*record[:2], EntryKind.RECORD, record[2]) for record in logged], HardState(9, OWN, 0))
    log.sync()
    store.apply(logged[:200])
    store.close()
    log.close()
    output = tmp_path / "out" / "backup.db"
    output.parent.mkdir()
    found = salvage({0: folder}, output, PEERS, OWN, False, lambda text: None)
    assert (found.order_index, found.ends) == (300, "")
    with contextlib.closing(StateStore.open(tmp_path / "wanted")) as wanted:
        wanted.apply(logged)
        assert found.revision == wanted.revision
        made, _ = built(tmp_path / "made", [checkpoint(wanted, tmp_path)])
    for bucket in (b"key", b"lease", b"meta"):
        rows = (list(Database(path.read_bytes()).rows(bucket)) for path in (output, made))
        assert [row for row in next(rows) if row[0] != b"confState"] == [
            row for row in next(rows) if row[0] != b"confState"]


def test_of_one_shard_that_has_grown_transactions_of_the_order_are_there(tmp_path: Path) -> None:
    """Keys of leases that were revoked came back: the sequencer logs a revoke as such a transaction."""
    born = encode_cut({1: Cut(1, 1, 0)})  # of a shard without keys
    logged = [
        records.bootstrap(1, 1, 2), records.put(b"k", 0, 1, b"\x0a\x01k", 0),
        born + encode_multi(Multi(Attempt(1, 1), 1, {}, [Part(0, 0, 0, records.delete(b"k"))]))]
    log, store = open_both(tmp_path / "shard-0")
    entries = [Entry(at, 1, EntryKind.RECORD, data) for at, data in enumerate(logged, 1)]
    log.append(entries, HardState(1, OWN, 0))
    log.sync()
    store.close()
    log.close()
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "backup.db"
    found = salvage({0: tmp_path / "shard-0"}, output, PEERS, OWN, False, lambda text: None)
    assert (found.order_index, found.revision) == (3, 3)
    assert sorted(versions_in(Database(output.read_bytes())))[-1] == (3, 0, b"k", 0, 0, b"", 0)


@pytest.fixture
def data_dir(tmp_path: Path) -> tuple[Path, Order, Identity]:
    """Of a host whose shard 1 lacks entries before a transaction that changes it, which others have
    applied."""
    order = Order.made(11)
    record = next(record for record, shards in order.multis if record > 30 and 1 in shards)
    before = order.cuts[record - 1][1]
    place = max(p for p in range(record) if order.cuts[p][1] < before)
    identity = host_with(order, tmp_path / "host", {0: 60, 1: place, 2: 60},
                         {1: order.cuts[place][1], 2: len(order.entries[2])})
    return tmp_path / "host", order, identity


def bytes_of(folder: Path) -> dict[str, str]:
    """Digests of its files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"
    }  # fmt: skip


def test_what_a_forced_start_refuses_is_saved_by_the_command_that_it_names(
    data_dir: tuple[Path, Order, Identity], tmp_path: Path
) -> None:
    host, order, identity = data_dir
    log: Any = None  # it refuses before it says anything
    with pytest.raises(ConfigError, match=f"musterctl snapshot save FILE --data-dir={host}"):
        forcing.force(str(host), identity, log)
    before = bytes_of(host)
    file = tmp_path / "backup.db"
    told: list[str] = []
    found = salvaging.save(str(host), file, False, told.append)
    assert bytes_of(host) == before
    data = file.read_bytes()
    database = Database(data, checked_size(data, skip_hash_check=False))
    assert versions_in(database) == order.shown(found.revision)
    assert found.revision == order.revisions[found.order_index]
    said = "\n".join(salvaging.described(found))
    assert f"saved revision {found.revision}" in said
    assert "of shard 1's log next, and that log ends with" in said
    assert "shard 0: omitted: " in said
    # a real tool of etcd's takes it
    status = [etcdutl(), "snapshot", "status", str(file), "-w", "json"]
    done = subprocess.run(status, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["revision"] == max(version[0] for version in versions_in(database))
    assert not [path for path in tmp_path.iterdir() if path.name not in ("host", "backup.db")]
    assert file.stat().st_mode & 0o077 == 0


def test_a_shard_whose_state_cannot_be_opened_is_left_out_of_an_uneven_backup(
    data_dir: tuple[Path, Order, Identity], tmp_path: Path
) -> None:
    host, order, _ = data_dir
    file = tmp_path / "backup.db"
    table = next((host / "member/shard-2/state").glob("*/*.sst"))
    table.unlink()
    with pytest.raises(ConfigError, match=rf"{table.name}.*--uneven saves all that each shard has"):
        salvaging.save(str(host), file, False, print)
    found = salvaging.save(str(host), file, True, print)
    (said,) = [line for line in salvaging.described(found, file) if line.startswith("shard 2: ")]
    assert said.startswith(f"shard 2: its keys are omitted: {table.parent}")
    assert table.name in said
    shown = versions_in(Database(file.read_bytes()))
    assert {version for version in shown if version[2].startswith(b"s0/")} == {
        version for version in order.shown(found.revision) if version[2].startswith(b"s0/")}
    assert {version[2][:2] for version in shown} == {b"s0", b"s1"}
    for part in (host / "member/shard-0/state").glob("*/*.sst"):
        part.unlink()
    with pytest.raises(ConfigError, match=f"^{host}/member/shard-0/state/"):
        salvaging.save(str(host), file, True, print)


def test_a_log_that_cannot_be_used_is_told_by_its_own_path(
    data_dir: tuple[Path, Order, Identity], tmp_path: Path
) -> None:
    host, _, _ = data_dir
    (host / "member/shard-2/log/synced").unlink()
    found = salvaging.save(str(host), tmp_path / "backup.db", True, print)
    (said,) = [line for line in salvaging.described(found) if "its log cannot be used" in line]
    assert f"{host}/member/shard-2/log" in said
    assert "salvaging" not in said


@pytest.mark.parametrize(("owner", "name"), [
    (module, "carry"), (StateStore, "leases"), (Checkpoint, "keys")])
def test_a_shard_that_turns_out_to_be_damaged_is_left_out_of_an_uneven_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    order, host, file, real = Order.made(3), tmp_path / "host", tmp_path / "backup.db", getattr(owner, name)
    host_with(order, host, {0: 60, 1: 60, 2: 30}, {shard: len(order.entries[shard]) for shard in OTHERS})

    def met(store: Any, *given: Any) -> Any:
        if "shard-2/" in store.path:
            raise StorageCorruption(f"{store.path}: reading rows: block checksum mismatch")
        return real(store, *given)

    monkeypatch.setattr(owner, name, met)
    with pytest.raises(ConfigError, match=r"checksum mismatch.*--uneven saves all that each shard has"):
        salvaging.save(str(host), file, False, print)
    found = salvaging.save(str(host), file, True, print)
    (said,) = [line for line in salvaging.described(found, file) if line.startswith("shard 2: ")]
    assert said.endswith("block checksum mismatch")
    assert versions_in(Database(file.read_bytes())) == {
        version for version in order.shown(found.revision) if not version[2].startswith(b"s2/")}


def test_what_is_kept_for_shards_is_read_where_it_is_wanted(
    data_dir: tuple[Path, Order, Identity], tmp_path: Path
) -> None:
    host, _, _ = data_dir
    kept = host / "member/shard-0/kept"
    kept.mkdir()
    (kept / "1-0000000000000001-0000000000000009").write_bytes(b"damaged")
    assert salvaging.save(str(host), tmp_path / "backup.db", False, print).revision


@pytest.mark.parametrize("locked", ["", "lock", "member/shard-1/log/db/LOCK"])
def test_a_host_on_a_disk_that_is_read_only_is_saved_unless_it_runs(
        data_dir: tuple[Path, Order, Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        locked: str) -> None:
    """Kernels make a file system read-only when its disk fails, which is when it has to be saved."""
    host, file, opened = data_dir[0], tmp_path / "backup.db", os.open

    def read_only(path: str | Path, flags: int, mode: int = 0o777, **where: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT) and Path(path).is_relative_to(host):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, mode, **where)

    (host / "lock").touch()
    holder = None
    if locked:
        lock = "fcntl.flock(f, fcntl.LOCK_EX)" if locked == "lock" else "fcntl.lockf(f, fcntl.LOCK_EX)"
        holder = subprocess.Popen(
            [sys.executable, "-c", f"import fcntl; f = open({str(host / locked)!r}, 'r+'); {lock}; "
             "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
    monkeypatch.setattr(os, "open", read_only)
    if holder is None:
        assert salvaging.save(str(host), file, False, print).revision
        return
    with holder, pytest.raises(ConfigError, match="in use"):
        salvaging.save(str(host), file, False, print)
    assert not file.exists()


def test_a_host_that_runs_and_one_that_never_began_are_refused(
    data_dir: tuple[Path, Order, Identity], tmp_path: Path
) -> None:
    host, _, _ = data_dir
    file = tmp_path / "backup.db"
    lock = salvaging.DataDirLock(str(host))
    with pytest.raises(ConfigError, match="in use by another muster"):
        salvaging.save(str(host), file, False, print)
    lock.release()
    with pytest.raises(FileNotFoundError):
        salvaging.save(str(host), tmp_path / "nowhere" / "backup.db", False, print)
    for folder in (tmp_path, Path(".")):
        with pytest.raises(ConfigError, match="is a directory"):
            salvaging.save(str(host), folder, False, print)
    (host / "member/shard-2/state/current").unlink()
    with pytest.raises(ConfigError, match="there is nothing to save"):
        salvaging.save(str(host), file, False, print)
    with pytest.raises(ConfigError, match="holds no data of a host"):
        salvaging.save(str(tmp_path / "nowhere"), file, False, print)
    assert not file.exists()
    assert cli.run(["snapshot", "save", str(file), "--uneven"]) == 128
    assert cli.run(["snapshot", "save", str(file), "--data-dir", str(tmp_path / "nowhere")]) == 1
