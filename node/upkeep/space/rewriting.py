"""Rewriting a shard's files without what was deleted: one shard of a host at a time, with room to spare.

Old files stay until the new ones are there. Shards that rewrite side by side could each find the room that
all together lack, and a full disk ends the host.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cluster.settings import NodeSettings

if TYPE_CHECKING:
    from node.storage import StateStore

LOCK = "rewriting"  # file in the run directory: the process that holds its lock rewrites
AGAIN_S = 1.0  # a shard that finds another one at it asks again after so long


class Busy(Exception):
    """A shard of this host rewrites already."""


class Rewriting:
    """``hosts`` of the cluster may be set: any of them may use the same disk."""

    def __init__(self, settings: NodeSettings, store: StateStore) -> None:
        self.hosts = 1
        self._run_dir = settings.common.run_dir
        self._spare_bytes = settings.min_free_disk_bytes // 2  # below it a host is very short of space
        self._store = store

    def rewrite(self, again: bool = False) -> None:
        """Long; for a helper thread. ``again``: the disk may have had too little room. Then all hosts may be
        waiting for some: this one goes on once there is enough for all. Raises Busy, NoRoom, SyncFailed,
        StorageCorruption."""
        with _alone(self._run_dir):
            self._store.defragment(self._spare_bytes, self.hosts if again else 1)


@contextmanager
def _alone(run_dir: str) -> Iterator[None]:
    """Raises Busy. Where the file cannot be made or locked nobody waits: what makes room goes on."""
    fd = -1
    try:
        if run_dir:
            with suppress(OSError):
                fd = os.open(os.path.join(run_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if fd >= 0 and not _locked(fd):
            raise Busy
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _locked(fd: int) -> bool:
    """Also true on a file system that knows no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
