"""A copy of ``backup --backup-wal-dir`` takes its own logs and no other's (H10)."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest

from tools.muster.config.parse import ConfigError
from tools.muster.host import salvaging
from tools.muster.host.identity.wal_dir import place_logs
from tools.muster.machine.disk import seal
from tools.musterctl.command import Exit
from tools.musterctl.v2.commands import backup
from tools.musterctl.v2.start import Run

INCARNATION = 7
Said = pytest.CaptureFixture[str]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The node of a stopped host, whose log is in W."""
    node = tmp_path / "host/member/shard-0"
    node.mkdir(parents=True)
    (tmp_path / "host/member/identity.json").write_text("{}")
    seal.seal(node, INCARNATION)
    place_logs(f"{tmp_path}/W", [str(node)])
    for file in seal.PARTS.values():
        (node / file).parent.mkdir(exist_ok=True)
        (node / file).write_text("the host's")
    seal.begin(node, INCARNATION)
    return node


def copied(folder: Path, host: str = "host", to: str = "to", wal_dir: str = "L") -> Path:
    """The copy's node."""
    options = {"data-dir": f"{folder}/{host}", "backup-dir": f"{folder}/{to}", "wal-dir": "",
               "backup-wal-dir": wal_dir and f"{folder}/{wal_dir}"}  # fmt: skip
    backup.backup(cast(Run, SimpleNamespace(options=SimpleNamespace(string=options.__getitem__))))
    return folder / to / "member/shard-0"


def of_running(folder: Path) -> Path:
    """A copy's node, as of a host that runs: it is restored beside, and then takes its place."""
    aside = backup._aside(folder / "to")
    node = aside / "data/member/shard-0"
    shutil.copytree(folder / "host/member/shard-0", node)
    with backup._logs_of(folder / "to", folder / "L") as logs:
        backup._take_place(aside, folder / "to", logs)
    return folder / "to/member/shard-0"


def start(node: Path, wal_dir: Path | None) -> None:
    place_logs(str(wal_dir or ""), [str(node)])
    seal.check(node, 1, INCARNATION)


def refused(node: Path, wal_dir: Path | None) -> str:
    had = os.path.lexists(node / "log")
    with pytest.raises((ConfigError, seal.SealBroken)) as error:
        start(node, wal_dir)
    assert os.path.lexists(node / "log") == had
    return str(error.value)


@pytest.mark.parametrize("make", [copied, of_running])
def test_the_log_of_its_host_is_refused(make: object, host: Path, tmp_path: Path) -> None:
    """The host's own configuration has a --wal-dir."""
    node = make(tmp_path)  # type: ignore[operator]
    for wal_dir in (tmp_path / "W", tmp_path / "nowhere", None):
        said = refused(node, wal_dir)
        assert f"has put its log into {tmp_path}/L/shard-0: name " in said
        assert f"such as {tmp_path}/L, with --wal-dir. " in said
    assert f"{tmp_path}/W/shard-0 is not the log of {node}" in refused(node, tmp_path / "W")
    start(node, tmp_path / "L")
    start(node, None)
    start(host, tmp_path / "W")
    assert not (tmp_path / "W/shard-0/log-name").exists()


def test_one_refused_log_leaves_all_nodes_without_links(host: Path, tmp_path: Path) -> None:
    """One that has not begun would take any empty folder."""
    node = copied(tmp_path)
    new = node.with_name("shard-1")
    seal.seal(new, INCARNATION)
    (tmp_path / "W/shard-1").mkdir()  # linked by the host's
    with pytest.raises(ConfigError):
        place_logs(f"{tmp_path}/W", [str(new), str(node)])
    assert not os.path.lexists(new / "log")


def test_a_host_takes_no_log_of_a_copy(host: Path, tmp_path: Path) -> None:
    copied(tmp_path)
    (host / "log").unlink()
    assert "is not the log of" in refused(host, tmp_path / "L")
    start(host, tmp_path / "W")


def test_a_copys_logs_move(host: Path, tmp_path: Path) -> None:
    node = copied(tmp_path)
    moved = (tmp_path / "L").rename(tmp_path / "moved")
    start(node, moved)
    (node / "log").unlink()
    assert "is not the log of" in refused(node, tmp_path / "W")
    start(node, moved.rename(tmp_path / "again"))
    (node / "log").unlink()
    (tmp_path / "again/shard-0").rename(node / "log")
    start(node, None)


def test_a_link_by_hand_is_checked_too(host: Path, tmp_path: Path, capsys: Said) -> None:
    node = copied(tmp_path)
    (node / "log").symlink_to(tmp_path / "W/shard-0")
    assert f"Remove the link {node}/log. " in refused(node, None)
    with pytest.raises(ConfigError, match="is not the log of"):
        salvaging._copy(node, tmp_path / "aside", lambda text: None)
    with pytest.raises(Exit):
        copied(tmp_path, "to", "second", "L2")
    assert "is not the log of" in capsys.readouterr().err


def test_a_copy_of_a_copy_has_logs_of_its_own(host: Path, tmp_path: Path, capsys: Said) -> None:
    node = copied(tmp_path)
    with pytest.raises(Exit):
        copied(tmp_path, "to", "second", "L2")
    assert "has no link to its log: start this copy once with --wal-dir" in capsys.readouterr().err
    start(node, tmp_path / "L")
    second = copied(tmp_path, "to", "second", "L2")
    for wal_dir in ("L", "W"):
        assert f"into {tmp_path}/L2/shard-0: " in refused(second, tmp_path / wal_dir)
    start(second, tmp_path / "L2")
    third = copied(tmp_path, "second", "third", "")  # the logs inside
    start(third, None)
    start(node, tmp_path / "L")


def test_a_node_that_has_not_begun_leaves_its_log_behind(host: Path, tmp_path: Path) -> None:
    """Its host was killed before its first vote; a log would be taken for another host's."""
    new = host.with_name("shard-1")
    seal.seal(new, INCARNATION)
    (new / "log/db").mkdir(parents=True)
    (new / "log/db/CURRENT").write_text("")
    node = copied(tmp_path)
    assert not (tmp_path / "L/shard-1").exists()
    for one in (node, node.with_name("shard-1")):
        start(one, tmp_path / "L")
    assert list((tmp_path / "L/shard-1").iterdir()) == []


def test_without_a_log_the_seal_of_an_older_version_asks_for_it(host: Path, tmp_path: Path) -> None:
    (host / "log").unlink()
    (host / seal.FILE).write_text(f"{INCARNATION:016x}\n")
    assert "name that one with --wal-dir" in refused(host, None)
    start(host, tmp_path / "W")


def test_a_name_that_cannot_be_read_refuses(host: Path, tmp_path: Path) -> None:
    node = copied(tmp_path)
    (tmp_path / "L/shard-0/log-name").unlink()
    assert "lacks its file log-name" in refused(node, tmp_path / "L")
    (tmp_path / "L/shard-0/log-name").mkdir()
    assert "cannot read" in refused(node, tmp_path / "L")


def test_a_directory_that_may_not_be_read_is_told_in_one_line(
        host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(Exit):
        copied(tmp_path)
    assert "host/member/snap: permission denied" in capsys.readouterr().err


def test_a_full_disk_is_told_with_the_backups_directory(
        host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(backup, "_copy", Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(Exit):
        copied(tmp_path)
    assert f"write {tmp_path}/to: no space left on device" in capsys.readouterr().err


def test_transfers_that_a_killed_host_left_are_not_copied(host: Path, tmp_path: Path) -> None:
    for left in ("outgoing/1", "state/incoming-7-0"):
        (host / left).mkdir(parents=True)
        (host / left / "file").write_text("a whole state")
    node = copied(tmp_path)
    assert (node / "state").is_dir()
    assert not [path for path in node.rglob("*") if path.is_file() and path.read_text() == "a whole state"]
