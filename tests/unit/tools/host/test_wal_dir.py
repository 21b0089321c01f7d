"""``--wal-dir``: logs lie where the first start put them, and nowhere else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from node import durable
from tests.unit.tools.host.test_muster_bootstrap import establish
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.wal_dir import begin_logs, made_at, point_logs
from tools.muster.machine.disk import seal


def shard(data_dir: Path, number: int = 0) -> Path:
    return Path(bootstrap.shard_dir(str(data_dir), number))


def begin(data_dir: Path) -> None:
    """As a node does."""
    for file in seal.PARTS.values():
        path = shard(data_dir) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    seal.begin(shard(data_dir), seal.read(shard(data_dir))[0])


def test_every_nodes_log_is_a_link_into_it(tmp_path: Path) -> None:
    data_dir, logs = tmp_path / "data", tmp_path / "logs"
    establish(data_dir, f"--wal-dir={logs}", "--shards=2")
    for number in range(2):
        assert (shard(data_dir, number) / "log").readlink() == logs / f"shard-{number}"
    begin(data_dir)
    assert (logs / "shard-0" / "db" / "CURRENT").is_file()
    establish(data_dir, f"--wal-dir={logs}")
    establish(data_dir)  # the link remembers


def test_the_names_of_the_folders_outlast_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without the log of its first start has lost its votes: it refuses to start again."""
    lasting: set[Path] = set()
    monkeypatch.setattr(durable, "sync_directory", lambda path: lasting.update(path.iterdir()))
    data_dir, logs = tmp_path / "data", tmp_path / "mount" / "logs"
    establish(data_dir, f"--wal-dir={logs}", "--shards=2")
    folders = {logs / "shard-0", logs / "shard-1"}
    assert {*folders, logs, logs.parent} <= lasting
    lasting.clear()
    for folder in folders:
        folder.rmdir()
    for number in range(2):
        (shard(data_dir, number) / "log").unlink()
    establish(data_dir, f"--wal-dir={logs}")
    assert folders <= lasting, "those that a later start makes"
    restored = tmp_path / "restored"
    restored.mkdir()
    begin_logs(str(tmp_path / "new" / "logs"), [restored])
    assert {tmp_path / "new", tmp_path / "new" / "logs"} <= lasting


def test_a_host_that_is_restored_begins_with_its_logs_there(tmp_path: Path) -> None:
    folders = [tmp_path / "data" / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    begin_logs("", folders)
    assert not (folders[0] / "log").exists()
    begin_logs(str(tmp_path / "logs"), folders)
    for number, folder in enumerate(folders):
        assert (folder / "log").readlink() == tmp_path / "logs" / f"shard-{number}"
    with pytest.raises(FileExistsError):
        begin_logs(str(tmp_path / "logs"), folders)


def test_logs_may_lie_in_the_data_directory_that_is_being_made(tmp_path: Path) -> None:
    data_dir, aside = tmp_path / "data", tmp_path / "data.restoring"
    elsewhere = str(tmp_path / "data-logs")
    assert made_at(elsewhere, data_dir, aside) == elsewhere
    assert made_at("", data_dir, aside) == ""
    (aside / "a").mkdir(parents=True)
    made = made_at(str(data_dir / "wal"), data_dir, aside)
    begin_logs(made, [aside / "a"])
    (aside / "a" / "log" / "x").touch()
    point_logs(str(data_dir / "wal"), [aside / "a"])
    assert not data_dir.exists()
    aside.rename(data_dir)
    assert (data_dir / "a" / "log").readlink() == data_dir / "wal" / "shard-0"
    assert (data_dir / "a" / "log" / "x").exists()


def test_another_directory_than_that_of_the_first_start_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    establish(data_dir, f"--wal-dir={tmp_path / 'logs'}")
    with pytest.raises(ConfigError, match=r"is in .*/logs/shard-0, and .* asks for .*/other/shard-0$"):
        establish(data_dir, f"--wal-dir={tmp_path / 'other'}")


def test_a_log_that_is_lost_with_its_device_is_not_made_anew(tmp_path: Path) -> None:
    data_dir, logs = tmp_path / "data", tmp_path / "logs"
    establish(data_dir, f"--wal-dir={logs}")
    begin(data_dir)
    shutil.rmtree(logs)
    for flags in ([f"--wal-dir={logs}"], []):
        with pytest.raises(ConfigError, match=r"has lost the log \(log/db\)"):
            establish(data_dir, *flags)


def test_a_log_moves_when_the_operator_has_moved_it(tmp_path: Path) -> None:
    data_dir, logs = tmp_path / "data", tmp_path / "logs"
    establish(data_dir)
    begin(data_dir)
    with pytest.raises(ConfigError, match=r"log holds the log\. .* move that directory to .*/logs/shard-0"):
        establish(data_dir, f"--wal-dir={logs}")
    logs.mkdir()
    (shard(data_dir) / "log").rename(logs / "shard-0")
    with pytest.raises(ConfigError, match=r"If its log is in another .* name that one with --wal-dir"):
        establish(data_dir)  # a copy that has its logs elsewhere is such a one, too
    establish(data_dir, f"--wal-dir={logs}")
    assert (shard(data_dir) / "log" / "synced").is_file()


def test_a_new_host_takes_nobodys_logs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    establish(tmp_path / "one", f"--wal-dir={logs}")
    begin(tmp_path / "one")
    with pytest.raises(ConfigError, match="is not empty, and its node is new"):
        establish(tmp_path / "two", f"--wal-dir={logs}")
    later = tmp_path / "later" / "shard-3"  # of a shard that a cluster of before has added
    (later / "db").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"{later} is not empty, and its node is new"):
        establish(tmp_path / "four", f"--wal-dir={later.parent}")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot use --wal-dir=.*/file: Not a directory"):
        establish(tmp_path / "three", f"--wal-dir={tmp_path / 'file'}")
    for refused in ("two", "three", "four"):
        assert list((tmp_path / refused / "member").iterdir()) == []
