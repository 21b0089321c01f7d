"""What replicas share where a store has several shards: links to the nodes of other shards, and the fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.order.log import Fold
from cluster.raft import Role
from cluster.wire.messages import LEADER, Status
from node.links.fronts import FrontLink
from node.links.siblings import NodeLinks
from node.replica.role import Kinds

if TYPE_CHECKING:
    from node.replica.server import Node

FOLD = "fold"


def linked(node: Node, kinds: Kinds) -> NodeLinks:
    """Links from this node to those of other shards; they follow members, and are swept each heartbeat."""
    links = kinds.links(node.machine, node.settings.common, node.wake, node.roster.table)
    node.roster.table.subscribe(links.follow)
    node.clock.each_heartbeat(links.sweep)
    return links


def load_fold(node: Node) -> Fold:
    """The fold at the applied position; a fresh store's stands at revision 1."""
    stored = node.store.meta(FOLD)
    fold = Fold() if stored is None else Fold.decode(stored)
    assert fold.revision == node.store.revision, "I6: the fold is in the batch of the data it describes"
    return fold


def not_leader(node: Node, link: FrontLink, rid: int) -> None:
    """Tell that nothing was logged, and who leads (I23)."""
    leader = 0 if node.raft.role is Role.LEADER else node.raft.leader_id
    link.answer(rid, Status.NOT_LEADER, LEADER.pack(leader, node.raft.term))
    node.mark_dirty(link)
