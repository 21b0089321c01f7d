"""``backup --backup-wal-dir``: a copy's logs take their places last, and no other's are touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tools.musterctl.command import Exit
from tools.musterctl.v2.commands import backup
from tools.musterctl.v2.start import Run


def line(folder: Path, wal_dir: str, to: str = "to") -> Run:
    """The command with a stopped host's directory of two nodes, one of which has never run."""
    member = folder / "host/member"
    if not member.exists():
        (member / "shard-0/log/db").mkdir(parents=True)
        (member / "shard-0/log/db/CURRENT").write_text("the host's")
        (member / "shard-1").mkdir()
        (member / "identity.json").write_text("{}")
    options = {"data-dir": f"{folder}/host", "backup-dir": f"{folder}/{to}", "wal-dir": "",
               "backup-wal-dir": f"{folder}/{wal_dir}"}  # fmt: skip
    return cast(Run, SimpleNamespace(options=SimpleNamespace(string=options.__getitem__)))


Said = pytest.CaptureFixture[str]


def refused(run: Run, said: Said) -> str:
    with pytest.raises(Exit):
        backup.backup(run)
    return said.readouterr().err.removesuffix("\n")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("wal_dir", ["logs", "to", "to/wal"])
def test_a_copy_has_its_logs_there_and_no_way_to_them(wal_dir: str, tmp_path: Path, capsys: Said) -> None:
    """Both directories may be taken elsewhere: --wal-dir tells where the logs are."""
    backup.backup(line(tmp_path, wal_dir))
    assert (tmp_path / wal_dir / "shard-0/db/CURRENT").read_text() == "the host's"
    assert files(tmp_path / "to/member") == [
        "copied", "identity.json", "shard-0", "shard-0/log-name", "shard-1"]
    beside = {*(tmp_path / wal_dir).iterdir(), *(tmp_path / "to").iterdir()}
    assert {path.name for path in beside} <= {"member", "shard-0", "wal"}
    assert "start it with --wal-dir" in capsys.readouterr().err


@pytest.mark.parametrize("wal_dir", ["logs", "to", "to/wal"])
def test_a_backup_that_was_killed_can_be_made_again(wal_dir: str, tmp_path: Path) -> None:
    run = line(tmp_path, wal_dir)
    left = backup._logs_aside(tmp_path / "to", tmp_path / wal_dir)
    for folder in (left / "shard-0/db", tmp_path / "to/.copying/data/member/shard-0"):
        folder.mkdir(parents=True)
    backup.backup(run)
    assert files(tmp_path / wal_dir / "shard-0") == ["db", "db/CURRENT", "log-name"]
    assert not left.exists()


def test_what_another_has_put_there_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    """A host, or a backup to another directory; it may have taken minutes."""
    run, other = line(tmp_path, "logs"), tmp_path / "logs/shard-0"

    def meanwhile() -> None:
        other.mkdir()
        (other / "log").write_text("another's")

    monkeypatch.setattr(backup.os, "sync", meanwhile)
    monkeypatch.setattr("tools.muster.host.identity.copies.mark", lambda data_dir: None)
    assert refused(run, capsys) == f"open {other}: file exists"
    assert files(tmp_path / "logs") == ["shard-0", "shard-0/log"]
    assert files(tmp_path / "to") == []


def test_a_backup_that_fails_takes_its_own_logs_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    run = line(tmp_path, "logs")
    monkeypatch.setattr("tools.muster.host.identity.copies.mark", lambda data_dir: None)
    monkeypatch.setattr(backup.os, "sync", lambda: (tmp_path / "to/member/other").mkdir(parents=True))
    assert refused(run, capsys).endswith("directory not empty")
    assert files(tmp_path / "logs") == []


@pytest.mark.parametrize("wal_dir", ["to/member/wal", "to/.copying/wal", "host/member", "host/member/wal"])
def test_logs_are_not_put_into_what_is_copied(wal_dir: str, tmp_path: Path, capsys: Said) -> None:
    assert "give a directory outside of it" in refused(line(tmp_path, wal_dir), capsys)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("to", ["host/member", "host/member/b", "host/member/shard-0/b"])
def test_a_backup_is_not_put_into_what_is_copied(to: str, tmp_path: Path, capsys: Said) -> None:
    """It copied itself, level in level."""
    run = line(tmp_path, "logs", to)
    assert refused(run, capsys) == (
        f"--backup-dir {tmp_path}/{to} is in {tmp_path}/host/member: give a directory outside of it")
    assert files(tmp_path / "host/member") == [
        "identity.json", "shard-0", "shard-0/log", "shard-0/log/db", "shard-0/log/db/CURRENT", "shard-1"]


def test_a_directory_with_anything_in_it_is_refused(tmp_path: Path, capsys: Said) -> None:
    run = line(tmp_path, "logs")
    backup._logs_aside(tmp_path / "other", tmp_path / "logs").mkdir(parents=True)
    assert refused(run, capsys) == f"{tmp_path}/logs is not empty"  # another backup's
