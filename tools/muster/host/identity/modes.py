"""What of a host's files the group or others may open, told at each start: they hold every key."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tools.muster.machine.disk import seal

_TOLD = 3  # paths of a directory that are logged


def looser(data_dir: str, wal_dir: str = "") -> list[str]:
    """Warnings of the first such paths in the data directory, and in logs that are elsewhere."""
    found = _warnings(data_dir)
    own = os.path.realpath(data_dir)
    for log in sorted({os.path.realpath(log) for log in _logs_elsewhere(data_dir, wal_dir)}):
        if os.path.commonpath((own, log)) != own and _is_open(os.path.dirname(log)):
            found += _warnings(log)
    return found


def _logs_elsewhere(data_dir: str, wal_dir: str) -> Iterator[Path]:
    """As links lead to them, and where the first start with ``--wal-dir`` will find them."""
    for log in Path(data_dir, "member").glob(f"shard-*/{seal.LOG}"):
        if log.is_symlink():
            yield log
    if wal_dir:
        yield from Path(wal_dir).glob("shard-*")


def _is_open(folder: str) -> bool:
    try:
        return bool(os.stat(folder).st_mode & 0o077)
    except OSError:
        return False


def _warnings(top: str) -> list[str]:
    found = []
    for folder, folders, files in os.walk(top):
        if not os.lstat(folder).st_mode & 0o077:
            folders.clear()
            continue
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if mode & 0o077 and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found.append(
                    f"{path} has mode {stat.S_IMODE(mode):04o}, where "
                    f"0{'7' if stat.S_ISDIR(mode) else '6'}00 is enough")
    return (
        [*found[:_TOLD], f"{len(found) - _TOLD} more like it in {top}"]
        if len(found) > _TOLD + 1
        else found)
