"""Copies of a host's files, which ``musterctl --api 2 backup`` makes of a host that does not run.

A copy has the host's IDs. Beside the host's cluster it would vote a second time in its name (H10), so it
starts with ``--force-new-cluster`` only, which makes a cluster of it alone. A mark in it says what it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.muster.config.parse import ConfigError
from tools.muster.host.identity.bootstrap import member_dir
from tools.muster.machine.disk.seal import sync_directory, write_whole

FILE = "copied"


def mark(data_dir: str) -> None:
    """Say of a data directory that it is a copy; nothing of it may wait for the disk then."""
    os.sync()
    write_whole(Path(member_dir(data_dir), FILE), "made by musterctl backup: --force-new-cluster\n")


def check(data_dir: str, force: bool) -> None:
    """ConfigError for a copy that is to start as the host that it was made of."""
    if Path(member_dir(data_dir), FILE).exists() and not force:
        raise ConfigError(
            f"{data_dir} is a copy of a host's files, made by musterctl backup: it starts with "
            "--force-new-cluster, and must not while the others of its cluster run"
        )


def taken(data_dir: str) -> None:
    """The copy has become a cluster by itself."""
    path = Path(member_dir(data_dir), FILE)
    if path.exists():
        path.unlink()
        sync_directory(path.parent)
