"""A host that began with more shards than its cluster has."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.unit.tools.host.test_muster_bootstrap import establish
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap
from tools.muster.machine.disk import seal


def begin(folder: Path) -> None:
    for part in seal.PARTS.values():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    seal.begin(folder, seal.read(folder)[0])


@pytest.mark.parametrize("logs", ["", "logs"])
@pytest.mark.parametrize("steps", [0, 1, 99])
def test_what_a_host_that_follows_has_too_many_of_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, logs: str
) -> None:
    """A shard that was born under such a number ended the whole host, at each start. ``steps``: folders that
    are removed before a first try crashes."""
    flags = (f"--wal-dir={tmp_path / logs}",) if logs else ()
    data_dir = tmp_path / "data"
    establish(data_dir, "--shards=3", *flags)
    folders = [data_dir / "member" / f"shard-{shard}" for shard in range(3)]
    for folder in folders:
        (folder / bootstrap.AGREED).write_text("1 2\n", encoding="utf-8")
        begin(folder)

    remove, left = shutil.rmtree, [0] * steps

    def crashing(path: Path) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        remove(path)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", crashing)
        establish(data_dir, *flags)
    identity, _ = establish(data_dir, *flags)
    assert identity.shard_count == 1
    assert seal.read(folders[0])[1] == seal.BEGUN
    for folder in folders[1:]:
        assert [path.name for path in folder.iterdir()] == [seal.FILE]
        assert seal.read(folder) == (identity.incarnation, seal.NEW)
        assert not (tmp_path / "logs" / folder.name).exists()


@pytest.mark.parametrize("release", ["this", "an older one"])
def test_an_identity_of_before_the_layout_was_taken_empties_nothing(tmp_path: Path, release: str) -> None:
    """A shard was born meanwhile: its replica came back without its votes (H10)."""
    identity, _ = establish(tmp_path, "--shards=2")
    path, folder = tmp_path / "member" / "identity.json", tmp_path / "member" / "shard-1"
    old = path.read_bytes()
    (tmp_path / "member" / "shard-0" / bootstrap.AGREED).write_text("1 2\n", encoding="utf-8")
    establish(tmp_path)
    if release != "this":  # it left no mark; the next start does
        (tmp_path / "member" / "shard-0" / bootstrap.FOLLOWED).unlink()
        establish(tmp_path)
    begin(folder)
    bootstrap.note_born(str(tmp_path), {1: (identity.member_id,)})
    path.write_bytes(old)
    with pytest.raises(ConfigError, match=r"older than data beside it: .* or replace this host"):
        establish(tmp_path)
    seal.check(folder, identity.member_id, identity.incarnation)
    assert seal.read(folder)[1] == seal.BEGUN


@pytest.mark.parametrize("moved", ["state", "log"])
def test_what_an_operator_has_moved_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """It was looked for in the working directory, or ended each start of the host."""
    (disk := tmp_path / "data" / "disk").mkdir(parents=True)
    (folder := tmp_path / "data" / "shard-1").mkdir()
    (other := tmp_path / "other" / "disk").mkdir(parents=True)
    (folder / moved).symlink_to("../disk")
    (tmp_path / "other" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "other" / "here")
    seal.empty(folder, 7)
    assert [path.name for path in folder.iterdir()] == [seal.FILE]
    assert other.exists()
    assert disk.exists() == (moved == "state"), "its owner may have put there more than that"
