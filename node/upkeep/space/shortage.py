"""How short of room on its disks this host is, and whether the store must refuse data.

``node.upkeep.space.disks`` has the levels. Node 0 judges the store, and tells its host's other nodes by a
byte in a file. Where it follows it does not know which hosts are down: those that say so are short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings
from node.upkeep.space.alarms import Alarms
from node.upkeep.space.disks import ENOUGH, FRAME, GONE, LOOK_BYTES, SHORT, Logged, Space, Word, of_store

if TYPE_CHECKING:
    from node.storage import RaftLog
    from node.upkeep.owner import UpkeepNode

log = structlog.get_logger("upkeep")

_LOOKS = 32  # at the free space, while so much is logged as its margin has


class Shortage:
    def __init__(self, node: UpkeepNode, settings: NodeSettings, raft_log: RaftLog, raft: Raft, *,
                 alarms: Alarms, logged: Logged, now_ms: Callable[[], int]) -> None:
        self._node = node
        self._log = raft_log
        self._raft = raft
        self._alarms = alarms
        self._logged = logged
        self._now_ms = now_ms
        self.store = ENOUGH  # how short of space the store is; at node 0 only where it leads
        self.look_at = 0  # log bytes
        least = min(settings.order_log_bytes // 2, settings.min_free_disk_bytes or settings.order_log_bytes)
        self._step = max(least // _LOOKS, LOOK_BYTES)
        self._space = None if settings.shard else Space(
            settings.common.member_id, settings.data_dir, most_log_bytes=settings.order_log_bytes,
            margin_bytes=settings.min_free_disk_bytes)
        self._word = Word(settings.common.run_dir)

    def look(self) -> None:
        """How things are now. Others hear of a change at once."""
        space = self._space
        self.look_at = self._logged.own + self._step
        if space is None:
            self.store = self._word.heard()
            return
        if space.look(self._log.bytes_after(0), self._log.file_bytes()):
            self._tell(space)
            short = space.own > ENOUGH
            event = "this host is short of disk space" if short else "this host has enough disk space again"
            log.warning(event, short=short, why=space.why)
        leads = self._node.writes.leader is not None
        peers = self._raft.peers() if leads else {}
        heard_s = {member_id: peer.heard_ms / 1000 for member_id, peer in peers.items()}
        levels = space.of_hosts(self._raft.configuration.voters, heard_s, self._now_ms() / 1000)
        store = of_store(levels) if levels else ENOUGH
        self._word.tell(store)
        self.store = store if leads else ENOUGH
        if self.store:
            for member_id, level in levels.items():
                if SHORT <= level < GONE:
                    self._alarms.raise_for(member_id, rpc_pb2.NOSPACE)

    def _tell(self, space: Space) -> None:
        for peer in self._node.roster.table.peers:
            self._node.peers.send(peer.member_id, FRAME, bytes((space.own,)))

    def came(self, member_id: int, data: bytes) -> None:
        """Another host says how short it is. ValueError if it makes no sense."""
        if self._space is not None:
            self._space.came(member_id, data, self._now_ms() / 1000)

    def second(self) -> None:
        self.look()
        if self._space is not None and self._space.own:
            self._tell(self._space)
