"""Copies of a stopped host's files, made by ``musterctl --api 2 backup``.

A copy has the host's IDs, and would vote a second time for it (H10). So a marked copy starts with
``--force-new-cluster`` only, as a cluster of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from node.durable import sync_directory, write_whole
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity.bootstrap import member_dir

FILE = "copied"
LOCK = "LOCK"  # RocksDB's; not copied, as closing any descriptor of the file ends its lock


def mark(data_dir: str) -> None:
    """Mark a data directory as a copy, with all its files on the disk."""
    os.sync()
    write_whole(Path(member_dir(data_dir), FILE), b"made by musterctl backup: --force-new-cluster\n")


def check(data_dir: str, force: bool) -> None:
    """ConfigError for a copy that is to start as its host."""
    if Path(member_dir(data_dir), FILE).exists() and not force:
        raise ConfigError(
            f"{data_dir} is a copy of a host's files, made by musterctl backup: it starts with "
            "--force-new-cluster, and must not while the others of its cluster run")


def taken(data_dir: str) -> None:
    """The copy is a cluster of its own now."""
    path = Path(member_dir(data_dir), FILE)
    if path.exists():
        path.unlink()
        sync_directory(path.parent)


@contextlib.contextmanager
def held(data_dir: str) -> Iterator[None]:
    """Lock the stores of all nodes: a killed host's may live a little longer. ConfigError if one does."""
    found: list[int] = []
    try:
        for folder, _, names in os.walk(member_dir(data_dir), followlinks=True):
            if LOCK in names:
                path, kind = Path(folder, LOCK), fcntl.LOCK_EX
                try:
                    found.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                except OSError as error:
                    if error.errno != errno.EROFS:
                        raise
                    found.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    kind = fcntl.LOCK_SH  # enough for a reader
                try:
                    fcntl.lockf(found[-1], kind | fcntl.LOCK_NB)
                except OSError:
                    raise ConfigError(f"{folder} is in use: processes of the host still run") from None
        yield
    finally:
        for fd in found:
            os.close(fd)
