"""A node's orderly end: it leads nothing any more, its requests are answered, and its fronts ask elsewhere.

1. Peers are told (frame ``G``), so that none hands leadership to a node that is about to end.
2. Leadership is handed over, and again if it comes back. What only a leader is told (``Owed.LEADING``) is
   waited for before, up to an election timeout.
3. Where nobody takes over, what waits for counts (``node.serving.txns.uncounted``) is waited for, up to two
   election timeouts after the beginning. What still waits is refused once fronts were told. So is who waits
   for the end of a compaction or a defragmentation.
4. What was logged here gets its fate later: with the next leader's first entry, on shards other than 0 with
   its first cut. The node waits up to three election timeouts in all, with links and feed open (I7, I23).
5. Fronts are told (LEAVING). A front sends nothing more, and says FAREWELL once it has every answer. So no
   request is lost in a socket's buffer, where its outcome would be unknown. One election timeout at most.

``tools.muster.host.supervising`` ends a host's nodes in order: node 0, which feeds the others, last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.raft import Role
from cluster.wire.frames import PeerKind
from node.any_node import AnyNode
from node.replica.roles.role import Owed
from node.replica.roles.role import Role as NodeRole

if TYPE_CHECKING:
    from node.links.fronts import Fronts
    from node.links.peers import Peers
    from node.members.roster import Roster
    from node.serving.txns.uncounted import Uncounted
    from node.upkeep.space.defragments import Defragments
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("node")

FRAME = PeerKind.LEAVING.byte
_LOOK_S = 0.005


class LeavingNode(AnyNode, Protocol):
    roster: Roster
    peers: Peers
    fronts: Fronts
    role: NodeRole
    uncounted: Uncounted
    defragments: Defragments
    upkeep: Upkeep
    fatal: asyncio.Future[str]
    stopping: bool
    left: bool


def end_all(*ends: Callable[[], object]) -> None:
    """Run all. The first failure is raised once all have run: a disk may be gone. Others are logged."""
    failure: Exception | None = None
    for end in ends:
        try:
            end()
        except Exception as error:
            if failure is not None:
                log.error("cannot end a part of this node", error=str(error) or repr(error))
            failure = failure or error
    if failure is not None:
        raise failure


class Leaving:
    def __init__(self, node: LeavingNode) -> None:
        self._node = node
        self._election_s = node.settings.common.election_timeout_ms / 1000
        self._told_at = 0.0  # peers
        self._target = 0  # that leadership is handed to

    async def run(self) -> None:
        """Return when the node may close: in order, or at its bound."""
        node, common = self._node, self._node.settings.common
        node.stopping = True
        began = node.loop.time()
        self._tell_peers()
        await self._until(
            lambda: node.role.owed is not Owed.LEADING or not self._may_hand_over, began + self._election_s)
        bound = began + common.leave_s - self._election_s
        await self._until(  # the last ones that are counted are logged then, for which there is time left
            lambda: not len(node.uncounted) or self._may_hand_over, bound - self._election_s)
        if not await self._until(self._settled, bound):
            log.warning("stopping with requests whose outcome is not known", shard=node.settings.shard,
                        leads=node.raft.role is Role.LEADER)
        if not await self._part():
            log.warning("stopping although a front has not confirmed all of its answers",
                        shard=node.settings.shard)

    async def removed(self) -> None:
        """The host was removed: it owes only answers that are under way, its removal's among them."""
        await self._part()

    async def _part(self) -> bool:
        """Wait until the fronts have confirmed all their answers."""
        node = self._node
        node.left = True
        node.fronts.leave()
        node.uncounted.refuse()
        node.upkeep.compaction.leave()
        node.defragments.leave()
        node.wake()
        return await self._until(lambda: node.fronts.left, node.loop.time() + self._election_s)

    async def _until(self, condition: Callable[[], bool], until: float) -> bool:
        node = self._node
        while not condition():
            if node.loop.time() >= until or (node.fatal.done() and not node.roster.left):
                return False
            self._tell_peers()
            await asyncio.sleep(_LOOK_S)
        return True

    def _tell_peers(self) -> None:
        node, now = self._node, self._node.loop.time()
        if now - self._told_at >= node.settings.common.heartbeat_interval_ms / 1000:
            self._told_at = now
            for peer in node.roster.table.peers:
                node.peers.send(peer.member_id, FRAME, b"")

    @property
    def _may_hand_over(self) -> bool:
        """Whether this node leads, and another voter could."""
        return self._node.raft.role is Role.LEADER and bool(self._node.upkeep.succession.successors())

    def _settled(self) -> bool:
        node, raft = self._node, self._node.raft
        if raft.role is Role.LEADER:
            successors = node.upkeep.succession.successors()
            if self._target not in successors if raft.transferring else bool(successors):
                # where all hosts are stopped at once, the target ends as well: take another one, if any
                self._target = successors[0] if successors else node.settings.common.member_id
                node.upkeep.succession.hand_over(self._target)
                node.wake()
            if successors:
                return False
        return node.role.owed is Owed.NOTHING
