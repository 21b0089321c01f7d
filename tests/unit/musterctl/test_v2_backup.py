"""A backup of version 2 that was told is there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.musterctl.v2.commands import backup


def test_the_names_of_a_backup_are_on_the_disk_when_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def fsync(fd: int) -> None:
        there = (tmp_path / "to" / "member").exists()
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), there))

    aside = backup._aside(tmp_path / "to")
    (aside / "data" / "member").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", fsync)
    backup._take_place(aside, tmp_path / "to")
    assert synced == [(str(tmp_path / "to"), True), (str(tmp_path), True)]
