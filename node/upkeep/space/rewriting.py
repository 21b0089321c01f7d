"""Rewriting a shard's files without what was deleted: one shard of a host at a time, with room to spare.

Old files stay until the new ones are there. Shards that rewrite side by side could each find the room that
all together lack, and a full disk ends the host. Hosts may share a disk and know nothing of each other there.
Where it lacks the room for all, each begins in times of its own only, and while the free space does not fall
as by a rewrite. What others write does not keep it waiting.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cluster.settings import NodeSettings
from node.storage.defragment import kept_free
from node.storage.directory import free_bytes

if TYPE_CHECKING:
    from node.machine import Machine
    from node.storage import StateStore

LOCK = "rewriting"  # file in the run directory: the process that holds its lock rewrites
AGAIN_S = 1.0  # a shard that finds another one at it asks again after so long
_STEADY_S = 2.5, 10.0  # two looks are so far apart, at least and at most
# a rewrite writes more, also on a slow disk; the logs of other programs less
_FALL_BYTES_S = 4 << 20
_TURN_S = 10.0  # of a host; the second half is for what it has begun to show on the disk


class Busy(Exception):
    """A shard of this host rewrites already."""


class Deferred(Busy):
    """Another host may rewrite: this one is to try again when it has its turn."""


class Rewriting:
    def __init__(self, settings: NodeSettings, store: StateStore, members: Callable[[], list[int]],
                 machine: Machine) -> None:
        self._run_dir = settings.common.run_dir
        self._member_id, self._members = settings.common.member_id, members
        self._path = settings.data_dir
        self._spare_bytes = settings.min_free_disk_bytes // 2  # below it a host is very short of space
        self._store = store
        self._monotonic, self._wall_time = machine.monotonic, machine.wall_time
        self._look: tuple[float, int] = (-math.inf, 0)  # when, and what was free

    def rewrite(self) -> None:
        """Long; for a helper thread. Raises Busy, NoRoom, SyncFailed."""
        with _alone(self._run_dir):
            self._store.defragment(self._spare_bytes)

    def give_back(self) -> None:
        """The same for upkeep, which all hosts may want at the same time. Raises Deferred too."""
        with _alone(self._run_dir):
            if self._others_may_need_it():
                raise Deferred("the disk may lack the room for all hosts: they take turns")
            self._store.defragment(self._spare_bytes)

    def has_turn(self) -> bool:
        return has_turn(self._member_id, self._members(), self._wall_time())

    def _others_may_need_it(self) -> bool:
        """Whether another host could now use up the room that this one needs."""
        try:
            free = free_bytes(self._path)
        except OSError:
            return False  # the try itself tells
        needed, room = self._store.rewriting_needs(), free - kept_free(free, self._spare_bytes)
        if needed > room or needed * len(self._members()) <= room:  # none for this one, or enough for all
            return False
        return not (self.has_turn() and self._steady(free))

    def _steady(self, free: int) -> bool:
        now_s, (looked_s, before) = self._monotonic(), self._look
        least_s, most_s = _STEADY_S
        passed_s = now_s - looked_s
        if passed_s < least_s:
            return False
        self._look = now_s, free
        return passed_s <= most_s and before - free < _FALL_BYTES_S * passed_s


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
