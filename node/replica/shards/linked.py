"""What both roles share in a store of several shards: what they need of their node, links to the nodes of
other shards, and the fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cluster.order.log import Fold
from node.links.fronts import FrontLink, say_not_leader
from node.links.siblings import NodeLinks
from node.replica.roles.role import Handler, Kinds
from node.storage import StateStore
from node.storage.keys import FOLD

if TYPE_CHECKING:
    import asyncio

    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.machine import NodeMachine
    from node.members.roster import Roster
    from node.replica.clock import Clock
    from node.serving.reads import Reads
    from node.upkeep.expiry import Expiry
    from node.upkeep.upkeep import Upkeep


class RoleNode(Protocol):
    """What both roles drive, and where they register the rest."""

    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore
    roster: Roster
    reads: Reads
    clock: Clock
    expiry: Expiry
    upkeep: Upkeep
    handlers: dict[int, Handler]
    frames: dict[int, Callable[[int, bytes], None]]

    def wake(self) -> None: ...
    def mark_dirty(self, link: FrontLink) -> None: ...


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
