"""The moving parts of a node of a shard other than 0: as a source, and as a target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from cluster.order.moving.mover import Copied
from cluster.placement import Table
from cluster.placement.changes import dropped_in
from cluster.wire.messages import Method
from node.links.siblings import NodeLinks
from node.replica.moving.copying import Copying, CopyingNode
from node.replica.moving.leaving import SHARD, Leaving
from node.replica.moving.sources import Sources

if TYPE_CHECKING:
    from cluster.order.leading.shard_leader import ShardLeader
    from node.replica.roles.role import Kinds
    from node.replica.shards.feed_end import FeedEnd


class ShardMovesRole(Protocol):
    feed: FeedEnd
    links: NodeLinks
    leading: ShardLeader[Any] | None

    def unapplied(self) -> Iterable[bytes]: ...


class ShardMoves:
    def __init__(self, role: ShardMovesRole, node: CopyingNode, kinds: Kinds) -> None:
        self._role = role
        self._node = node
        self.links = role.links
        moved = kinds.moved(node.store)
        self.copying = Copying(node, self, moved, Sources(node, moved), lambda: node.roster.others)
        self.leaving = Leaving(
            node, role.links, moved, lambda: node.raft.configuration.voters,
            lambda: [shard for record in role.unapplied() if SHARD in record for shard in dropped_in(record)])
        role.feed.queue.lacks = self.copying.lacks
        role.feed.switches = lambda: self.copying.hurries
        node.clock.each_second(self.leaving.second)
        self.copying.placed(node.store.placement())

    def place(self, table: Table | None) -> None:
        """A table is applied here: whose keys are whose (G7)."""
        if self._role.leading is not None and table is not None:
            self._role.leading.placed(table)
        self.copying.placed(table)

    def lead(self, leading: ShardLeader[Any]) -> None:
        """This replica begins to lead."""
        leading.attempts.copied = self.copying.copied
        leading.attempts.uncounted = self._node.store.uncounted
        self.place(self._node.store.placement())

    def replaced(self) -> None:
        """Another state was installed."""
        self.place(self._node.store.placement())
        self.copying.replaced()
        self.leaving.replaced()

    def close(self) -> None:
        self.copying.close()
        self.leaving.close()

    # -- as a target

    def copy_grew(self) -> None:
        if self._role.leading is not None:
            self._role.leading.let_go()
        self._node.wake()

    def report_copied(self, copied: Copied) -> None:
        if sequencer := self._role.feed.reachable_sequencer():
            self.links.get(sequencer, 0).request(Method.COPIED, copied.encode())
            self.links.flush()

    def ask_for_state(self) -> None:
        self._role.feed.ask_peers_for_state("what moved here is at no host's source")

    def promises(self, move: int) -> bool:
        leading = self._role.leading
        return leading is not None and leading.attempts.promises(move)
