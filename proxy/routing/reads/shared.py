"""What the fronts of a host have shown their clients, in a page that they share: a client's next connection
may reach another front, and a member of etcd is one process.

A front stores the highest revision, the highest index of the v2 tree and the highest compaction, acknowledged
or refused as done, in cells of its own before an answer with them leaves. A read of a replica looks at the
cells of all (0.2 us): no message, no lock, no wait. A front that starts again finds what it had shown, and
takes none of it back: its first answers may be of a replica that is behind. The page is in memory that fronts
inherit, for a store into a file of a disk waits where that is frozen. It is made anew with each start of the
host (``tools.muster.host.rundir``): a cluster that was forced to go on may lack what was shown before.
"""

from __future__ import annotations

import mmap
import os

_CELL_BYTES = 8  # loaded and stored at once
_CELLS = 3  # of a front


class Shared:
    __slots__ = ("_compactions", "_indexes", "_own", "_revisions")

    def __init__(self, page: mmap.mmap | bytearray, front: int, fronts: int) -> None:
        cells = memoryview(page).cast("Q")
        self._revisions, self._indexes = cells[:fronts], cells[fronts : 2 * fronts]
        self._compactions = cells[2 * fronts : _CELLS * fronts]
        self._own = front

    def show(self, revision: int) -> None:
        if revision > self._revisions[self._own]:
            self._revisions[self._own] = revision

    def show_index(self, index: int) -> None:
        if index > self._indexes[self._own]:
            self._indexes[self._own] = index

    def show_compaction(self, revision: int) -> None:
        if revision > self._compactions[self._own]:
            self._compactions[self._own] = revision

    @property
    def revision(self) -> int:
        return max(self._revisions)

    @property
    def index(self) -> int:
        return max(self._indexes)

    @property
    def compacted(self) -> int:
        return max(self._compactions)


def shared_by(fd: int, front: int, fronts: int) -> Shared:
    """The page of a host with so many fronts; closes ``fd``, its memory's. OSError."""
    size = _CELLS * fronts * _CELL_BYTES
    try:
        os.posix_fallocate(fd, 0, size)  # a store must find its memory. What is there stays
        return Shared(mmap.mmap(fd, size), front, fronts)
    finally:
        os.close(fd)
