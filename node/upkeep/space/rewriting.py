"""Rewriting a shard's files without what was deleted: one shard of a host at a time, with room to spare.

Old files stay until the new ones are there. Shards that rewrite side by side could each find the room that
all together lack, and a full disk ends the host. So do hosts of a machine whose data directories lie in one
directory, on one file system. Hosts that share a disk otherwise know nothing of each other.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from cluster.settings import NodeSettings

if TYPE_CHECKING:
    from node.storage import StateStore

LOCK = "rewriting"  # file in the run directory: the process that holds its lock rewrites
AGAIN_S = 1.0  # a shard that finds another one at it asks again after so long


class Busy(Exception):
    """Another shard of this host, or another host beside it, rewrites already."""


class Rewriting:
    def __init__(self, settings: NodeSettings, store: StateStore) -> None:
        self._run_dir, self._data_dir = settings.common.run_dir, settings.data_dir
        self._spare_bytes = settings.min_free_disk_bytes // 2  # below it a host is very short of space
        self._store = store

    def rewrite(self) -> None:
        """Long; for a helper thread. Raises Busy, NoRoom, SyncFailed, StorageCorruption."""
        with _alone(self._run_dir, self._data_dir):
            self._store.defragment(self._spare_bytes)


def _beside(data_dir: str) -> str | None:
    """The directory that a host's data directory lies in, where both are on one file system."""
    member = os.path.dirname(os.path.realpath(data_dir))
    if os.path.basename(member) != "member":
        return None
    found = os.path.dirname(os.path.dirname(member))
    return found if os.stat(found).st_dev == os.stat(data_dir).st_dev else None


@contextmanager
def _alone(run_dir: str, data_dir: str) -> Iterator[None]:
    """Raises Busy. Where a file cannot be made or locked nobody waits: what makes room goes on."""
    with ExitStack() as held:
        with suppress(OSError):
            if run_dir:
                lock = os.path.join(run_dir, LOCK)
                _hold(held, os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with suppress(OSError):
            if beside := _beside(data_dir):
                _hold(held, os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        yield


def _hold(held: ExitStack, fd: int) -> None:
    held.callback(os.close, fd)
    if not _locked(fd):
        raise Busy


def _locked(fd: int) -> bool:
    """Also true on a file system that knows no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
