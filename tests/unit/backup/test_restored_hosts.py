"""Hosts that are restored from one file have one origin; any other file or layout has another."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from cluster.bolt import Database
from cluster.bolt.etcd import NoBackup
from cluster.effects import records
from node.backup.restore import Changed
from node.storage.errors import SyncFailed
from tests.small_disk import mounted
from tests.unit.backup.test_build import built, checkpoint, filled
from tests.unit.storage.conftest import OpenStore, open_store
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap, restoring
from tools.muster.host.identity.restoring import NewHost, restore_host
from tools.muster.host.identity.wal_dir import begin_logs

__all__ = ["open_store"]
CLUSTER = "a=http://127.0.0.1:1,b=http://127.0.0.1:2"


@pytest.fixture
def snapshot(open_store: OpenStore, tmp_path: Path) -> Path:
    """Of twenty revisions."""
    store = open_store()
    filled(store, 1, 20)
    return built(tmp_path / "out", [checkpoint(store, tmp_path)])[0]


def origin(snapshot: Path, data_dir: Path, name: str = "a", bump: int = 0, wal_dir: str = "") -> str:
    new = NewHost(name, str(data_dir), CLUSTER, f"token-{name}", dict(
        host.split("=") for host in CLUSTER.split(","))[name], 1, 1, wal_dir)
    restore_host(snapshot, new, Changed(bump), True, lambda done, total: None)
    return bootstrap.known(str(data_dir)).origin


def test_the_origin_is_the_files_and_that_of_what_was_changed(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    filled(store, 1, 100)
    snapshot, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    first = origin(snapshot, tmp_path / "1")
    assert int(first, 16)
    assert origin(snapshot, tmp_path / "2", "b") == first, "other names and tokens change nothing"
    assert origin(snapshot, tmp_path / "3", bump=1) != first
    further = open_store("b")
    filled(further, 1, 101)
    later, _ = built(tmp_path / "later", [checkpoint(further, tmp_path / "again")])
    assert origin(later, tmp_path / "4") != first


def test_a_restored_host_outlasts_a_crash_with_its_name(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that finds no directory would start as a new one, without the backup's data."""
    synced, sync = list[str](), os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    data_dir = tmp_path / "new" / "1"
    assert origin(snapshot, data_dir)
    assert synced[-3:] == [str(data_dir / "restoring"), str(data_dir), str(data_dir.parent)]
    assert str(tmp_path) in synced, "it has the name of the directory above"


@pytest.mark.parametrize("given", ["there", "link", ".", "there/", "aside/link/../there"])
def test_a_directory_that_is_there_stays_the_one_that_it_is(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """It may be a mount point, or in a directory that the user may not write."""
    there = tmp_path / "there"
    there.mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "link").symlink_to(there)
    (there / "restoring" / "member").mkdir(parents=True)  # of a restore that was killed
    monkeypatch.chdir(there if given == "." else tmp_path)
    before, beside = there.stat(), set(tmp_path.iterdir())
    assert origin(snapshot, Path(given))
    assert [path.name for path in there.iterdir()] == ["member"]
    assert (there.stat().st_ino, there.stat().st_mode) == (before.st_ino, before.st_mode)
    assert set(tmp_path.iterdir()) == beside
    assert [path.name for path in (tmp_path / "aside").iterdir()] == ["link"]


@pytest.mark.parametrize("there", [False, True])
def test_a_restore_that_fails_leaves_what_there_was(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    data_dir = tmp_path / "1"
    if there:
        data_dir.mkdir()

    def full(path: Path, identity: bootstrap.Identity) -> None:
        raise OSError(errno.ENOSPC, "no room", str(path))

    monkeypatch.setattr(restoring, "write_identity", full)
    with pytest.raises(OSError, match="no room"):
        origin(snapshot, data_dir)
    assert (list(data_dir.iterdir()) if data_dir.exists() else None) == ([] if there else None)


@pytest.mark.parametrize("there", [False, True])
def test_a_second_restore_at_once_is_refused_and_the_first_one_ends(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """It removed what the first had made so far, and both failed."""
    data_dir, sealed = tmp_path / "1", restoring.seal.seal
    if there:
        data_dir.mkdir()

    def seal(folder: Path, incarnation: str) -> None:
        monkeypatch.setattr(restoring.seal, "seal", sealed)
        with pytest.raises(ConfigError, match=r"restoring is in use by another muster \(process \d+\)$"):
            origin(snapshot, data_dir)
        sealed(folder, incarnation)

    monkeypatch.setattr(restoring.seal, "seal", seal)
    assert origin(snapshot, data_dir)
    assert [path.name for path in data_dir.iterdir()] == ["member"]
    with pytest.raises(NoBackup, match="not empty"):
        origin(snapshot, data_dir)


def test_a_restore_that_was_overtaken_leaves_no_trace(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = restoring.opened

    def late(*args: Any) -> Database:
        monkeypatch.setattr(restoring, "opened", opened)
        assert origin(snapshot, tmp_path / "1")
        return opened(*args)

    monkeypatch.setattr(restoring, "opened", late)
    with pytest.raises(NoBackup, match="not empty"):
        origin(snapshot, tmp_path / "1")
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["member"]


def test_a_restore_that_fails_leaves_another_ones_logs(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once had one --wal-dir by mistake: the second removed the logs of the first."""
    logs, made_at = tmp_path / "logs", restoring.made_at

    def late(*args: Any) -> str:
        monkeypatch.setattr(restoring, "made_at", made_at)
        assert origin(snapshot, tmp_path / "1", wal_dir=str(logs))
        return made_at(*args)

    monkeypatch.setattr(restoring, "made_at", late)
    with pytest.raises(FileExistsError):
        origin(snapshot, tmp_path / "2", "b", wal_dir=str(logs))
    assert (logs / "shard-0/db/CURRENT").is_file()
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize("where", ["logs", "1/logs"])
def test_a_restore_that_fails_leaves_no_logs(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(aside: Path) -> None:
        assert (aside / where.removeprefix("1/") if "/" in where else tmp_path / where).is_dir()
        raise OSError(errno.ENOSPC, "no room", str(aside))

    monkeypatch.setattr(restoring, "_move_up", full)
    with pytest.raises(OSError, match="no room"):
        origin(snapshot, tmp_path / "1", wal_dir=str(tmp_path / where))
    assert not (tmp_path / where).exists()
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(("inside", "goes_on"), [(None, True), ("shard-0/db", False), ("other", False)])
def test_a_killed_restore_with_logs_elsewhere_is_run_again(
        snapshot: Path, tmp_path: Path, inside: str | None, goes_on: bool) -> None:
    """As each start says. Logs are begun last: nothing lies in their folders before."""
    data_dir, logs = tmp_path / "1", tmp_path / "logs"
    killed = data_dir / "restoring/member/shard-0"
    killed.mkdir(parents=True)
    begin_logs(str(logs), [killed])
    with pytest.raises(ConfigError, match="has not ended: run it again"):
        bootstrap.prepare_data_dir(str(data_dir))
    if inside is not None:
        (logs / inside).mkdir()
    if goes_on:
        assert origin(snapshot, data_dir, wal_dir=str(logs))
        assert (data_dir / "member/shard-0/log").readlink() == logs / "shard-0"
        assert (logs / "shard-0/db/CURRENT").is_file()
    with pytest.raises(NoBackup, match=f'wal-dir "{logs}" exists' if not goes_on else "not empty"):
        origin(snapshot, data_dir, wal_dir=str(logs))
    assert logs.exists()


def test_a_directory_for_logs_that_no_restore_has_left_is_refused(
        open_store: OpenStore, tmp_path: Path) -> None:
    """Also an empty one, as by etcdutl."""
    filled(store := open_store(), 1, 20)
    snapshot, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    left = tmp_path / "1/restoring/member/shard-0"
    left.mkdir(parents=True)
    begin_logs(str(tmp_path / "others"), [left])
    (tmp_path / "logs").mkdir()
    with pytest.raises(NoBackup, match=r"wal-dir .* exists"):
        origin(snapshot, tmp_path / "1", wal_dir=str(tmp_path / "logs"))


def test_a_restore_that_waited_for_one_that_ended_goes_not_on(tmp_path: Path) -> None:
    """Its lock is a file that is gone: a third one may have made another."""
    aside = tmp_path / "1" / "restoring"
    aside.mkdir(parents=True)
    lock, waits = restoring.DataDirLock(str(aside)), restoring.DataDirLock

    def waited(path: str) -> restoring.DataDirLock:
        Timer(0.05, lambda: (shutil.rmtree(aside), lock.release())).start()
        return waits(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "DataDirLock", waited)
        with pytest.raises(ConfigError, match="another restore, which has ended"), restoring._alone(
                tmp_path / "1", ""):
            pytest.fail("it goes on")
    assert not aside.exists()


def test_a_full_disk_is_named_by_the_error_that_a_tool_prints(open_store: OpenStore, tmp_path: Path) -> None:
    """RocksDB flushes once more when it is closed, and fails again."""
    store = open_store()
    store.apply([(1, 1, records.put(b"k", 0, 1, os.urandom(4 << 20), 0))])
    snapshot, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    with mounted(tmp_path / "1", "2m") as data_dir:
        with pytest.raises(SyncFailed, match=r"flush failed.*No space left on device"):
            origin(snapshot, data_dir)
        assert list(data_dir.iterdir()) == []


def test_a_directory_without_an_origin_is_known_and_one_with_a_damaged_one_is_not(
        snapshot: Path, tmp_path: Path) -> None:
    assert origin(snapshot, tmp_path / "1")
    path = tmp_path / "1" / "member" / "identity.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "origin": "no digest"}))
    with pytest.raises(ConfigError, match="is damaged"):
        bootstrap.known(str(tmp_path / "1"))
    del told["origin"]
    path.write_text(json.dumps(told))
    assert bootstrap.known(str(tmp_path / "1")).origin == ""


@pytest.mark.parametrize(("error", "restored"), [(errno.EACCES, True), (errno.EIO, False)])
def test_only_where_the_parent_may_not_be_read_a_restore_need_not_sync_it(
        snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, restored: bool) -> None:
    """A directory of one's own may stand in one of others'; else the name may not outlast a crash."""
    def fail(path: Path) -> None:
        if path == tmp_path:
            raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(restoring, "sync_directory", fail)
    if restored:
        assert origin(snapshot, tmp_path / "1")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            origin(snapshot, tmp_path / "1")
