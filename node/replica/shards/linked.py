"""What the nodes of a store with several shards have besides: links to the nodes of other shards."""

from __future__ import annotations

from node.links.siblings import NodeLinks
from node.replica.server import Node


class LinkedNode(Node):
    """Opens and closes the links with itself; when they are flushed and swept is for the subclasses."""

    links: NodeLinks
    links_kind = NodeLinks

    def start(self) -> None:
        self.links = self.links_kind(self.machine, self.settings.common, self.wake, self.roster.table)
        super().start()

    def _close(self) -> None:
        self.links.close()  # only now: what was logged here gets its fate by the feed
        super()._close()

    def members_changed(self) -> None:
        self.links.follow()

    def _unseen(self) -> bool:
        return False  # other nodes wait for what is applied here; decision 20 says how soon each wants it

    def _prepare(self) -> None:
        """What is applied here is put in order first."""

    def connecting(self) -> bool:
        return bool(self.links.dirty)
