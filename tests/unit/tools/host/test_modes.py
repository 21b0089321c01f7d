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
