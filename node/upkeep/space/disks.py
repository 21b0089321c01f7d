"""Room on the disks: when a host is short of it, and when the store must refuse data (decision 44).

A host is *short* once its kept log has half of ``--order-log-bytes``, or less than ``--min-free-disk-bytes``
of its file system are free; *very short* at three quarters, or at half the margin. The rest is headroom. A
quarter is for RocksDB: its files take ``LOG_BESIDE`` write buffers at most beside what is kept, and a buffer
is made so small that this is a quarter; should they take more, the host is short at three quarters of the
bound. The other quarter is for what is still logged: deletes, revokes, compactions, alarms, and cuts for
these. At *very short* deletes and transactions are refused too: one that only reads may be logged as well.

Every node 0 looks each second, and whenever a part of the margin has been logged. Short hosts tell each other
at once, and every second. The leader of shard 0 acts when the hosts that are up and not short are no majority
any more: one host whose disk is full ends alone.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cluster.settings import NodeSettings
from cluster.wire.frames import PeerKind
from node.storage import directory
from node.storage.options import LOG_BESIDE

FRAME = PeerKind.SPACE.byte  # between node 0s: a u8, how short of space the sender is
SPACE = "space"  # file in the run directory
ENOUGH, SHORT, VERY_SHORT, GONE = 0, 1, 2, 3
LOOK_BYTES = 64 << 10  # logged between two looks, at least
_FORGOTTEN_S = 5.0  # a short host that is silent about it for so long has room again
_SILENT_S = 10.0  # a host that has not been heard for so long is down


@dataclass(slots=True)
class Logged:
    """Bytes that have been applied since this node's start: looks and flushes go by them."""

    own: int = 0  # of the own log
    ordered: int = 0  # of node 0's, in other shards


def log_buffer_bytes(settings: NodeSettings) -> int:
    """The write buffer of a node's log: half as much again as the state's, within the order log's bound."""
    wanted = settings.write_buffer_bytes * 3 // 2
    return min(wanted, settings.order_log_bytes // (4 * LOG_BESIDE)) if settings.shard == 0 else wanted


def free_bytes(path: str) -> int:
    """What an ordinary user may still write to the file systems of ``path`` and its log: the less. Raises
    OSError."""
    found = [directory.free_bytes(path)]
    with suppress(FileNotFoundError):
        found.append(directory.free_bytes(os.path.join(path, "log")))
    return min(found)


class Space:
    """Of one node 0."""

    def __init__(self, member_id: int, path: str, *, most_log_bytes: int, margin_bytes: int) -> None:
        """``path``: on the file system that is looked at; ``margin_bytes`` 0: it is not."""
        self._member_id = member_id
        self._path = path
        self._most_log_bytes = most_log_bytes
        self._margin_bytes = margin_bytes
        self.own = ENOUGH
        self.why = ""
        self._said: dict[int, tuple[int, float]] = {}  # member: how short it is, and when it said so

    def look(self, kept_log_bytes: int, file_bytes: int) -> bool:
        """How short this host is now; whether that has changed. ``file_bytes``: of the order log's files."""
        quarter = self._most_log_bytes // 4
        before, self.own, self.why = self.own, ENOUGH, ""
        taken = max(kept_log_bytes, file_bytes - quarter)
        if taken >= 2 * quarter:
            self.own = VERY_SHORT if taken >= 3 * quarter else SHORT
            self.why = f"{kept_log_bytes} bytes of the order log are kept, its files take {file_bytes}"
        if self._margin_bytes:
            with suppress(OSError):
                free = free_bytes(self._path)
                if free < self._margin_bytes:
                    self.own = max(self.own, VERY_SHORT if free < self._margin_bytes // 2 else SHORT)
                    self.why = f"{free} bytes of the file system are free"
        return self.own != before

    def came(self, member_id: int, data: bytes, now_s: float) -> None:
        """Another host's node 0 said how short it is. ValueError if it makes no sense."""
        if len(data) != 1 or data[0] > VERY_SHORT:
            raise ValueError("a frame about space that says something else")
        self._said[member_id] = (data[0], now_s)

    def of_hosts(self, voters: Collection[int], heard_s: Mapping[int, float], now_s: float) -> dict[int, int]:
        """How short every host is, as far as this node knows; ``heard_s``: when each other host was heard
        last."""
        levels = {}
        for voter in voters:
            level, said_s = self._said.get(voter, (ENOUGH, 0.0))
            if voter == self._member_id:
                level = self.own
            elif now_s - heard_s.get(voter, now_s) >= _SILENT_S:
                level = GONE
            elif now_s - said_s >= _FORGOTTEN_S:
                level = ENOUGH
            levels[voter] = level
        return levels


def of_store(levels: Mapping[int, int]) -> int:
    """How short the store is: what is left when a majority of its hosts has at least as much room."""
    return sorted(levels.values())[len(levels) // 2]


class Word:
    """Of node 0 to its host's other nodes, how short the store is: a byte in a file of the run directory."""

    def __init__(self, run_dir: str) -> None:
        self._path = os.path.join(run_dir, SPACE) if run_dir else ""
        self._last = -1  # that was told, or heard

    def tell(self, level: int) -> None:
        """Again, too, where something that cleans up has removed the file."""
        if self._path and (level != self._last or not os.path.exists(self._path)):
            with suppress(OSError):
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.pwrite(fd, bytes((level,)), 0)
                    self._last = level
                finally:
                    os.close(fd)

    def heard(self) -> int:
        """ENOUGH, as long as node 0 has said nothing."""
        if self._path:
            with suppress(OSError), open(self._path, "rb", buffering=0) as file:
                self._last = int.from_bytes(file.read(1))
        return max(self._last, ENOUGH)
