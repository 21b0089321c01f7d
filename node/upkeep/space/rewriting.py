"""Rewriting a shard's files without what was deleted: one shard of a host at a time, with room to spare.

Old files stay until the new ones are there. Shards that rewrite side by side could each find the room that
all together lack, and a full disk ends the host. Hosts may share a disk and know nothing of each other there.
So one that found no room tries again in times of its own, and begins only if nobody uses up what is free.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cluster.settings import NodeSettings
from node.storage.directory import free_bytes
from node.storage.errors import Filled, NoRoom

if TYPE_CHECKING:
    from node.storage import StateStore

LOCK = "rewriting"  # file in the run directory: the process that holds its lock rewrites
AGAIN_S = 1.0  # a shard that finds another one at it asks again after so long
# two looks are so far apart, at least and at most: meanwhile a rewrite writes tens of megabytes
_STEADY_S = 2.5, 10.0
_FALL = 1024  # the part of what is free that may go meanwhile: others log
_TURN_S = 10.0  # of a host; the second half is for what it has begun to show on the disk


class Busy(Exception):
    """A shard of this host rewrites already, or another host may."""


class Rewriting:
    def __init__(self, settings: NodeSettings, store: StateStore, monotonic: Callable[[], float]) -> None:
        self._run_dir = settings.common.run_dir
        self._path = settings.data_dir
        self._spare_bytes = settings.min_free_disk_bytes // 2  # below it a host is very short of space
        self._store = store
        self._monotonic = monotonic
        self._lacked = False  # the last one that upkeep wanted found no room
        self._look: tuple[float, int] = (-math.inf, 0)  # when, and what was free

    def rewrite(self) -> None:
        """Long; for a helper thread. Raises Busy, NoRoom, SyncFailed, StorageCorruption."""
        with _alone(self._run_dir):
            self._store.defragment(self._spare_bytes)

    def give_back(self) -> None:
        """The same for upkeep. After one that found no room it is Busy until the room is steady."""
        if self._lacked and not self._steady():
            raise Busy
        try:
            self.rewrite()
        except NoRoom as error:
            self._lacked = not isinstance(error, Filled)
            raise
        self._lacked = False

    def _steady(self) -> bool:
        now_s, (looked_s, before) = self._monotonic(), self._look
        least_s, most_s = _STEADY_S
        if now_s - looked_s < least_s:
            return False
        try:
            free = free_bytes(self._path)
        except OSError:
            return True  # the try itself tells
        self._look = now_s, free
        return now_s - looked_s <= most_s and free >= before - before // _FALL


def has_turn(member_id: int, members: list[int], wall_s: float) -> bool:
    """Whether a host may try again now. Hosts of a disk have one clock; where others' differ, two may."""
    if member_id not in members:
        return False
    at_s = wall_s % (_TURN_S * len(members)) - _TURN_S * sorted(members).index(member_id)
    return 0 <= at_s < _TURN_S / 2


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
