"""What replicas share where a store has several shards: links to the nodes of other shards, and the fold."""

from __future__ import annotations

from cluster.order.log import Fold
from node.links.fronts import FrontLink, say_not_leader
from node.links.siblings import NodeLinks
from node.replica.roles.role import Kinds
from node.replica.shards.role_node import RoleNode
from node.storage import StateStore
from node.storage.keys import FOLD


def linked(node: RoleNode, kinds: Kinds) -> NodeLinks:
    """Links from this node to those of other shards; they follow members, and are swept each heartbeat. A
    member's own word of where it is comes without a change of the table."""
    links = kinds.links(node.machine, node.settings.common, node.wake, node.roster.peer)
    node.roster.table.subscribe(links.follow)
    node.clock.each_second(links.follow)
    node.clock.each_heartbeat(links.sweep)
    return links


def load_fold(store: StateStore) -> Fold:
    """The fold at the applied position. A fresh store's is at revision 1; one shard's has no cuts, and is not
    stored before the cluster's data has grown."""
    stored, table = store.meta(FOLD), store.placement()
    if stored is not None:
        fold = Fold.decode(stored)
    else:
        fold = Fold(store.revision) if table is not None and table.base.shards == 1 else Fold()
    if table is not None:
        fold.know(table)
    assert fold.revision == store.revision, "I6: the fold is in the batch of the data it describes"
    return fold


def not_leader(node: RoleNode, link: FrontLink, rid: int) -> None:
    """Tell that nothing was logged, and which member leads (I23)."""
    say_not_leader(node.raft, link, rid)
    node.mark_dirty(link)
