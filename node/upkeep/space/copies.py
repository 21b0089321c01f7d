"""Whether this host has room for a copy of keys that move: a copy that finds none waits.

A copy leaves a sixteenth of the quota to clients. On the disk it leaves ``--min-free-disk-bytes``, and what
write buffers will take. One that is whole, or that the order waits for, goes on down to half that margin:
only behind its end can the source's rows go.
"""

from __future__ import annotations

from cluster.features.moves import UNBOUNDED, Room
from cluster.settings import NodeSettings
from node.upkeep.space import disks
from node.upkeep.space.quota import Quota

_PARTS = 16  # of the quota; one is left to clients


class CopyRoom:
    def __init__(self, settings: NodeSettings, quota: Quota) -> None:
        self._path = settings.data_dir
        self._margin = settings.min_free_disk_bytes
        self._kept = self._margin + settings.write_buffer_bytes
        self._quota = quota

    def lacks(self, *, ends: bool) -> str:
        """Why a copy has to wait; empty: it may go on. ``ends``: it is whole, or the order waits for it."""
        if not ends and self.lacks_quota:
            left = self._quota.most - self._quota.in_use()
            return f"less than a sixteenth of the quota is left: {left} bytes"
        kept = self._margin // 2 if ends else self._kept
        if (free := self._free()) < kept:
            return f"{free} bytes of the file system are free, and {kept} have to stay so"
        return ""

    @property
    def lacks_quota(self) -> bool:
        return self._of_quota() <= 0

    def facts(self) -> Room:
        """For moves that an operator wishes for."""
        quota = self._quota
        return Room(quota.closed, self._of_quota(), self._free() - self._kept, quota.sizes())

    def _of_quota(self) -> int:
        most = self._quota.most
        return most - most // _PARTS - self._quota.in_use() if most > 0 else UNBOUNDED

    def _free(self) -> int:
        """Of the disk. A full one ends nodes: for a copy it is looked at without a margin, too."""
        try:
            return disks.free_bytes(self._path)
        except OSError:
            return UNBOUNDED
