"""What a host keeps is for its user alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.muster.host.identity.bootstrap import prepare_data_dir


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_new_directory_and_all_that_is_made_after_it_are_closed_to_others(tmp_path: Path) -> None:
    assert prepare_data_dir(str(tmp_path / "d")) == []
    (tmp_path / "d" / "member" / "file").write_text("x")
    (tmp_path / "d" / "member" / "folder").mkdir()
    assert {
        path.name: path.stat().st_mode & 0o777 for path in [tmp_path / "d", *(tmp_path / "d").rglob("*")]
    } == {"d": 0o700, "member": 0o700, "file": 0o600, "folder": 0o700}


def test_what_others_may_read_is_told_and_not_at_length(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    for number in range(9):
        (tmp_path / "d" / f"{number}.sst").write_text("x")
    told = prepare_data_dir(str(tmp_path / "d"))
    assert told[0] == f"{tmp_path}/d has mode 0755, where 0700 is enough"
    assert told[1].endswith(".sst has mode 0644, where 0600 is enough")
    assert told[3:] == [f"7 more like it in {tmp_path}/d"]


def test_what_lies_in_a_closed_directory_is_closed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "file").write_text("x")
    assert prepare_data_dir(str(tmp_path / "d")) == []


def moved_log(tmp_path: Path, *, linked: bool) -> Path:
    """A log in a directory of its own (``--wal-dir``), copied there without its modes. ``linked``: a start
    has found it before."""
    (tmp_path / "d" / "member" / "shard-0").mkdir(parents=True)
    (tmp_path / "d").chmod(0o700)
    log = tmp_path / "wal" / "shard-0"
    log.mkdir(parents=True)
    (log / "000007.log").write_text("every value")
    if linked:
        (tmp_path / "d" / "member" / "shard-0" / "log").symlink_to(log)
    return log


@pytest.mark.parametrize("linked", [False, True])
def test_a_log_elsewhere_that_others_may_read_is_told_too(tmp_path: Path, linked: bool) -> None:
    log = moved_log(tmp_path, linked=linked)
    told = prepare_data_dir(str(tmp_path / "d"), "" if linked else str(tmp_path / "wal"))
    assert told == [f"{log} has mode 0755, where 0700 is enough",
                    f"{log}/000007.log has mode 0644, where 0600 is enough"]


def test_a_log_in_a_closed_directory_elsewhere_is_closed(tmp_path: Path) -> None:
    log = moved_log(tmp_path, linked=True)
    log.parent.chmod(0o700)
    assert prepare_data_dir(str(tmp_path / "d"), str(log.parent)) == []


def test_a_directory_of_logs_that_others_may_list_is_not_told(tmp_path: Path) -> None:
    """It may be a mounted device, with more in it."""
    log = moved_log(tmp_path, linked=True)
    log.chmod(0o700)
    assert prepare_data_dir(str(tmp_path / "d"), str(log.parent)) == []


def test_a_directory_of_logs_within_the_data_directory_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "d" / "wal" / "shard-0").mkdir(parents=True)
    told = prepare_data_dir(str(tmp_path / "d"), str(tmp_path / "d" / "wal"))
    assert len(told) == len(set(told)) == 3
