"""The own host's name and URLs, which the leader of shard 0 logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.frames import PeerKind
from cluster.wire.messages import Method

if TYPE_CHECKING:
    from node.storage import StateStore
    from node.upkeep.owner import UpkeepNode


log = structlog.get_logger("members")


class Publishing:
    def __init__(self, node: UpkeepNode, settings: NodeSettings, store: StateStore, raft: Raft) -> None:
        self._node = node
        self._settings = settings
        self._store = store
        self._raft = raft
        self._done = False

    def done(self) -> bool:
        """Whether this host's own attributes are applied here (in shard 0, which keeps them)."""
        if not self._done:
            settings = self._settings
            self._done = (
                settings.shard != 0
                or self._store.members().get(settings.common.member_id) == self._attributes()
            )
            if self._done and settings.shard == 0:
                urls = " ".join(settings.client_urls)
                log.info(f"published {{Name:{settings.common.name} ClientURLs:[{urls}]}} "
                         f"to cluster {settings.common.cluster_id:x}")
        return self._done

    def _attributes(self) -> bytes:
        settings = self._settings
        return rpc_pb2.Member(
            ID=settings.common.member_id, name=settings.common.name, peerURLs=list(settings.peer_urls),
            clientURLs=list(settings.client_urls)).SerializeToString(deterministic=True)

    def publish(self) -> None:
        """Have the leader log this host's attributes; repeated until they are applied here."""
        if self.done():
            return
        leader_id = self._raft.leader_id
        if self._node.writes.leader is not None:
            self.asked(self._attributes())
        elif leader_id and leader_id != self._settings.common.member_id:
            self._node.peers.send(leader_id, PeerKind.PUBLISH.byte, self._attributes())

    def asked(self, member: bytes) -> None:
        """A host asks the leader to log its attributes."""
        leader = self._node.writes.leader
        if leader is not None and member not in self._store.members().values():
            leader.execute(Method.PUBLISH, member)
